"""The driver of one trial at a time, as the actor that Ray Tune hands from trial to trial."""

import queue
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from ray import tune
from rich.console import Console

from echotrain.config import from_dict
from echotrain.errors import EchotrainError
from echotrain.evaluation.history import HISTORY, read_history
from echotrain.log import setup_logging
from echotrain.orchestration.runtime.channel import RunChannel
from echotrain.orchestration.runtime.cluster import DriverEnvironment, connect
from echotrain.orchestration.runtime.driver import FitResult, fit
from echotrain.orchestration.runtime.group import Workers
from echotrain.orchestration.runtime.notes import Notes
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import find_checkpoint
from echotrain.training.experiment import Experiment
from echotrain.training.sinks import Record

__all__ = ["TrialDriver"]

_POLL_S = 0.25
_NEWS_EVERY_S = 1.0


class TrialDriver(tune.Trainable):  # type: ignore[misc]
    """Trains the experiment it is configured with; a step of it lasts until there is news of the run.

    The training workers stay for the next trial. What Tune saves of a trial is not used: a run is resumed by its own folder.
    """

    def setup(self, config: dict[str, Any], *, environment: DriverEnvironment, notes: Notes, sweep_id: str) -> None:
        """Prepare this process and start the first trial."""
        # Tune ends a driver that takes its time to send the workers home. Ray's own handler leaves with 1, which is reported as a crash.
        signal.signal(signal.SIGTERM, _leave)
        environment.apply()
        setup_logging("ERROR")
        connect()
        self._workers = Workers(notes)
        self._sweep = RunChannel(notes, sweep_id)
        self._run = _Run(config, self._workers)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """End the trial before, where Tune ended it early, and start the next one."""
        self._run.end()
        self._run = _Run(new_config, self._workers)
        return True

    def step(self) -> dict[str, Any]:
        """Return the next news."""
        while (news := self._run.news(timeout_s=_POLL_S)) is None:
            if self._sweep.is_stop_requested():
                self._run.ask_to_stop()
        return news

    def cleanup(self) -> None:
        """End what runs, and send the workers home."""
        self._run.end()
        self._workers.close()


class _Run:
    """One run of ``fit``, in a thread, and what is heard of it."""

    def __init__(self, config: dict[str, Any], workers: Workers) -> None:
        self._experiment = from_dict(Experiment, config["experiment"])
        self._reported = ("loss", *self._experiment.task.build().metrics)
        self._sweep_uri: str = config["sweep"]
        self._workers = workers
        self._asked = threading.Event()
        self._heard: queue.SimpleQueue[Record | FitResult | Exception] = queue.SimpleQueue()
        self._began_training = 0.0
        self._told_at = 0.0
        self._thread = threading.Thread(target=self._train, name="trial", daemon=True)
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Have it saved and stopped."""
        self._asked.set()

    def end(self) -> None:
        """Stop it, and wait until it has."""
        self._asked.set()
        self._thread.join()

    def news(self, *, timeout_s: float) -> dict[str, Any] | None:
        """Return what Tune is told next, or None where there is nothing new.

        Raises:
            Exception: The run failed in a way that this platform does not know, so that it may be tried again.
        """
        try:
            heard = self._heard.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(heard, FitResult):
            state = "finished" if heard.is_finished else "interrupted"
            return {"state": state, "training_s": self._training_s(), "done": True}
        if isinstance(heard, EchotrainError):
            return {"state": "failed", "reason": str(heard), "training_s": self._training_s(), "done": True}
        if isinstance(heard, Exception):
            raise heard
        if heard["kind"] == "start":
            self._began_training = time.monotonic()
        return self._of_record(heard)

    def _of_record(self, record: Record) -> dict[str, Any] | None:
        kind = record["kind"]
        if kind == "epoch":
            scores = {name: record[name] for name in self._reported if record.get(name) is not None}
            done = {"epochs_done": record["epoch"] + 1, "scores": scores}
            return {"state": "running", **done, "training_s": self._training_s(), "done": False}
        if kind == "waiting":
            return {"state": "running", "waiting": record["text"], "done": False}
        if kind == "start" or time.monotonic() - self._told_at < _NEWS_EVERY_S:
            return None
        self._told_at = time.monotonic()
        share = (record["epoch"] + record["step"] / record["steps_per_epoch"]) / self._experiment.epochs
        return {"state": "running", "share": share, "loss": record["loss"], "done": False}

    def _train(self) -> None:
        try:
            for record in _past_epochs(self._experiment):
                self._heard.put(record)
            result = fit(
                self._experiment,
                console=Console(quiet=True),
                on_record=self._heard.put,
                workers=self._workers,
                asked=self._asked,
                under=self._sweep_uri,
            )
        except Exception as error:
            self._heard.put(error)
        else:
            self._heard.put(result)

    def _training_s(self) -> float:
        return time.monotonic() - self._began_training if self._began_training else 0.0


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def _past_epochs(experiment: Experiment) -> list[Record]:
    """Return the epochs that a run has behind it, by its latest checkpoint."""
    store = open_store(experiment.run_uri)
    latest = find_checkpoint(store)
    if latest is None or store.size(HISTORY) is None:
        return []
    return [record for record in read_history(store, name="").epochs if record["epoch"] < latest.position["epoch"]]
