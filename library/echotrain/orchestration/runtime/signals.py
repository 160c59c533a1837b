"""Requests from outside, as a worker sees them (SIGTERM, a node about to go away, a driver that wants to stop) and as a driver does."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import ray.train
from ray.exceptions import RayError

from echotrain.errors import TrainingError
from echotrain.orchestration.runtime.channel import RunChannel
from echotrain.training.outcome import Signal

__all__ = ["WorkerSignals", "catch_signals", "catch_sigterm", "watch_preemption"]

logger = logging.getLogger(__name__)

_terminated = threading.Event()
_preempted = threading.Event()
_EXIT_CODE = 128 + signal.SIGTERM
# As often as Ray looks.
_PREEMPTION_POLL_S = 5.0


def catch_sigterm() -> None:
    """Install a handler of SIGTERM in a worker; in its main thread, before training starts in another.

    The handler takes effect when the main thread next runs Python, which is at Ray's next health check.
    """
    _terminated.clear()
    signal.signal(signal.SIGTERM, _on_sigterm)


def watch_preemption(*, period_s: float = _PREEMPTION_POLL_S) -> None:
    """Have it noted when Ray hears that a node of the group is about to go; on every worker, once for the life of its process.

    From a thread, which waits for those of the other ranks in the place of training: Ray's question is a barrier.
    """
    if os.environ.get("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER") == "0":
        return

    def watch() -> None:
        try:
            while ray.train.get_preemption_info() is None:
                time.sleep(period_s)
        except RayError:  # The group is ending.
            return
        _preempted.set()

    threading.Thread(target=watch, name="preemption", daemon=True).start()


class WorkerSignals:
    """Answers the trainer's question once a step; rank 0 also listens to the driver.

    Args:
        channel: The line to the driver on rank 0, None elsewhere.
        period_s: Between looks at the line.
    """

    def __init__(self, channel: RunChannel | None, *, period_s: float = 0.25) -> None:
        self._stop = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        if channel is not None:
            self._thread = threading.Thread(target=self._listen, args=(channel, period_s), name="run-channel", daemon=True)
            self._thread.start()

    def __call__(self) -> Signal:
        """Return the strongest request."""
        if self._stop.is_set():
            return Signal.STOP
        if _terminated.is_set():
            return Signal.LEAVE
        return Signal.SAVE if _preempted.is_set() else Signal.NONE

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _listen(self, channel: RunChannel, period_s: float) -> None:
        while not self._closed.wait(period_s):
            try:
                is_asked = channel.is_stop_requested()
            except TrainingError:  # Nobody hears of the run any more; the next question ends it.
                is_asked = True
            if is_asked:
                self._stop.set()
                return


@contextlib.contextmanager
def catch_signals(asked: threading.Event | None) -> Iterator[threading.Event]:
    """Let a driver end in order: yield the given event, or one that the first SIGTERM or SIGINT sets; a second one interrupts at once.

    The handler does no more than that: it may have interrupted a call to Ray, whose locks do not let the same thread in twice.
    """
    if asked is not None:
        yield asked
        return
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


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    if _terminated.is_set():
        os._exit(_EXIT_CODE)  # Asked twice: whoever sends it does not want to wait.
    _terminated.set()
