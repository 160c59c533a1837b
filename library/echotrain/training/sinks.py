"""Where the numbers of a run go: JSON lines beside the checkpoints, a console, and (``wandb_sink``) Weights & Biases.

A record is a flat dictionary with a ``kind``: ``start`` (sizes of the run), ``train`` (means since the last such record),
``epoch`` (mean training loss and validation scores); and in ``metrics.jsonl``, from which everything else can be made again, ``table``
(validation scores by group). Only rank 0 has sinks. No record names a patient. The driver alone hears of ``waiting``, where workers wait
for nodes.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from echotrain.errors import ObjectMissingError
from echotrain.storage.store import Store
from echotrain.tasks.task import Panel, ScoreTable
from echotrain.training.pictures import as_pictures, encode, picture_key

__all__ = ["CallSink", "JsonLinesSink", "Record", "Sink"]

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]
METRICS_FILE = "metrics.jsonl"


class Sink(Protocol):
    """Receives the records and pictures of a run."""

    def log(self, record: Record) -> None:
        """Take a record."""

    def show(self, panels: list[Panel], step: int) -> None:
        """Take pictures of validation samples."""

    def tabulate(self, table: ScoreTable, step: int) -> None:
        """Take validation scores by group."""

    def close(self) -> None:
        """Write out whatever is held back."""


class JsonLinesSink:
    """``metrics.jsonl`` in the run's folder, one line per record but ``start``, and beside it ``pictures/``.

    A line also says at what ``time`` it was logged, in seconds since 1970.

    An object store cannot append, so the lines are held and the whole file is written: every ``period_s`` at most, and
    before each checkpoint's marker.

    Args:
        store: The run's folder.
        lines: Lines that belong to the position the run resumes from; later ones, of a run that was cut off, are dropped.
    """

    def __init__(self, store: Store, *, lines: int = 0, period_s: float = 15.0) -> None:
        self._store = store
        self._period_s = period_s
        self._written_at = time.monotonic()
        self._lines = self._existing()[:lines] if lines else []
        if len(self._lines) < lines:
            logger.warning("%s/%s has %d of the %d lines that its checkpoint knows of", store.uri, METRICS_FILE, len(self._lines), lines)
        self._num_stored = len(self._lines)
        self._storing = threading.Lock()

    @property
    def num_lines(self) -> int:
        """Lines so far."""
        return len(self._lines)

    def records(self) -> list[Record]:
        """Return what the lines say."""
        return [json.loads(line) for line in self._lines]

    def log(self, record: Record) -> None:
        """Add a line; a number that is not finite becomes ``null``."""
        if record["kind"] == "start":
            return
        plain = {key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in record.items()}
        self._lines.append(json.dumps({**plain, "time": round(time.time(), 3)}))
        if time.monotonic() - self._written_at > self._period_s:
            self.store_lines()

    def show(self, panels: list[Panel], step: int) -> None:
        """Keep the pictures as files of their step; one that is repeated writes over its own.

        They have no lines: whether a run shows pictures must change nothing in its numbers, which the lines of a position are among.
        """
        for number, (caption, pixels) in enumerate(as_pictures(panels)):
            self._store.write(picture_key(step, f"{number:03d}.png"), encode(caption, pixels))

    def tabulate(self, table: ScoreTable, step: int) -> None:
        """Add a line of scores by group."""
        rows = [[None if isinstance(value, float) and not np.isfinite(value) else value for value in row] for row in table.rows]
        self.log({"kind": "table", "global_step": step, "title": table.title, "columns": list(table.columns), "rows": rows})

    def close(self) -> None:
        """Write the file."""
        if self._num_stored < len(self._lines):
            self.store_lines()

    def store_lines(self) -> None:
        """Write the file as it is now; from any thread, one at a time, so that an older one never comes last."""
        with self._storing:
            lines = list(self._lines)
            self._store.write(METRICS_FILE, "".join(f"{line}\n" for line in lines).encode())
            self._written_at = time.monotonic()
            self._num_stored = len(lines)

    def _existing(self) -> list[str]:
        try:
            return self._store.read(METRICS_FILE).decode().splitlines()
        except ObjectMissingError:
            return []


class CallSink:
    """Hands each record to a function: the way to a console in another process, or to a test."""

    def __init__(self, call: Callable[[Record], None]) -> None:
        self._call = call

    def log(self, record: Record) -> None:
        """Hand the record on."""
        self._call(record)

    def show(self, panels: list[Panel], step: int) -> None:
        """A console shows no pictures."""

    def tabulate(self, table: ScoreTable, step: int) -> None:
        """Nor tables."""

    def close(self) -> None:
        """Nothing is held back."""
