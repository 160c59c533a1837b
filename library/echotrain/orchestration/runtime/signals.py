"""Requests from outside, as a worker sees them (SIGTERM, a node about to go away, a driver that wants to stop) and as a driver does."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from echotrain.orchestration.runtime.channel import RunChannel
from echotrain.orchestration.runtime.private_ray import WorkerCallback, get_train_context
from echotrain.training.outcome import Signal

__all__ = ["CatchSigterm", "WorkerSignals", "catch_signals"]

logger = logging.getLogger(__name__)

_terminated = threading.Event()
_EXIT_CODE = 128 + signal.SIGTERM


class CatchSigterm(WorkerCallback):  # type: ignore[misc]
    """Installs a SIGTERM handler in each worker before training starts.

    Ray runs this in the worker's main thread, the only one that may; the training function itself runs in another. The handler takes
    effect when the main thread next runs Python, which is at Ray's next health check.
    """

    def after_init_train_context(self) -> None:
        """Install the handler."""
        _terminated.clear()
        signal.signal(signal.SIGTERM, _on_sigterm)


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
        # The public ``ray.train.get_preemption_info`` is a barrier over workers; the trainer agrees on signals by itself.
        is_preempted = get_train_context().preemption_context.preemption_info is not None
        return Signal.SAVE if is_preempted else Signal.NONE

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _listen(self, channel: RunChannel, period_s: float) -> None:
        while not self._closed.wait(period_s):
            if channel.is_stop_requested():
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
