"""Errors on their way from one process to another: raised there, Ray would wrap them in a traceback of its own."""

import json

from ray.exceptions import RayError

from echotrain import errors
from echotrain.errors import EchotrainError, ResourceError

__all__ = ["as_text", "lost", "restored"]


def as_text(error: EchotrainError) -> str:
    """Return an error as it travels."""
    public = next(kind for kind in type(error).__mro__ if kind.__name__ in errors.__all__)
    return json.dumps([public.__name__, error.value, error.limit, error.remedy])


def restored(text: str) -> EchotrainError:
    """Return the error that was made into text."""
    kind, value, limit, remedy = json.loads(text)
    cls: type[EchotrainError] = getattr(errors, kind)
    return cls(value, limit, remedy)


def lost(what: str, error: RayError, remedy: str) -> ResourceError:
    """Return the error of work that Ray has given up, which is that of a process or a node: what code raises comes as text.

    Args:
        what: Was to be done.
        error: As Ray raised it.
        remedy: Where memory ran out.
    """
    seen = (str(error).strip().splitlines() or [""])[0]
    return ResourceError(what, f"did not come ({type(error).__name__}: {seen})", f"{remedy}; see the logs of Ray's nodes.")
