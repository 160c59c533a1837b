"""Training workers that stay when a run is done, ready for the next one of the same shape.

Ray Train needs some ten seconds to start a group of workers; the runs of a sweep need them once. Ray keeps the workers alive; it keeps
nothing else. Checkpoints, metrics and what a restart resumes are the run's own folder, in any store. Ray's own storage is a
temporary folder of the driver's node: Ray Train writes to it from its controller alone, which it pins to that node, as long as no worker
reports a checkpoint to Ray, and none does. So neither a shared file system nor an object store that takes directory markers is needed.
"""

import collections
import contextlib
import logging
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, NamedTuple, Self

from ray.exceptions import RayTaskError
from ray.train import ControllerError, FailureConfig, Result, RunConfig, ScalingConfig, TrainingFailedError, UserCallback, WorkerGroupError
from ray.train.torch import TorchTrainer

from echotrain.errors import EchotrainError, ResourceError, StorageError, TrainingError
from echotrain.orchestration.runtime.capacity import Shape
from echotrain.orchestration.runtime.channel import GroupChannel, Order, RunChannel
from echotrain.orchestration.runtime.cluster import DriverEnvironment
from echotrain.orchestration.runtime.notes import Notes
from echotrain.orchestration.runtime.trainer import ERRORS_ONLY, TorchWithSigterm, quiet_trainer
from echotrain.orchestration.runtime.waiting import GaveUpWaitingError, await_nodes
from echotrain.orchestration.runtime.workers import WorkerArguments, serve
from echotrain.training.experiment import Experiment
from echotrain.training.sinks import Record
from echotrain.worker_groups import PublishedGroups, published_groups

__all__ = ["Workers", "started_again"]

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_FAREWELL_S = 30.0
# Ray gives up a start for whose workers it has found no room for so long; it is then waited for, which Ray would do in silence.
_ROOM_S = "10"
# Starts one after the other that came to nothing, though there was room when they began.
_MOST_IDLE_STARTS = 3


class Workers:
    """Training workers, started when a run first needs them and kept until ``close`` or a run of another shape.

    A group in which a worker has died, or whose run has failed, is not used for another run.

    Args:
        notes: Of the job, where it has some; else every group has its own.
    """

    def __init__(self, notes: Notes | None = None) -> None:
        self._notes = notes
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
            self._group = _Group(shape, self._notes or Notes())
        is_whole = False
        try:
            outcome = self._group.run(experiment, run_id, lease, asked, show)
            is_whole = self._group.is_whole
        except GaveUpWaitingError:
            return None
        except TrainingFailedError as error:
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

    def resources(self) -> dict[str, float]:
        """Return what each worker reserves, as Ray writes it."""
        return {"CPU": self.cpus_per_worker, **({"GPU": 1.0} if self.device == "cuda" else {})}


class _Group:
    """One start of Ray Train, in a thread of its own; another one where the room for its workers was lost, once there is room again."""

    def __init__(self, shape: _GroupKind, notes: Notes) -> None:
        self.shape = shape
        self._notes = notes
        self._arguments = WorkerArguments(notes=notes, group_id=uuid.uuid4().hex[:12], environment=DriverEnvironment.here())
        self._channel = GroupChannel(notes, self._arguments.group_id)
        self._scratch = tempfile.TemporaryDirectory(prefix="echotrain-ray-", ignore_cleanup_errors=True)
        self._number = 0
        self._waits_for = ""
        # Nodes may have come by the time that somebody looks: what was said is kept until it is shown.
        self._unsaid: collections.deque[str] = collections.deque()
        self._given_up = threading.Event()
        self._running = _started(self._fit)

    @property
    def is_whole(self) -> bool:
        """Whether no worker has died so far."""
        return self._channel.num_starts() <= 1 and not self._running.done()

    def run(
        self, experiment: Experiment, run_id: str, lease: str, asked: threading.Event, show: Callable[[Record], None]
    ) -> dict[str, Any]:
        self._number += 1
        channel = RunChannel(self._notes, run_id)
        channel.clear()
        self._given_up.clear()
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
        if self._waits_for and asked.is_set():
            self._given_up.set()
        while self._unsaid:
            show({"kind": "waiting", "text": self._unsaid.popleft()})

    def _fit(self) -> Result:
        published = published_groups()
        if published is None:
            return self._trainer(self.shape.max_failures).fit()
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", _ROOM_S)
        return started_again(
            lambda left: self._trainer(left, controller_failure_limit=0).fit(),
            lambda: self._await_room(published),
            self._channel.num_starts,
            self.shape.max_failures,
        )

    def _await_room(self, published: PublishedGroups) -> None:
        resources = self.shape.resources()
        shape = Shape(cpus=resources["CPU"], gpus=resources.get("GPU", 0))

        def tell(text: str) -> None:
            self._waits_for = text
            if text:
                self._unsaid.append(text)

        remedy = "lower workers, or set device=cpu" if shape.gpus else "lower workers"
        try:
            await_nodes(shape, self.shape.workers, published, tell=tell, is_given_up=self._given_up.is_set, remedy=remedy)
        finally:
            tell("")

    def _trainer(self, max_failures: int, **limits: int) -> TorchTrainer:
        is_cuda = self.shape.device == "cuda"
        scaling = ScalingConfig(num_workers=self.shape.workers, use_gpu=is_cuda, resources_per_worker=self.shape.resources())
        return quiet_trainer(
            _serve_with,
            train_loop_config={"arguments": self._arguments},
            torch_config=TorchWithSigterm(backend="nccl" if is_cuda else "gloo"),
            scaling_config=scaling,
            run_config=RunConfig(
                storage_path=self._scratch.name,
                failure_config=FailureConfig(max_failures=max_failures, **limits),
                callbacks=[_AfterFailure()],
                logging_config=ERRORS_ONLY,
            ),
        )

    def close(self, *, wait: bool) -> None:
        if not self._running.done():
            self._given_up.set()
            with contextlib.suppress(TrainingError):  # Workers leave by themselves where there are no orders to be had.
                self._channel.send(Order(number=self._number + 1))
            if not wait:
                return
            with contextlib.suppress(TrainingFailedError, GaveUpWaitingError, FutureTimeoutError):
                self._running.result(timeout=_FAREWELL_S)
        self._channel.clear()
        self._scratch.cleanup()


def started_again(fit: Callable[[int], Result], await_room: Callable[[], None], num_starts: Callable[[], int], max_failures: int) -> Result:
    """Return what the workers come to, where a start of them, or a restart, may find no room and end for that.

    Args:
        fit: Given how many failures are left; raises Ray's ``ControllerError`` for want of room.
        await_room: Returns when there is some.
        num_starts: How often the workers have started by now; each start but one that goes on has ended in a failure.
        max_failures: In all; -1 for any number.
    """
    idle = 0
    while True:
        await_room()
        starts = num_starts()
        try:
            return fit(max_failures if max_failures < 0 else max(0, max_failures - starts))
        except ControllerError as error:
            idle = idle + 1 if num_starts() == starts else 0
            # What a worker raised as it was set up, as where torch has no NCCL, it would raise again.
            if isinstance(error.controller_failure, EchotrainError | RayTaskError):
                raise
            if idle > _MOST_IDLE_STARTS:
                remedy = "Give the command again when the cluster is less busy, or lower workers."
                raise ResourceError(
                    "room for the training workers", f"was there {idle} times, and gone before they started", remedy
                ) from error


class _AfterFailure(UserCallback):  # type: ignore[misc]
    """Ends the run at once for an error that starting the workers again would only repeat; Ray calls it in its controller's process."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        # What becomes of the run is told by the driver; Ray prints a stack trace where it finds no room to start again.
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)
        for error in worker_exceptions.values():
            if isinstance(error, EchotrainError) and type(error) is not StorageError:
                # In this wrapping it ends the run, and Ray logs no stack trace of it.
                raise ControllerError(error)


def _serve_with(config: dict[str, WorkerArguments]) -> None:
    serve(config["arguments"])


def _started(fit: Callable[[], Result]) -> Future[Result]:
    """Start it in a thread that does not keep the process alive: a second Ctrl-C ends it at once."""
    running: Future[Result] = Future()

    def run() -> None:
        try:
            running.set_result(fit())
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
