"""``fit``: from an experiment to a trained run, on whatever cluster Ray is connected to."""

import contextlib
import json
import logging
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from echotrain.config import to_dict
from echotrain.errors import EchotrainError
from echotrain.log import console as default_console
from echotrain.orchestration.runtime.capacity import capacity
from echotrain.orchestration.runtime.checks import (
    check_groups,
    check_resumable,
    check_writable,
    choose_device,
    warn_of_unshared_folder,
    with_absolute_paths,
    with_pinned_catalog,
    worker_shape,
)
from echotrain.orchestration.runtime.cluster import connect, has_dashboard
from echotrain.orchestration.runtime.group import Workers
from echotrain.orchestration.runtime.maker_room import with_makers
from echotrain.orchestration.runtime.prometheus import count_failed_run
from echotrain.orchestration.runtime.signals import catch_signals
from echotrain.orchestration.runtime.streaming import settle_ray_data
from echotrain.storage.guarded import GuardedStore
from echotrain.storage.lease import held
from echotrain.storage.open import open_store
from echotrain.storage.store import Store
from echotrain.training.checkpoint import CheckpointMeta, find_checkpoint
from echotrain.training.console import ConsoleProgress
from echotrain.training.experiment import Experiment, science
from echotrain.training.sinks import Record
from echotrain.worker_groups import published_groups

__all__ = ["FitResult", "fit"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a run came to.

    Attributes:
        run_uri: Folder of the run.
        is_finished: Whether the last epoch is done; else the same command goes on from where it stopped.
        epoch, global_step: Where it stands.
        scores: The latest validation metrics.
        best_score: The best so far of the task's score.
    """

    run_uri: str
    is_finished: bool
    epoch: int
    global_step: int
    scores: dict[str, float]
    best_score: float | None


def fit(
    experiment: Experiment,
    *,
    console: Console | None = None,
    on_record: Callable[[Record], None] | None = None,
    workers: Workers | None = None,
    asked: threading.Event | None = None,
    under: str = "",
) -> FitResult:
    """Train an experiment, or go on with it where its folder holds a checkpoint; a finished one returns at once.

    Everything that can be known to fail is checked before a worker starts. A worker that dies is replaced and the run goes on
    from its latest checkpoint. SIGTERM or Ctrl-C saves a checkpoint first.

    Args:
        experiment: What to train, and where.
        console: Where progress is shown; stderr by default.
        on_record: Also given every record of the run, soon after it was logged.
        workers: Keeps the training workers for the next run of the same shape; by default they leave when this one is done.
        asked: Ends the run like SIGTERM once it is set, for callers outside the main thread, which signals do not reach.
        under: Folder of the sweep whose lease the caller works under; the run is taken over from an earlier start of that sweep at once.

    Raises:
        ConfigError: The configuration contradicts itself.
        CatalogError: The catalog is missing, or selects nothing.
        StorageError: The run's folder cannot be written.
        CheckpointError: The folder holds another experiment's checkpoint, or a damaged one.
        ResourceError: The cluster has too few CPUs or GPUs, and cannot grow to them, or does not.
        LeaseError: Another process trains this run, or took it over.
        NotFiniteError: A loss is not finite.
        TrainingError: Workers died more than ``max_failures`` times.
    """
    given = experiment
    store = open_store(with_absolute_paths(experiment).run_uri)
    check_writable(store)
    latest = find_checkpoint(store)
    experiment = _checked(given, store, latest)
    if latest is not None and latest.position["epoch"] >= experiment.epochs:
        return _finished(experiment, latest)
    connect()
    if published_groups() is not None:
        settle_ray_data()
    warn_of_unshared_folder(experiment)
    device = choose_device(experiment)
    progress = ConsoleProgress(console or default_console)

    def show(record: Record) -> None:
        progress.log(record)
        if on_record is not None:
            on_record(record)

    with contextlib.ExitStack() as stack:
        stack.callback(progress.close)
        stop = stack.enter_context(catch_signals(asked))
        lease = stack.enter_context(held(store, silence_s=experiment.lease_s, under=under, gives_up=stop.is_set, on_lost=stop.set))
        if (now := find_checkpoint(store)) != latest:  # Another has trained it until we had it.
            experiment = _checked(given, store, now)
            if now is not None and now.position["epoch"] >= experiment.epochs:
                return _finished(experiment, now)
        run_id = _describe_run(GuardedStore(store, lease), experiment)
        group = workers if workers is not None else stack.enter_context(Workers())
        try:
            shape = worker_shape(experiment, is_cuda=device == "cuda")
            placed = with_makers(experiment, capacity(), shape)
            outcome = group.run(placed, device=device, run_id=run_id, lease=lease.token, asked=stop, show=show)
            if lease.lost.is_set():
                lease.check()
        except EchotrainError as error:
            if has_dashboard():
                count_failed_run(experiment.name, error)
            raise
    if outcome is None:
        return _not_begun(experiment, store)
    return FitResult(
        run_uri=experiment.run_uri,
        is_finished=outcome["epoch"] >= experiment.epochs,
        epoch=outcome["epoch"],
        global_step=outcome["global_step"],
        scores=outcome["scores"],
        best_score=outcome["best_score"],
    )


def _checked(experiment: Experiment, store: Store, latest: CheckpointMeta | None) -> Experiment:
    """Return the experiment as it goes on from a checkpoint: with absolute paths, and one version of the catalog."""
    experiment = with_pinned_catalog(with_absolute_paths(experiment), latest)
    check_groups(experiment)
    if latest is not None:
        check_resumable(latest, experiment, store)
    return experiment


def _finished(experiment: Experiment, latest: CheckpointMeta) -> FitResult:
    logger.info("%s is finished; raise epochs to go on", experiment.run_uri)
    return _of_checkpoint(experiment, latest, is_finished=True)


def _not_begun(experiment: Experiment, store: Store) -> FitResult:
    """Return what there is of a run that was stopped while it waited for nodes, at first or again."""
    latest = find_checkpoint(store)
    if latest is not None:
        return _of_checkpoint(experiment, latest, is_finished=False)
    return FitResult(run_uri=experiment.run_uri, is_finished=False, epoch=0, global_step=0, scores={}, best_score=None)


def _of_checkpoint(experiment: Experiment, latest: CheckpointMeta, *, is_finished: bool) -> FitResult:
    return FitResult(
        run_uri=experiment.run_uri,
        is_finished=is_finished,
        epoch=latest.position["epoch"],
        global_step=latest.position["global_step"],
        scores=latest.scores,
        best_score=latest.position["best_score"],
    )


def _describe_run(store: Store, experiment: Experiment) -> str:
    """Write ``config.json`` and return the run's id, which the first start drew, or W&B's agent where that started it."""
    run_id = uuid.uuid4().hex[:12]
    if "WANDB_SWEEP_ID" in os.environ:
        run_id = os.environ.get("WANDB_RUN_ID", run_id)
    if store.size("config.json") is not None:
        run_id = json.loads(store.read("config.json")).get("run_id", run_id)
    described = {"run_id": run_id, "experiment": to_dict(experiment), "science": science(experiment)}
    store.write("config.json", json.dumps(described, indent=1).encode())
    return run_id
