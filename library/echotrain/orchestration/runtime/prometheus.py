"""A run as Prometheus sees it: the latest numbers of each live run, on the metrics port of its rank 0's node.

Ray adds ``ray_`` to every name here. It forgets a gauge that was not set for some twenty seconds, and a run logs less often than that,
so a thread sets all gauges again and again while the run lives. A series that is there is thus a run that lives, however long its last
step was ago; a run that has ended is gone half a minute later, and its last scores may be; they are in ``metrics.jsonl`` and W&B.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from ray.util.metrics import Counter, Gauge

from echotrain.errors import EchotrainError
from echotrain.tasks.task import Panel, ScoreTable
from echotrain.training.sinks import Record

__all__ = ["COUNTERS", "GAUGES", "PrometheusSink", "count_failed_run", "gauges_of"]

logger = logging.getLogger(__name__)

GAUGES = {
    "echotrain_data_wait_ratio": "Share of a step's time in which a rank waited for data (0 to 1).",
    "echotrain_data_wait_seconds": "Mean wait of a rank for the data of one step.",
    "echotrain_epoch": "Epochs done, with the fraction of the present one.",
    "echotrain_epochs": "Epochs to do.",
    "echotrain_global_step": "Steps done in the whole run.",
    "echotrain_gradient_norm": "Global norm of the last logged step's gradient.",
    "echotrain_last_record_timestamp_seconds": "When the run last logged anything.",
    "echotrain_learning_rate": "Learning rate of the last logged step.",
    "echotrain_loss": "Mean training loss since the record before.",
    "echotrain_read_bytes_per_second": "Payload read, over all ranks.",
    "echotrain_samples_per_second": "Samples trained on, over all ranks.",
    "echotrain_score": "Latest validation, by metric.",
    "echotrain_start_timestamp_seconds": "When the workers started, or started again, on this run.",
    "echotrain_step_seconds": "Mean time of a step, its wait for data included.",
    "echotrain_task": "Whatever else the task logs, by metric: mean over samples since the record before.",
    "echotrain_validation_seconds": "Time of the latest validation.",
    "echotrain_workers": "Training processes.",
}
COUNTERS = {"echotrain_failed_runs": "Runs that ended with an error, by its kind; exported with the suffix _total."}

# What a record's keys are called here. A ``train`` record's further numbers are the task's, an ``epoch`` record's are scores.
_NAMES = {
    "data_wait_s": "echotrain_data_wait_seconds",
    "grad_norm": "echotrain_gradient_norm",
    "loss": "echotrain_loss",
    "lr": "echotrain_learning_rate",
    "bytes_per_s": "echotrain_read_bytes_per_second",
    "samples_per_s": "echotrain_samples_per_second",
    "step_s": "echotrain_step_seconds",
    "validation_s": "echotrain_validation_seconds",
    "epochs": "echotrain_epochs",
    "global_step": "echotrain_global_step",
    "workers": "echotrain_workers",
}
_OTHERWISE = {"train": "echotrain_task", "epoch": "echotrain_score"}
_UNUSED = {"epoch", "step", "steps_per_epoch", "loss_step"}
_LONGEST_RUN = 128

Key = tuple[str, str]


def gauges_of(record: Record, *, now: float) -> dict[Key, float]:
    """Return what a record sets: name of the gauge and its ``metric`` tag ("" where it has none), to value."""
    kind = record["kind"]
    values: dict[Key, float] = {("echotrain_last_record_timestamp_seconds", ""): now}
    if kind == "start":
        values["echotrain_start_timestamp_seconds", ""] = now
    for key, value in record.items():
        if key in _UNUSED or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if kind == "epoch" and key == "loss":
            continue  # The mean of the whole epoch; the gauge goes on from the last steps.
        if key in _NAMES:
            values[_NAMES[key], ""] = float(value)
        elif kind in _OTHERWISE:
            values[_OTHERWISE[kind], key] = float(value)
    done = 1.0 if kind == "epoch" else record["step"] / max(record["steps_per_epoch"], 1)
    values["echotrain_epoch", ""] = record["epoch"] + done
    if record.get("step_s"):
        values["echotrain_data_wait_ratio", ""] = record["data_wait_s"] / record["step_s"]
    return values


class PrometheusSink:
    """Exports the latest numbers of a run.

    Ray's metrics are touched by the thread alone: one that fails says so once, and the run goes on without it.

    Args:
        run: The run's name; of a longer one the end is kept, where trials of a sweep differ.
        period_s: How often every gauge is set again; well below the time after which Ray forgets one.
        gauge: Makes a gauge.
    """

    def __init__(self, run: str, *, period_s: float = 2.0, gauge: Callable[..., Any] = Gauge) -> None:
        self._run = run[-_LONGEST_RUN:]
        self._period_s = period_s
        self._make = gauge
        self._gauges: dict[str, Any] = {}
        self._values: dict[Key, float] = {}
        self._lock = threading.Lock()
        self._has_news = threading.Event()
        self._is_closed = False
        self._thread = threading.Thread(target=self._repeat, name="prometheus", daemon=True)
        self._thread.start()

    def log(self, record: Record) -> None:
        """Take over a record's numbers."""
        values = gauges_of(record, now=time.time())
        with self._lock:
            self._values.update(values)
        self._has_news.set()

    def show(self, panels: list[Panel], step: int) -> None:
        """Pictures are no metrics."""

    def tabulate(self, table: ScoreTable, step: int) -> None:
        """Scores by group are W&B's."""

    def close(self) -> None:
        """Set everything a last time."""
        self._is_closed = True
        self._has_news.set()
        self._thread.join(timeout=self._period_s)

    def _repeat(self) -> None:
        try:
            while not self._is_closed:
                self._has_news.wait(self._period_s)
                self._has_news.clear()
                self._set_all()
            self._set_all()  # What was logged during the last round.
        except Exception:
            logger.warning("Prometheus does not see run %s any more; it goes on", self._run, exc_info=True)

    def _set_all(self) -> None:
        with self._lock:
            values = dict(self._values)
        for (name, metric), value in values.items():
            tags = {"run": self._run, **({"metric": metric} if metric else {})}
            if name not in self._gauges:
                self._gauges[name] = self._make(name, description=GAUGES[name], tag_keys=tuple(tags))
            self._gauges[name].set(value, tags=tags)


def count_failed_run(run: str, error: EchotrainError) -> None:
    """Count a run that ended with an error; for the driver, because the workers leave before they are scraped."""
    name = "echotrain_failed_runs"
    try:
        counter = Counter(name, description=COUNTERS[name], tag_keys=("run", "error"))
        counter.inc(tags={"run": run[-_LONGEST_RUN:], "error": type(error).__name__})
    except Exception:
        logger.warning("Prometheus does not see that run %s failed", run, exc_info=True)
