"""The thin lines between a driver and its workers: orders and a request to stop one way, progress and outcomes the other way.

All are a few hundred bytes in the key-value store of Ray's control service, so that none needs an actor of its own, nor the
run's storage.
"""

import collections
import json
from dataclasses import dataclass
from typing import Any

from echotrain.config import from_dict, to_dict
from echotrain.orchestration.runtime.private_ray import kv_delete, kv_exists, kv_get, kv_put
from echotrain.training.experiment import Experiment
from echotrain.training.sinks import Record

__all__ = ["GroupChannel", "Order", "RunChannel"]

_NAMESPACE = "echotrain"
_KEPT = 256


class RunChannel:
    """The line of one run, or of a sweep of them; made by the driver and by rank 0 (or a trial's driver) alike.

    Args:
        run_id: The run's id.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._progress = f"progress/{run_id}"
        self._stop = f"stop/{run_id}"
        self._sent: collections.deque[list[Any]] = collections.deque(maxlen=_KEPT)

    def publish(self, record: Record) -> None:
        """Send a record to the driver; rank 0 only."""
        if not self._sent:
            self._sent.extend(_read(self._progress, []))
        number = self._sent[-1][0] + 1 if self._sent else 1
        self._sent.append([number, dict(record)])
        _write(self._progress, list(self._sent))

    def records(self, after: int = 0) -> list[tuple[int, Record]]:
        """Return the numbered records that came after number ``after``."""
        return [(number, record) for number, record in _read(self._progress, []) if number > after]

    def request_stop(self) -> None:
        """Ask the workers to save and stop."""
        _write(self._stop, 1)

    def is_stop_requested(self) -> bool:
        """Whether the driver asked to stop."""
        return bool(kv_exists(self._stop, namespace=_NAMESPACE))

    def clear(self) -> None:
        """Forget everything of this run."""
        _forget(self._progress, self._stop)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a group of workers is to do next.

    Attributes:
        number: 1 for a group's first.
        experiment: Resolved; every local path in it is absolute. None sends the workers home.
        run_id: Stays the same over restarts.
        lease: The token of the driver's lease of the run's folder, under which rank 0 writes.
    """

    number: int
    experiment: Experiment | None = None
    run_id: str = ""
    lease: str = ""


class GroupChannel:
    """One group's line; made by the driver and by every worker alike.

    Args:
        group_id: The group's id.
    """

    def __init__(self, group_id: str) -> None:
        self._order = f"order/{group_id}"
        self._outcome = f"outcome/{group_id}"
        self._starts = f"starts/{group_id}"
        self._waiting = f"waiting/{group_id}"
        self._given_up = f"given-up/{group_id}"

    def send(self, order: Order) -> None:
        """Give the workers an order; the one before it has an outcome already."""
        experiment = None if order.experiment is None else to_dict(order.experiment)
        _write(self._order, {"number": order.number, "experiment": experiment, "run_id": order.run_id, "lease": order.lease})

    def order(self) -> Order | None:
        """Return the latest order."""
        values = _read(self._order, None)
        if values is None:
            return None
        experiment = None if values["experiment"] is None else from_dict(Experiment, values["experiment"])
        return Order(number=values["number"], experiment=experiment, run_id=values["run_id"], lease=values["lease"])

    def answer(self, number: int, outcome: dict[str, Any]) -> None:
        """Say what an order came to; rank 0 only."""
        _write(self._outcome, [number, outcome])

    def answered(self) -> tuple[int, dict[str, Any]]:
        """Return the number of the last order with an outcome (0 where there is none), and that outcome."""
        number, outcome = _read(self._outcome, [0, {}])
        return number, outcome

    def count_start(self) -> None:
        """Note that the workers have started, or started again; rank 0 only."""
        _write(self._starts, self.num_starts() + 1)

    def num_starts(self) -> int:
        """Return how often the workers started."""
        return int(_read(self._starts, 0))

    def tell_waiting(self, text: str) -> None:
        """Say what the workers' start waits for; "" where it does not wait any more."""
        _write(self._waiting, text)

    def waiting(self) -> str:
        """Return what the workers' start waits for; "" where it does not wait."""
        return str(_read(self._waiting, ""))

    def give_up(self, is_given_up: bool) -> None:
        """Have a start that waits come to an end, or take that back."""
        _write(self._given_up, is_given_up)

    def is_given_up(self) -> bool:
        """Whether a start that waits is to end."""
        return bool(_read(self._given_up, False))

    def clear(self) -> None:
        """Forget everything of this group."""
        _forget(self._order, self._outcome, self._starts, self._waiting, self._given_up)


def _read(key: str, default: Any) -> Any:
    found = kv_get(key, namespace=_NAMESPACE)
    return json.loads(found) if found else default


def _write(key: str, value: Any) -> None:
    kv_put(key, json.dumps(value).encode(), overwrite=True, namespace=_NAMESPACE)


def _forget(*keys: str) -> None:
    for key in keys:
        kv_delete(key, namespace=_NAMESPACE)
