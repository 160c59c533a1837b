"""Waiting for nodes that Ray's autoscaler is to bring: told, bounded, and ended when somebody asks.

Ray Train waits for its workers' nodes for ever and says nothing; so does Ray Data. Where the chart publishes what may come, one
placement group is asked for before them, and let go as soon as it stands: what it needed is there then.
"""

import math
import time
from collections.abc import Callable

from ray.util.placement_group import placement_group, remove_placement_group

from echotrain.errors import ResourceError
from echotrain.orchestration.runtime.capacity import Capacity, Shape, capacity, capacity_of, nodes_up
from echotrain.worker_groups import NODE_TIMEOUT_VARIABLE, PublishedGroups, published_groups

__all__ = ["GaveUpWaitingError", "NodeWait", "RoomWatch", "await_nodes"]

_POLL_S = 1.0
_TELL_EVERY_S = 30.0
# Room that is there is given within moments; it is worth a word only where it is not.
_BUSY_AFTER_S = 10.0
# A process that has its room needs a while to start; nobody says when it has it.
_START_S = 30.0


class GaveUpWaitingError(Exception):
    """Whoever waits for nodes was asked to stop; there is nothing to save."""


def await_nodes(
    shape: Shape,
    workers: int,
    published: PublishedGroups,
    *,
    tell: Callable[[str], None],
    is_given_up: Callable[[], bool] = lambda: False,
    remedy: str = "lower workers",
) -> None:
    """Return once the cluster has room for some workers at the same time, and has it free.

    Nodes that are up and that others hold are waited for without a limit, as in a queue; nodes that are not up, until none has come for
    the time that the operator, or the job's environment, allows.

    Args:
        shape: Of each.
        workers: Their number.
        published: What may come.
        tell: Given a line at the beginning of the wait, and now and then.
        is_given_up: Asked about once a second.
        remedy: What else would help, in half a sentence.

    Raises:
        ResourceError: No node comes, or none that may come would do.
        GaveUpWaitingError: It was asked to stop.
    """
    asked = placement_group([shape.bundle()] * workers)
    wait = NodeWait(shape, workers, published.node_timeout_s, remedy, time.monotonic())
    try:
        while not asked.wait(_POLL_S):
            if is_given_up():
                raise GaveUpWaitingError
            wait.look(capacity_of(nodes_up(), published), time.monotonic(), tell)
    finally:
        remove_placement_group(asked)


class NodeWait:
    """What is seen of one wait from look to look.

    Args:
        shape: Of each worker.
        workers: Their number.
        limit_s: Without a new node, after which the wait is in vain; 0 for none.
        remedy: What else would help, in half a sentence.
        now: When it began, on the clock of all looks.
        is_known: Whether it is known what may come; else a node that is not there may come all the same.
        busy_after_s: After which room that is up and is not given is worth a word.
    """

    def __init__(
        self,
        shape: Shape,
        workers: int,
        limit_s: float,
        remedy: str,
        now: float,
        *,
        is_known: bool = True,
        busy_after_s: float = _BUSY_AFTER_S,
    ) -> None:
        self._what = f"{workers} worker{'s' * (workers != 1)} of {shape}"
        self._shape = shape
        self._workers = workers
        self._limit_s = limit_s
        self._remedy = remedy
        self._began = self._progressed = now
        self._told: float | None = None
        self._most = 0
        self._is_known = is_known
        self._busy_after_s = busy_after_s

    def look(self, room: Capacity, now: float, tell: Callable[[str], None]) -> None:
        """Tell what is waited for where it is time to; raises ``ResourceError`` where the wait is in vain."""
        up = room.workers_now(self._shape)
        is_lacking = up < self._workers
        if up > self._most or not is_lacking:
            self._most, self._progressed = max(up, self._most), now
        self._check(room, now)
        if not is_lacking and now - self._began < self._busy_after_s:
            return
        if self._told is None or now - self._told >= _TELL_EVERY_S:
            self._told = now
            tell(self._lacking(up, now) if is_lacking else self._busy(now))

    def _check(self, room: Capacity, now: float) -> None:
        fit = room.workers(self._shape)
        if fit < self._workers and self._is_known:
            raise ResourceError(self._what, f"are more than the {fit} that fit: {room}", f"{self._remedy.capitalize()}.")
        if self._limit_s and now - self._progressed >= self._limit_s:
            raise ResourceError(
                self._what,
                f"wait for nodes, and none has come for {_spoken(self._limit_s)}: {room}",
                f"Ask the operator why no pod comes (kubectl get pods), set {NODE_TIMEOUT_VARIABLE} to wait longer, or {self._remedy}.",
            )

    def _lacking(self, up: int, now: float) -> str:
        limit = f", at most {_spoken(self._limit_s)} without a new one" if self._limit_s else ""
        return f"waiting for nodes: {self._what}, and those that are up hold {up} ({_spoken(now - self._began)} so far{limit})"

    def _busy(self, now: float) -> str:
        return f"waiting for other work: {self._what} fit the nodes that are up, which others use ({_spoken(now - self._began)} so far)"


class RoomWatch:
    """Looks now and then for the room that one more worker needs, while work is waited for that is in no worker's hands.

    Args:
        shape: Of the worker.
        tell: Given a line when there is no room, and now and then.
        is_starting_told: Whether also that nodes are up, and no worker has started.
        group: Of nodes, where the worker asks for one.
        remedy: What else would help, in half a sentence.
    """

    def __init__(
        self, shape: Shape, tell: Callable[[str], None], *, is_starting_told: bool = True, group: str = "", remedy: str = "lower workers"
    ) -> None:
        self._shape = shape
        self._tell = tell
        self._group = group
        self._remedy = remedy
        self._busy_after_s = _START_S if is_starting_told else math.inf
        self._wait: NodeWait | None = None

    def look(self, *, is_idle: bool) -> None:
        """Tell what is waited for where nothing is being done.

        Raises:
            ResourceError: The wait is in vain.
        """
        now = time.monotonic()
        published = published_groups()
        if not is_idle:
            self._wait = None
            return
        if self._wait is None:
            limit_s = published.node_timeout_s if published is not None else 0.0
            is_known = published is not None
            self._wait = NodeWait(self._shape, 1, limit_s, self._remedy, now, is_known=is_known, busy_after_s=self._busy_after_s)
        self._wait.look(capacity().of(self._group), now, self._tell)


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
