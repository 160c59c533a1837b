"""Errors of ours on their way from one process to another: raised there, Ray would wrap them in a traceback."""

import json

from echotrain import errors
from echotrain.errors import EchotrainError

__all__ = ["as_text", "restored"]


def as_text(error: EchotrainError) -> str:
    """Return an error as it travels."""
    public = next(kind for kind in type(error).__mro__ if kind.__name__ in errors.__all__)
    return json.dumps([public.__name__, error.value, error.limit, error.remedy])


def restored(text: str) -> EchotrainError:
    """Return the error that was made into text."""
    kind, value, limit, remedy = json.loads(text)
    cls: type[EchotrainError] = getattr(errors, kind)
    return cls(value, limit, remedy)
