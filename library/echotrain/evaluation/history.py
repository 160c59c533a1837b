"""The numbers that a training run has left in its ``metrics.jsonl``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echotrain.errors import PayloadError
from echotrain.metrics.table import METRICS, in_order
from echotrain.storage.bounded_read import read_at_most
from echotrain.storage.store import Store

__all__ = ["HISTORY", "History", "read_history"]

HISTORY = "metrics.jsonl"
# A million lines.
_LARGEST = 256 << 20


@dataclass(frozen=True, kw_only=True)
class History:
    """A run's records: ``train`` (means over some steps) and ``epoch`` (mean loss and validation scores)."""

    name: str
    train: tuple[dict[str, Any], ...]
    epochs: tuple[dict[str, Any], ...]

    def curve(self, kind: str, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the global steps at which a metric was recorded, and its values.

        Args:
            kind: ``train`` or ``epoch``.
            metric: A key of such records; records without it, or with null, are left out.
        """
        records: Sequence[dict[str, Any]] = self.train if kind == "train" else self.epochs
        points = [(record["global_step"], record[metric]) for record in records if isinstance(record.get(metric), int | float)]
        steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
        return steps, values

    def metrics(self) -> tuple[str, ...]:
        """Return the metrics that validations have recorded, in the order of showing."""
        return in_order(name for name in METRICS if any(isinstance(record.get(name), int | float) for record in self.epochs))

    def best(self) -> dict[str, Any] | None:
        """Return the epoch record whose weights are the run's best, or None where no epoch was ever scored."""
        if any("is_best" in record for record in self.epochs):
            return next((record for record in reversed(self.epochs) if record["is_best"]), None)
        # Runs that did not say were all judged by SSIM.
        scored = [record for record in self.epochs if isinstance(record.get("ssim"), int | float)]
        return max(scored, key=lambda record: float(record["ssim"]), default=None)


def read_history(store: Store, name: str) -> History:
    """Read a run's numbers.

    Raises:
        ObjectMissingError: The run has none.
        PayloadError: A line is not a record.
    """
    records: dict[str, list[dict[str, Any]]] = {"train": [], "epoch": []}
    for number, line in enumerate(read_at_most(store, HISTORY, _LARGEST).decode(errors="replace").splitlines(), start=1):
        try:
            record = json.loads(line)
            records.setdefault(record["kind"], []).append({**record, "global_step": int(record["global_step"])})
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            where = f"{store.uri}/{HISTORY}, line {number}"
            raise PayloadError(where, "is not a record with a kind and a global_step", "Report on a run of this version.") from error
    return History(name=name, train=tuple(records["train"]), epochs=tuple(records["epoch"]))
