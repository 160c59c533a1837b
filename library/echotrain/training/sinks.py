"""Where the numbers of a run go: JSON lines beside the checkpoints, a console, Weights & Biases.

A record is a flat dictionary with a ``kind``: ``start`` (sizes of the run), ``train`` (means since the last such record),
``epoch`` (mean training loss and validation scores). Only rank 0 has sinks. No record names a patient.
"""

import functools
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from echotrain.errors import ConfigError, ObjectMissingError
from echotrain.storage.store import Store
from echotrain.tasks.task import Panel
from echotrain.training.experiment import WandbConfig

__all__ = ["CallSink", "JsonLinesSink", "Record", "Sink", "WandbSink"]

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]
METRICS = "metrics.jsonl"


class Sink(Protocol):
    """Receives the records and pictures of a run."""

    def log(self, record: Record) -> None:
        """Take a record."""

    def show(self, panels: list[Panel], step: int) -> None:
        """Take pictures of validation samples."""

    def close(self) -> None:
        """Write out whatever is held back."""


class JsonLinesSink:
    """``metrics.jsonl`` in the run's folder, one line per ``train`` and ``epoch`` record.

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
        self._is_dirty = False

    @property
    def num_lines(self) -> int:
        """Lines so far."""
        return len(self._lines)

    def content(self) -> bytes:
        """Return the whole file."""
        return "".join(f"{line}\n" for line in self._lines).encode()

    def log(self, record: Record) -> None:
        """Add a line; a number that is not finite becomes ``null``."""
        if record["kind"] == "start":
            return
        plain = {key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in record.items()}
        self._lines.append(json.dumps(plain))
        self._is_dirty = True
        if time.monotonic() - self._written_at > self._period_s:
            self._write()

    def show(self, panels: list[Panel], step: int) -> None:
        """Pictures have no place in a text file."""

    def close(self) -> None:
        """Write the file."""
        if self._is_dirty:
            self._write()

    def _write(self) -> None:
        self._store.write(METRICS, self.content())
        self._written_at = time.monotonic()
        self._is_dirty = False

    def _existing(self) -> list[str]:
        try:
            return self._store.read(METRICS).decode().splitlines()
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

    def close(self) -> None:
        """Nothing is held back."""


class WandbSink:
    """A Weights & Biases run: curves, the resolved configuration, pictures.

    ``wandb.init`` is called directly, on rank 0, with the run's own id and ``resume="allow"``, so that a restart goes on in the same run.
    Offline, the run's files end in ``<run>/wandb/``, ready for ``wandb sync``.

    Args:
        config: The W&B settings.
        store: The run's folder.
        run_id: Stays the same over restarts.
        name: Shown in W&B.
        experiment: The resolved configuration, as plain values.
    """

    def __init__(self, config: WandbConfig, store: Store, *, run_id: str, name: str, experiment: dict[str, Any]) -> None:
        import wandb

        self._store = store
        self._folder = tempfile.TemporaryDirectory(prefix="echotrain-wandb-")
        self._is_online = bool(os.environ.get("WANDB_API_KEY")) and os.environ.get("WANDB_MODE", "online") == "online"
        start = functools.partial(
            wandb.init,
            project=config.project,
            entity=config.entity or None,
            group=config.group or None,
            id=run_id,
            name=name,
            resume="allow",
            dir=self._folder.name,
            config=experiment,
            settings=wandb.Settings(silent=True, console="off"),
        )
        try:
            try:
                self._run = start(mode="online" if self._is_online else "offline")
            except wandb.errors.CommError as error:
                if not self._is_online or isinstance(error, wandb.errors.AuthenticationError):
                    raise
                # The service may be away while a run restarts; the run must not be.
                logger.warning("W&B cannot be reached (%s); logging offline, to be uploaded by wandb sync", error)
                self._is_online = False
                self._run = start(mode="offline")
        except wandb.errors.Error as error:
            remedy = "Check WANDB_API_KEY, wandb.entity and wandb.project; or set WANDB_MODE=offline, or wandb.enabled=false."
            raise ConfigError(f"wandb.project={config.project}", f"W&B did not start the run ({error})", remedy) from error
        self._run.define_metric("*", step_metric="global_step")

    def log(self, record: Record) -> None:
        """Log the numbers as ``train/…`` and ``epoch/…`` over the global step."""
        if record["kind"] == "start":
            self._run.config.update({key: value for key, value in record.items() if key != "kind"}, allow_val_change=True)
            return
        numbers = {f"{record['kind']}/{key}": value for key, value in record.items() if isinstance(value, int | float)}
        self._run.log({**numbers, "global_step": record["global_step"]})

    def show(self, panels: list[Panel], step: int) -> None:
        """Log each panel as one picture, its images side by side."""
        import wandb

        pictures = [wandb.Image(_side_by_side(panel), caption=f"{panel.caption}: {' | '.join(panel.images)}") for panel in panels]
        self._run.log({"validation": pictures, "global_step": step})

    def close(self) -> None:
        """Finish the run; an offline one is put into the run's folder."""
        self._run.finish()
        if not self._is_online:
            root = Path(self._folder.name)
            for path in sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink()):
                self._store.upload(path, path.relative_to(root).as_posix())
        self._folder.cleanup()


def _side_by_side(panel: Panel) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the images of a panel in one row, white at the panel's scale."""
    images = [np.clip(image / panel.scale, 0, 1) for image in panel.images.values()]
    return (np.concatenate(images, axis=1) * 255).astype(np.uint8)
