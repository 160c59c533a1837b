"""Logging set-up and progress bars, the same for every verb."""

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from echotrain.errors import printable
from echotrain.redaction import without_credentials

__all__ = ["console", "setup_logging", "track"]

T = TypeVar("T")

_CONTINUATION = "\n    "

console = Console(stderr=True, soft_wrap=True)


def setup_logging(level: str = "INFO") -> None:
    """Send echotrain's log records to stderr, readable by a person; other libraries only warn. No password of an address is among them."""
    on_terminal = sys.stderr.isatty()
    handler: logging.Handler = RichHandler(console=console, show_path=False) if on_terminal else logging.StreamHandler()
    handler.addFilter(_disarm)
    form = "%(message)s" if on_terminal else "%(asctime)s %(levelname)s %(name)s: %(message)s"
    handler.setFormatter(_RedactedFormatter(form, "[%X]" if on_terminal else "%H:%M:%S"))
    logging.basicConfig(level="WARNING", handlers=[handler], force=True)
    logging.getLogger("echotrain").setLevel(os.environ.get("ECHOTRAIN_LOG", level))


def _disarm(record: logging.LogRecord) -> bool:
    """Escape what moves a terminal's cursor or colours it, and indent what follows a line's end, so that no name forges a record."""
    record.msg, record.args = _CONTINUATION.join(map(printable, record.getMessage().split("\n"))), ()
    return True


class _RedactedFormatter(logging.Formatter):
    """Takes the passwords of addresses out of messages and tracebacks, whichever library they are of."""

    def format(self, record: logging.LogRecord) -> str:
        return without_credentials(super().format(record))


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items under a progress bar on a terminal, silently elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield from progress.track(items, description=description, total=total)
