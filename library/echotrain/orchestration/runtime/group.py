"""Training workers that stay when a run is done, ready for the next one of the same shape.

Ray Train needs some ten seconds to start a group of workers; the runs of a sweep need them once. Ray keeps the workers alive; it keeps
nothing else. Checkpoints, metrics and what a restart resumes are the run's own folder, in any store. Ray's own storage is a
temporary folder of the driver's node: Ray Train writes to it from its controller alone, which it pins to that node, as long as no worker
reports a checkpoint to Ray, and none does. So neither a shared file system nor an object store that takes directory markers is needed.
"""

import contextlib
import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, NamedTuple, Self

from ray.train import FailureConfig, Result, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from echotrain.errors import EchotrainError, StorageError, TrainingError
from echotrain.orchestration.runtime.channel import GroupChannel, Order, RunChannel
from echotrain.orchestration.runtime.cluster import DriverEnvironment
from echotrain.orchestration.runtime.signals import CatchSigterm
from echotrain.orchestration.runtime.trainer import ERRORS_ONLY, QuietTrainer
from echotrain.orchestration.runtime.waiting import GaveUpWaitingError, WaitForNodes
from echotrain.orchestration.runtime.workers import WorkerArguments, serve
from echotrain.training.experiment import Experiment
from echotrain.training.sinks import Record
from echotrain.worker_groups import published_groups

__all__ = ["Workers"]

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_FAREWELL_S = 30.0


class Workers:
    """Training workers, started when a run first needs them and kept until ``close`` or a run of another shape.

    A group in which a worker has died, or whose run has failed, is not used for another run.
    """

    def __init__(self) -> None:
        self._group: _Group | None = None

    def run(
        self, experiment: Experiment, *, device: str, run_id: str, lease: str, asked: threading.Event, show: Callable[[Record], None]
    ) -> dict[str, Any] | None:
        """Train an experiment; return rank 0's outcome as plain values, or None where it was stopped while it waited for nodes.

        Args:
            experiment: Resolved; every local path in it is absolute.
            device: ``cpu`` or ``cuda``.
            run_id: Stays the same over restarts.
            lease: Token of the lease of the run's folder.
            asked: Once it is set, the workers save a checkpoint and stop.
            show: Given every record of the run, soon after it was logged, and one of kind ``waiting`` when there is news of such a wait.

        Raises:
            ResourceError: No node comes for the workers.
            EchotrainError: As a worker raised it; ``TrainingError`` where workers died more than ``max_failures`` times.
        """
        shape = _GroupKind.of(experiment, device)
        if self._group is not None and self._group.shape != shape:
            self.close()
        if self._group is None:
            self._group = _Group(shape)
        is_whole = False
        try:
            outcome = self._group.run(experiment, run_id, lease, asked, show)
            is_whole = self._group.is_whole
        except TrainingFailedError as error:
            if isinstance(error, ControllerError) and isinstance(error.controller_failure, GaveUpWaitingError):
                return None
            raise _explain(error) from error
        finally:
            if not is_whole:
                self.close()
        return outcome

    def close(self, *, wait: bool = True) -> None:
        """Send the workers home."""
        group, self._group = self._group, None
        if group is not None:
            group.close(wait=wait)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        # Whoever interrupts does not want to wait.
        self.close(wait=kind is None or issubclass(kind, Exception))


class _GroupKind(NamedTuple):
    """What must be the same for two runs to share workers."""

    workers: int
    device: str
    cpus_per_worker: float
    max_failures: int

    @classmethod
    def of(cls, experiment: Experiment, device: str) -> Self:
        return cls(experiment.workers, device, experiment.cpus_per_worker, experiment.max_failures)


class _Group:
    """One start of Ray Train, in a thread of its own."""

    def __init__(self, shape: _GroupKind) -> None:
        self.shape = shape
        group_id = uuid.uuid4().hex[:12]
        self._channel = GroupChannel(group_id)
        self._scratch = tempfile.TemporaryDirectory(prefix="echotrain-ray-", ignore_cleanup_errors=True)
        self._number = 0
        arguments = WorkerArguments(group_id=group_id, environment=DriverEnvironment.here())
        self._running = _started(_trainer(arguments, shape, self._scratch.name))
        self._waited_for = ""

    @property
    def is_whole(self) -> bool:
        """Whether no worker has died so far."""
        return self._channel.num_starts() <= 1 and not self._running.done()

    def run(
        self, experiment: Experiment, run_id: str, lease: str, asked: threading.Event, show: Callable[[Record], None]
    ) -> dict[str, Any]:
        self._number += 1
        channel = RunChannel(run_id)
        channel.clear()
        self._channel.give_up(False)
        self._channel.send(Order(number=self._number, experiment=experiment, run_id=run_id, lease=lease))
        seen = 0
        try:
            while True:
                if asked.is_set():
                    channel.request_stop()
                self._tell_waiting(asked, show)
                has_ended = self._running.done()
                number, outcome = self._channel.answered()
                for position, record in channel.records(after=seen):
                    show(record)
                    seen = position
                if number == self._number:
                    return outcome
                if has_ended:
                    self._running.result()
                    raise TrainingError("the training workers", "left without an answer", "Give the command again: it resumes.")
                time.sleep(_POLL_S)
        finally:
            channel.clear()

    def _tell_waiting(self, asked: threading.Event, show: Callable[[Record], None]) -> None:
        text = self._channel.waiting()
        if text and asked.is_set():
            self._channel.give_up(True)
        if text and text != self._waited_for:
            show({"kind": "waiting", "text": text})
        self._waited_for = text

    def close(self, *, wait: bool) -> None:
        if not self._running.done():
            self._channel.send(Order(number=self._number + 1))
            if not wait:
                return
            with contextlib.suppress(TrainingFailedError, FutureTimeoutError):
                self._running.result(timeout=_FAREWELL_S)
        self._channel.clear()
        self._scratch.cleanup()


class _StopAtFatal(UserCallback):  # type: ignore[misc]
    """Ends the run at once for an error that starting the workers again would only repeat."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if isinstance(error, EchotrainError) and type(error) is not StorageError:
                raise error


def _trainer(arguments: WorkerArguments, shape: _GroupKind, scratch: str) -> QuietTrainer:
    is_cuda = shape.device == "cuda"
    resources = {"CPU": shape.cpus_per_worker, **({"GPU": 1.0} if is_cuda else {})}
    published = published_groups()
    waits = [] if published is None else [WaitForNodes(arguments.group_id, published)]
    return QuietTrainer(
        _serve_with,
        train_loop_config={"arguments": arguments},
        torch_config=TorchConfig(backend="nccl" if is_cuda else "gloo"),
        scaling_config=ScalingConfig(num_workers=shape.workers, use_gpu=is_cuda, resources_per_worker=resources),
        run_config=RunConfig(
            storage_path=scratch,
            failure_config=FailureConfig(max_failures=shape.max_failures),
            callbacks=[_StopAtFatal(), CatchSigterm(), *waits],
            logging_config=ERRORS_ONLY,
        ),
    )


def _serve_with(config: dict[str, WorkerArguments]) -> None:
    serve(config["arguments"])


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
