"""The trials of a sweep as a table: a row each for programs, the best first for people."""

import json
import math
from collections.abc import Sequence
from typing import Any

from echotrain.csv_text import csv_of
from echotrain.sweeps.spec import Metric
from echotrain.sweeps.trial import Trial

__all__ = ["ranked", "table_csv"]


def table_csv(paths: Sequence[str], trials: Sequence[Trial]) -> str:
    """Return a row per trial by number: what it was made of, what it came to; no times and places, so that equal sweeps give equal tables.

    Args:
        paths: The swept parameters.
        trials: In any order.
    """
    metrics = sorted({name for trial in trials for name in trial.scores})
    rows: list[list[Any]] = [["number", "name", *paths, "state", "epoch", *metrics, "reason", "run"]]
    for trial in sorted(trials, key=lambda trial: trial.number):
        values = (_plain(trial.values.get(path, "")) for path in paths)
        scores = (_plain(trial.scores.get(name, "")) for name in metrics)
        rows.append([trial.number, trial.name, *values, trial.state, trial.epoch, *scores, trial.reason, trial.run.rpartition("/")[2]])
    return csv_of(rows)


def ranked(trials: Sequence[Trial], metric: Metric) -> list[Trial]:
    """Return the trials, best first; those without a score come last."""
    sign = -1 if metric.goal == "maximize" else 1

    def rank(trial: Trial) -> tuple[float, int]:
        score = trial.score(metric)
        return (math.inf if score is None else sign * score, trial.number)

    return sorted(trials, key=rank)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else json.dumps(value)
