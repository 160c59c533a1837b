"""Small values that the processes of a job leave each other, kept by an actor on the node of its driver.

The actor ends with the driver, and it is not started again: what it kept would be gone in silence. Whoever asks it then is told. It is
a light process (0.4 s of CPU to start, 80 MB): this module imports little, and what is kept is text.
"""

import collections
import json
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from echotrain.errors import ResourceError, TrainingError

__all__ = ["Attempts", "Notes"]

_KEPT = 256


class Notes:
    """Plain values by key; made by the driver, and handed to its actors and workers."""

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._keeper = ray.remote(num_cpus=0)(_Keeper).options(scheduling_strategy=here, max_task_retries=-1).remote()

    def write(self, key: str, value: Any) -> None:
        """Keep a value in place of the one before."""
        self._ask("write", key, json.dumps(value))

    def read(self, key: str, default: Any = None) -> Any:
        """Return the value of a key."""
        found = self._ask("read", key)
        return default if found is None else json.loads(found)

    def append(self, key: str, value: Any) -> None:
        """Add a value to a list, of which the latest are kept; does not wait."""
        self._keeper.append.remote(key, json.dumps(value))

    def after(self, key: str, number: int) -> list[tuple[int, Any]]:
        """Return the values of a list from the one after ``number`` on, numbered from 1."""
        return [(position, json.loads(text)) for position, text in self._ask("after", key, number)]

    def count(self, key: str, number: int) -> int:
        """Return how often one of many things of a key was counted, this time among them."""
        return int(self._ask("count", key, number))

    def forget(self, *keys: str) -> None:
        """Keep nothing of these keys; does not wait."""
        self._keeper.forget.remote(*keys)

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return ray.get(getattr(self._keeper, method).remote(*arguments))
        except RayActorError as error:
            remedy = "See the logs of Ray's node that the command runs on, which may lack memory; the same command resumes."
            raise TrainingError("the process between the command and its workers", "died", remedy) from error


class Attempts(NamedTuple):
    """How often each piece of some work was begun: a process that dies leaves no other word, and Ray Data tries again for ever.

    Attributes:
        notes: Where they are counted.
        key: Of the work.
        most: Of one piece.
    """

    notes: Notes
    key: str
    most: int

    def begin(self, number: int, what: str, remedy: str) -> None:
        """Count one more of a piece.

        Raises:
            ResourceError: It was begun too often.
        """
        if self.notes.count(self.key, number) > self.most:
            raise ResourceError(
                what, f"was begun {self.most} times, and its process died each time", f"{remedy}; see the logs of Ray's nodes."
            )


class _Keeper:
    """What the actor does."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._counts: dict[str, collections.Counter[int]] = {}
        self._lists: dict[str, collections.deque[tuple[int, str]]] = {}

    def write(self, key: str, text: str) -> None:
        self._texts[key] = text

    def read(self, key: str) -> str | None:
        return self._texts.get(key)

    def append(self, key: str, text: str) -> None:
        kept = self._lists.setdefault(key, collections.deque(maxlen=_KEPT))
        kept.append((kept[-1][0] + 1 if kept else 1, text))

    def after(self, key: str, number: int) -> list[tuple[int, str]]:
        return [(position, text) for position, text in self._lists.get(key, ()) if position > number]

    def count(self, key: str, number: int) -> int:
        counts = self._counts.setdefault(key, collections.Counter())
        counts[number] += 1
        return counts[number]

    def forget(self, *keys: str) -> None:
        for key in keys:
            self._texts.pop(key, None)
            self._counts.pop(key, None)
            self._lists.pop(key, None)
