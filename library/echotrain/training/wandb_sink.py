"""A run as Weights & Biases shows it: curves, configuration, pictures, tables, and where data and checkpoints lie."""

import functools
import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from echotrain.errors import ConfigError, EchotrainError
from echotrain.redaction import redacted, without_credentials
from echotrain.storage.store import Store
from echotrain.tasks.task import Panel, ScoreTable
from echotrain.training.checkpoint import find_checkpoint
from echotrain.training.experiment import WandbConfig
from echotrain.training.pictures import Picture, as_pictures, decode, picture_key
from echotrain.training.sinks import Record

__all__ = ["WandbSink"]

logger = logging.getLogger(__name__)


class WandbSink:
    """A Weights & Biases run.

    ``wandb.init`` is called directly, on rank 0, with the run's own id and, online, ``resume="allow"``: a restart goes on in the same run.
    Offline nothing is resumed, for ``wandb sync`` would then add a whole history to the part that was uploaded before a restart.
    Data sets and checkpoints are artifacts by reference: W&B learns their URIs and never their bytes.

    Every ``train`` and every ``epoch`` record is one row of the run's history, the pictures and the table of an epoch in the same row, so
    that a row is there with all it has or not at all. A restart first logs what ``metrics.jsonl`` says of the time before. Online, rows
    that W&B has are left out, logged before the position that the run resumes from or repeated after it, and those that it has not are
    added. Offline there is nothing to go on with, so that the history is whole in the new file; at the end that takes the place of the
    older one in ``<run>/wandb/``, ready for ``wandb sync``. What cannot be had again is what W&B itself measures, such as the machine's
    load and the seconds since the run's start: the file has the last start's (rows keep their times of day). A number that was not finite
    is missing in a row that is logged again.

    Args:
        config: The W&B settings.
        store: The run's folder.
        run_id: Stays the same over restarts.
        name: Shown in W&B.
        experiment: The resolved configuration, as plain values.
        catalog: What the run learns from: its URI, and what identifies its content.
        past: The records of ``metrics.jsonl`` up to the position that the run resumes from.
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
        past: Sequence[Record] = (),
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
            dir=self._folder.name,
            config=redacted(experiment),
            settings=wandb.Settings(silent=True, console="off"),
        )
        try:
            try:
                self._run = start(mode="online", resume="allow") if self._is_online else start(mode="offline")
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
        # What the next row has besides its numbers; made when it is known that W&B has not that row yet.
        self._beside: list[Callable[[], dict[str, Any]]] = []
        self._known = self._received() if self._is_online else {}
        for record in past:
            self._log_again(record)

    def log(self, record: Record) -> None:
        """Log the numbers as ``train/…`` and ``epoch/…`` over the global step, once."""
        if record["kind"] == "start":
            self._run.config.update({key: value for key, value in record.items() if key != "kind"}, allow_val_change=True)
        else:
            self._log_row(record, {})

    def show(self, panels: list[Panel], step: int) -> None:
        """Add each panel as one picture, its images side by side, to the epoch that is logged next."""
        pictures = as_pictures(panels)
        self._beside.append(lambda: _shown(pictures))

    def tabulate(self, table: ScoreTable, step: int) -> None:
        """Add a table, and its numbers as curves (``anatomy/knee/ssim``), to the epoch that is logged next."""
        self._beside.append(lambda: _tabulated(table.title, table.columns, table.rows))

    def close(self) -> None:
        """Finish the run; an offline one is put into the run's folder, in the place of what an earlier start left there."""
        try:
            self._note_checkpoints()
        except EchotrainError as error:
            logger.warning("the run's checkpoints are not noted in W&B: %s", error)
        self._run.finish()
        if self._is_online:
            for key in self._offline_files():
                self._store.delete(key)
        else:
            self._keep_offline()
        self._folder.cleanup()

    def _log_again(self, record: Record) -> None:
        """Log a line of ``metrics.jsonl``, at the time at which it was logged."""
        if record["kind"] == "table":
            self._beside.append(lambda: _tabulated(record["title"], record["columns"], record["rows"]))
        else:
            if record["kind"] == "epoch":
                self._beside.append(lambda: _shown(self._kept_pictures(record["global_step"])))
            self._log_row(record, {"_timestamp": record["time"]} if "time" in record else {})

    def _log_row(self, record: Record, more: Mapping[str, float]) -> None:
        kind, step = record["kind"], record["global_step"]
        beside, self._beside = self._beside, []
        if step <= self._known.get(kind, -1):
            return
        numbers = {f"{kind}/{key}": value for key, value in record.items() if isinstance(value, int | float) and key != "time"}
        for further in beside:
            numbers |= further()
        self._run.log({**numbers, "global_step": step, **more})

    def _received(self) -> dict[str, int]:
        """Return the last global step of each kind of record that W&B has of this run."""
        found = {kind: self._run.summary.get(f"{kind}/global_step") for kind in ("train", "epoch")}
        return {kind: int(step) for kind, step in found.items() if step is not None}

    def _kept_pictures(self, step: int) -> list[tuple[str, Picture]]:
        """Return the pictures of a step as far as they are still in the run's folder."""
        return [decode(self._store.read(info.key)) for info in list(self._store.list(picture_key(step, "")))]

    def _keep_offline(self) -> None:
        """Put the run's files where those of an earlier start are: the history last, over the older one, so that there is always one."""
        root = Path(self._folder.name) / "wandb"
        (made,) = (path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
        before = self._offline_files()
        folder = next((key.rpartition("/")[0] for key in reversed(before) if _is_history(key)), f"wandb/{made.name}")
        written = {f"{folder}/{path.relative_to(made).as_posix()}": path for path in sorted(made.rglob("*")) if path.is_file()}
        # A mark that the older history was uploaded would keep this one from being.
        for key in (key for key in before if _is_history(key.removesuffix(".synced")) and key not in written):
            self._store.delete(key)
        for key in sorted(written, key=_is_history):
            self._store.upload(written[key], key)
        for key in before:
            if key not in written:
                self._store.delete(key)

    def _offline_files(self) -> list[str]:
        """Return what earlier starts of this run have left to be uploaded, in the order of the starts."""
        own = re.compile(rf"wandb/offline-run-[^/]+-{re.escape(self._run.id)}/.*")
        return [info.key for info in self._store.list("wandb/offline-run-") if own.fullmatch(info.key)]

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


def _is_history(key: str) -> bool:
    return key.endswith(".wandb")


def _shown(pictures: Sequence[tuple[str, Picture]]) -> dict[str, Any]:
    import wandb

    return {"validation": [wandb.Image(pixels, caption=caption) for caption, pixels in pictures]} if pictures else {}


def _tabulated(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    import wandb

    curves = {
        f"{title}/{row[0]}/{column}": value
        for row in rows
        for column, value in zip(columns[2:], row[2:], strict=True)
        if isinstance(value, int | float)
    }
    return {f"by {title}": wandb.Table(columns=list(columns), data=[list(row) for row in rows]), **curves}
