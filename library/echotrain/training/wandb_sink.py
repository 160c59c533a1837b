"""A run as Weights & Biases shows it: curves, configuration, pictures, tables, and where data and checkpoints lie."""

import functools
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echotrain.errors import ConfigError
from echotrain.redaction import redacted, without_credentials
from echotrain.storage.store import Store
from echotrain.tasks.task import Panel, ScoreTable
from echotrain.training.checkpoint import find_checkpoint
from echotrain.training.experiment import WandbConfig
from echotrain.training.sinks import Record

__all__ = ["WandbSink"]

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]


class WandbSink:
    """A Weights & Biases run.

    ``wandb.init`` is called directly, on rank 0, with the run's own id and ``resume="allow"``, so that a restart goes on in the same run.
    Offline, the run's files end in ``<run>/wandb/``, ready for ``wandb sync``. Data sets and checkpoints are artifacts by reference:
    W&B learns their URIs and never their bytes.

    Args:
        config: The W&B settings.
        store: The run's folder.
        run_id: Stays the same over restarts.
        name: Shown in W&B.
        experiment: The resolved configuration, as plain values.
        catalog: What the run learns from: its URI, and what identifies its content.
    """

    def __init__(
        self,
        config: WandbConfig,
        store: Store,
        *,
        run_id: str,
        name: str,
        experiment: dict[str, Any],
        catalog: tuple[str, Mapping[str, Any]] | None = None,
    ) -> None:
        import wandb

        self._store = store
        self._folder = tempfile.TemporaryDirectory(prefix="echotrain-wandb-")
        # Where W&B stages what it is about to send; its default is below the home folder, which a container may not be able to write.
        os.environ.setdefault("WANDB_DATA_DIR", str(Path(tempfile.gettempdir()) / "echotrain-wandb-data"))
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
            config=redacted(experiment),
            settings=wandb.Settings(silent=True, console="off"),
        )
        try:
            try:
                self._run = start(mode="online" if self._is_online else "offline")
            except wandb.errors.CommError as error:
                if not self._is_online or isinstance(error, wandb.errors.AuthenticationError):
                    raise
                # The service may be away while a run restarts; the run must not be.
                logger.warning("W&B cannot be reached (%s); logging offline, to be uploaded by wandb sync", without_credentials(str(error)))
                self._is_online = False
                self._run = start(mode="offline")
        except wandb.errors.Error as error:
            remedy = "Check WANDB_API_KEY, wandb.entity and wandb.project; or set WANDB_MODE=offline, or wandb.enabled=false."
            raise ConfigError(f"wandb.project={config.project}", f"W&B did not start the run ({error})", remedy) from error
        self._run.define_metric("*", step_metric="global_step")
        if catalog is not None:
            self._note_data(*catalog)

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

        rows = _of_one_size([_side_by_side(panel) for panel in panels])
        captions = [f"{panel.caption}: {' | '.join(panel.images)}" for panel in panels]
        pictures = [wandb.Image(row, caption=caption) for row, caption in zip(rows, captions, strict=True)]
        self._run.log({"validation": pictures, "global_step": step})

    def tabulate(self, table: ScoreTable, step: int) -> None:
        """Log a table, and its numbers as curves: ``anatomy/knee/ssim``."""
        import wandb

        curves = {
            f"{table.title}/{row[0]}/{column}": value
            for row in table.rows
            for column, value in zip(table.columns[2:], row[2:], strict=True)
            if not isinstance(value, str)
        }
        shown = wandb.Table(columns=list(table.columns), data=[list(row) for row in table.rows])
        self._run.log({f"by {table.title}": shown, **curves, "global_step": step})

    def close(self) -> None:
        """Finish the run; an offline one is put into the run's folder."""
        self._note_checkpoints()
        self._run.finish()
        if not self._is_online:
            root = Path(self._folder.name)
            for path in sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink()):
                self._store.upload(path, path.relative_to(root).as_posix())
        self._folder.cleanup()

    def _note_data(self, uri: str, identity: Mapping[str, Any]) -> None:
        """Say where the data lie. Offline there is no service to ask for it, so that it counts as the run's own."""
        artifact = _reference(f"catalog-{identity['checksum']}", "dataset", {"catalog": uri}, {**identity, "uri": uri})
        if self._is_online:
            self._run.use_artifact(artifact)
        else:
            self._run.log_artifact(artifact)

    def _note_checkpoints(self) -> None:
        """Say where the best and the latest checkpoint lie."""
        found = {which: find_checkpoint(self._store, which) for which in ("best", "latest")}
        places = {which: f"{self._store.uri}/checkpoints/{meta.name}" for which, meta in found.items() if meta is not None}
        if places:
            scores = {which: meta.scores for which, meta in found.items() if meta is not None}
            self._run.log_artifact(_reference(f"checkpoints-{self._run.id}", "model", places, {"scores": scores, **places}))


def _reference(name: str, kind: str, places: Mapping[str, str], metadata: dict[str, Any]) -> Any:
    """Return an artifact of URIs. What lies in a folder is told in its metadata alone: W&B would read and list every file of it."""
    import wandb

    artifact = wandb.Artifact(name, type=kind, metadata=metadata)
    for key, uri in places.items():
        if "://" in uri:
            artifact.add_reference(uri, name=key, checksum=False)
    return artifact


def _of_one_size(rows: list[Pixels]) -> list[Pixels]:
    """Add black to the right and below: W&B shows the pictures of one step in one window."""
    height, width = (max(row.shape[axis] for row in rows) for axis in (0, 1))
    return [np.pad(row, ((0, height - row.shape[0]), (0, width - row.shape[1]))) for row in rows]


def _side_by_side(panel: Panel) -> Pixels:
    """Return the images of a panel in one row, white at the panel's scale."""
    images = [np.clip(image / panel.scale, 0, 1) for image in panel.images.values()]
    return (np.concatenate(images, axis=1) * 255).astype(np.uint8)
