"""``fit``: from an experiment to a trained run, on whatever cluster Ray is connected to.

Ray keeps the workers alive; it keeps nothing else. Checkpoints, metrics and what a restart resumes are the run's own folder, in
any store. Ray's own storage is a temporary folder of the driver's node: Ray Train writes to it from its controller alone,
which it pins to that node, as long as no worker reports a checkpoint to Ray, and none does. So neither a shared file system nor
an object store that takes directory markers is needed.
"""

import contextlib
import json
import logging
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ray.train import FailureConfig, Result, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError
from rich.console import Console

from echotrain.config import to_dict
from echotrain.errors import EchotrainError, StorageError, TrainingError
from echotrain.log import console as default_console
from echotrain.orchestration.channel import RunChannel
from echotrain.orchestration.checks import (
    check_resumable,
    check_writable,
    choose_device,
    warn_of_unshared_folder,
    with_absolute_paths,
    with_pinned_catalog,
)
from echotrain.orchestration.cluster import DriverEnvironment, connect
from echotrain.orchestration.signals import CatchSigterm
from echotrain.orchestration.trainer import ERRORS_ONLY, QuietTrainer
from echotrain.orchestration.workers import WorkerArguments, run_worker
from echotrain.storage.open import open_store
from echotrain.storage.store import Store
from echotrain.training.checkpoint import CheckpointMeta, find_checkpoint
from echotrain.training.console import ConsoleProgress
from echotrain.training.experiment import Experiment, science
from echotrain.training.sinks import Record

__all__ = ["FitResult", "fit"]

logger = logging.getLogger(__name__)

_POLL_S = 0.1


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


def fit(experiment: Experiment, *, console: Console | None = None, on_record: Callable[[Record], None] | None = None) -> FitResult:
    """Train an experiment, or go on with it where its folder holds a checkpoint; a finished one returns at once.

    Everything that can be known to fail is checked before a worker starts. A worker that dies is replaced and the run goes on
    from its latest checkpoint. SIGTERM or Ctrl-C saves a checkpoint first.

    Args:
        experiment: What to train, and where.
        console: Where progress is shown; stderr by default.
        on_record: Also given every record of the run, soon after it was logged.

    Raises:
        ConfigError: The configuration contradicts itself.
        CatalogError: The catalog is missing, or selects nothing.
        StorageError: The run's folder cannot be written.
        CheckpointError: The folder holds another experiment's checkpoint, or a damaged one.
        ResourceError: The cluster has too few CPUs or GPUs.
        TrainingError: A loss is not finite, or workers died more than ``max_failures`` times.
    """
    experiment = with_absolute_paths(experiment)
    store = open_store(experiment.run_uri)
    check_writable(store)
    latest = find_checkpoint(store)
    experiment = with_pinned_catalog(experiment, latest)
    if latest is not None:
        check_resumable(latest, experiment, store)
        if latest.position["epoch"] >= experiment.epochs:
            return _finished(experiment, latest)
    connect()
    warn_of_unshared_folder(experiment)
    device = choose_device(experiment)
    run_id = _describe_run(store, experiment)
    arguments = WorkerArguments(experiment=experiment, run_id=run_id, environment=DriverEnvironment.here())
    channel = RunChannel(run_id)
    channel.clear()
    try:
        with tempfile.TemporaryDirectory(prefix="echotrain-ray-") as scratch:
            trainer = _trainer(arguments, device, scratch)
            outcome = _run(trainer, channel, ConsoleProgress(console or default_console), on_record)
    finally:
        channel.clear()
    return FitResult(
        run_uri=experiment.run_uri,
        is_finished=outcome["epoch"] >= experiment.epochs,
        epoch=outcome["epoch"],
        global_step=outcome["global_step"],
        scores=outcome["scores"],
        best_score=outcome["best_score"],
    )


class _StopAtFatal(UserCallback):  # type: ignore[misc]
    """Ends the run at once for an error that starting the workers again would only repeat."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if isinstance(error, EchotrainError) and type(error) is not StorageError:
                raise error


def _trainer(arguments: WorkerArguments, device: str, scratch: str) -> QuietTrainer:
    experiment = arguments.experiment
    resources = {"CPU": experiment.cpus_per_worker, **({"GPU": 1.0} if device == "cuda" else {})}
    return QuietTrainer(
        _run_worker_with,
        train_loop_config={"arguments": arguments},
        torch_config=TorchConfig(backend="nccl" if device == "cuda" else "gloo"),
        scaling_config=ScalingConfig(num_workers=experiment.workers, use_gpu=device == "cuda", resources_per_worker=resources),
        run_config=RunConfig(
            storage_path=scratch,
            failure_config=FailureConfig(max_failures=experiment.max_failures),
            callbacks=[_StopAtFatal(), CatchSigterm()],
            logging_config=ERRORS_ONLY,
        ),
    )


def _run_worker_with(config: dict[str, WorkerArguments]) -> dict[str, Any]:
    return run_worker(config["arguments"])


def _run(
    trainer: QuietTrainer, channel: RunChannel, progress: ConsoleProgress, on_record: Callable[[Record], None] | None
) -> dict[str, Any]:
    """Run the trainer in a thread, so that this one shows progress and takes signals; return rank 0's outcome."""
    seen = 0
    try:
        with _signals() as asked:
            running = _started(trainer)
            while True:
                if asked.is_set():
                    channel.request_stop()
                is_done = running.done()
                for number, record in channel.records(after=seen):
                    progress.log(record)
                    if on_record is not None:
                        on_record(record)
                    seen = number
                if is_done:
                    break
                time.sleep(_POLL_S)
            outcome: dict[str, Any] = running.result().return_value
            return outcome
    except TrainingFailedError as error:
        raise _explain(error) from error
    finally:
        progress.close()


def _started(trainer: QuietTrainer) -> Future[Result]:
    """Start the trainer in a thread that does not keep the process alive: a second Ctrl-C ends it at once."""
    running: Future[Result] = Future()

    def run() -> None:
        try:
            running.set_result(trainer.fit())
        except BaseException as error:
            running.set_exception(error)

    threading.Thread(target=run, name="fit", daemon=True).start()
    return running


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """Yield an event that the first SIGTERM or SIGINT sets; a second one interrupts at once.

    The handler does no more than that: it may have interrupted a call to Ray, whose locks do not let the same thread in twice.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        logger.warning("%s: saving a checkpoint, then stopping; once more to stop at once", signal.Signals(number).name)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _explain(error: TrainingFailedError) -> EchotrainError:
    """Return the error of ours behind Ray's, or one that says what Ray saw."""
    failures: list[Exception] = []
    if isinstance(error, ControllerError):
        failures = [error.controller_failure]
    elif isinstance(error, WorkerGroupError):
        failures = list(error.worker_failures.values())
    for failure in failures:
        if isinstance(failure, EchotrainError):
            return failure
    seen = "; ".join(sorted({f"{type(failure).__name__}: {(str(failure).strip().splitlines() or [''])[-1]}" for failure in failures}))
    remedy = "See the workers' log above; the same command resumes."
    return TrainingError("the training workers", f"failed more often than max_failures allows ({seen})", remedy)


def _finished(experiment: Experiment, latest: CheckpointMeta) -> FitResult:
    logger.info("%s is finished; raise epochs to go on", experiment.run_uri)
    return FitResult(
        run_uri=experiment.run_uri,
        is_finished=True,
        epoch=latest.position["epoch"],
        global_step=latest.position["global_step"],
        scores=latest.scores,
        best_score=latest.position["best_score"],
    )


def _describe_run(store: Store, experiment: Experiment) -> str:
    """Write ``config.json`` and return the run's id, which the first start drew."""
    run_id = uuid.uuid4().hex[:12]
    if store.size("config.json") is not None:
        run_id = json.loads(store.read("config.json")).get("run_id", run_id)
    described = {"run_id": run_id, "experiment": to_dict(experiment), "science": science(experiment)}
    store.write("config.json", json.dumps(described, indent=1).encode())
    return run_id
