"""Bounded retries with jitter, the same for every client of a store."""

import contextlib
import contextvars
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from echotrain.errors import StorageError
from echotrain.redaction import without_credentials

__all__ = ["RetryPolicy", "TransientError", "asked_again", "retrying"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ask: contextvars.ContextVar[Callable[[], None] | None] = contextvars.ContextVar("_ask", default=None)


class TransientError(Exception):
    """A failure that another attempt may mend: a 503, a timeout, a body that broke off."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how long to try.

    Attributes:
        attempts: Tries in all.
        first_delay_s: Longest pause before the second try; it doubles for each further one.
        max_delay_s: Longest pause of all. The pause is drawn between half of it and all of it, so that many
            clients do not come back at once.
    """

    attempts: int = 5
    first_delay_s: float = 0.1
    max_delay_s: float = 2.0

    def delay(self, attempt: int) -> float:
        """Return the pause in seconds after the failed try number ``attempt``, counted from 0."""
        longest = min(self.max_delay_s, self.first_delay_s * 2.0**attempt)
        return longest * random.uniform(0.5, 1.0)


@contextlib.contextmanager
def asked_again(question: Callable[[], None]) -> Iterator[None]:
    """Have a question asked before every further try of what the block does; an error that it raises ends the tries."""
    token = _ask.set(question)
    try:
        yield
    finally:
        _ask.reset(token)


def retrying(action: Callable[[], T], what: str, policy: RetryPolicy) -> T:
    """Return what ``action`` returns, trying again after each ``TransientError``.

    Args:
        action: Called until it succeeds; any other error passes through at once.
        what: Names the object in messages.
        policy: How often and how long to try.

    Raises:
        StorageError: Every attempt failed.
    """
    started = time.monotonic()
    for attempt in range(policy.attempts):
        try:
            question = _ask.get()
            if attempt and question is not None:
                with asked_again(lambda: None):  # Its own tries ask nothing.
                    question()
            return action()
        except TransientError as error:
            if attempt + 1 == policy.attempts:
                seconds = time.monotonic() - started
                raise StorageError(
                    what,
                    f"failed {policy.attempts} times in {seconds:.1f} s, last: {error}",
                    "See whether the store is up and not overloaded, then run again.",
                ) from error
            pause = policy.delay(attempt)
            logger.info("%s: %s; trying again in %.2f s", what, without_credentials(str(error)), pause)
            time.sleep(pause)
    raise AssertionError("a retry policy has at least one attempt")
