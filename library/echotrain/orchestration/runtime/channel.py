"""The thin lines between a driver and its workers: orders and a request to stop one way, progress and outcomes the other way.

All are a few hundred bytes of a job's notes, in the memory of a process beside the driver, so that none needs the run's storage.
"""

from dataclasses import dataclass
from typing import Any

from echotrain.config import from_dict, to_dict
from echotrain.orchestration.runtime.notes import Notes
from echotrain.training.experiment import Experiment
from echotrain.training.sinks import Record

__all__ = ["GroupChannel", "Order", "RunChannel"]


class RunChannel:
    """The line of one run, or of a sweep of them; made by the driver and by rank 0 (or a trial's driver) alike.

    Args:
        notes: Of the job.
        run_id: The run's id.
    """

    def __init__(self, notes: Notes, run_id: str) -> None:
        self._notes = notes
        self._progress = f"progress/{run_id}"
        self._stop = f"stop/{run_id}"

    def publish(self, record: Record) -> None:
        """Send a record to the driver; rank 0 only."""
        self._notes.append(self._progress, dict(record))

    def records(self, after: int = 0) -> list[tuple[int, Record]]:
        """Return the numbered records that came after number ``after``."""
        return self._notes.after(self._progress, after)

    def request_stop(self) -> None:
        """Ask the workers to save and stop."""
        self._notes.write(self._stop, True)

    def is_stop_requested(self) -> bool:
        """Whether the driver asked to stop."""
        return bool(self._notes.read(self._stop))

    def clear(self) -> None:
        """Forget everything of this run."""
        self._notes.forget(self._progress, self._stop)


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
        notes: Of the job.
        group_id: The group's id.
    """

    def __init__(self, notes: Notes, group_id: str) -> None:
        self._notes = notes
        self._order = f"order/{group_id}"
        self._outcome = f"outcome/{group_id}"
        self._starts = f"starts/{group_id}"

    def send(self, order: Order) -> None:
        """Give the workers an order; the one before it has an outcome already."""
        experiment = None if order.experiment is None else to_dict(order.experiment)
        self._notes.write(self._order, {"number": order.number, "experiment": experiment, "run_id": order.run_id, "lease": order.lease})

    def order(self) -> Order | None:
        """Return the latest order."""
        values = self._notes.read(self._order)
        if values is None:
            return None
        experiment = None if values["experiment"] is None else from_dict(Experiment, values["experiment"])
        return Order(number=values["number"], experiment=experiment, run_id=values["run_id"], lease=values["lease"])

    def answer(self, number: int, outcome: dict[str, Any]) -> None:
        """Say what an order came to; rank 0 only."""
        self._notes.write(self._outcome, (number, outcome))

    def answered(self) -> tuple[int, dict[str, Any]]:
        """Return the number of the last order with an outcome (0 where there is none), and that outcome."""
        number, outcome = self._notes.read(self._outcome, (0, {}))
        return number, outcome

    def count_start(self) -> None:
        """Note that the workers have started, or started again; rank 0 only."""
        self._notes.write(self._starts, self.num_starts() + 1)

    def num_starts(self) -> int:
        """Return how often the workers started."""
        return int(self._notes.read(self._starts, 0))

    def clear(self) -> None:
        """Forget everything of this group."""
        self._notes.forget(self._order, self._outcome, self._starts)
