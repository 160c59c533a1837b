"""Workers that lose their room: Ray gives the start up, room is waited for, and failures are counted over all starts."""

import pytest
from ray.exceptions import RayTaskError
from ray.train import ControllerError, WorkerGroupError

from echotrain.errors import ResourceError, TrainingError
from echotrain.orchestration.runtime.group import started_again


class Cluster:
    """Does with each start what its script says: how many workers' starts it sees, and how it ends."""

    def __init__(self, *script):
        self.script, self.starts, self.left, self.waits = list(script), 0, [], 0

    def fit(self, left):
        self.left.append(left)
        starts, end = self.script.pop(0)
        self.starts += starts
        if isinstance(end, Exception):
            raise end
        return end

    def wait(self):
        self.waits += 1

    def run(self, max_failures=3):
        return started_again(self.fit, self.wait, lambda: self.starts, max_failures)


def no_room():
    return ControllerError(TimeoutError())


def test_a_start_that_finds_room_is_the_only_one():
    cluster = Cluster((1, "done"))
    assert cluster.run() == "done"
    assert (cluster.left, cluster.waits) == ([3], 1)


def test_a_restart_without_room_waits_for_it_and_has_the_failures_that_are_left():
    cluster = Cluster((2, no_room()), (1, no_room()), (1, "done"))
    assert cluster.run() == "done"
    assert (cluster.left, cluster.waits) == ([3, 1, 0], 3)


def test_any_number_of_failures_stays_any_number():
    cluster = Cluster((2, no_room()), (1, "done"))
    assert cluster.run(max_failures=-1) == "done"
    assert cluster.left == [-1, -1]


def test_starts_that_come_to_nothing_one_after_the_other_have_an_end():
    cluster = Cluster(*[(0, no_room())] * 9)
    with pytest.raises(ResourceError, match=r"room for the training workers: was there 4 times, and gone"):
        cluster.run()
    assert cluster.waits == 4


def test_room_that_was_lost_to_others_now_and_then_has_none():
    cluster = Cluster(*[(0, no_room()), (0, no_room()), (1, no_room())] * 3, (1, "done"))
    assert cluster.run(max_failures=9) == "done"


@pytest.mark.parametrize(
    "error",
    [
        ControllerError(TrainingError("a loss", "is not finite", "Lower optim.lr.")),
        # As Ray raises it where a worker is set up: of a kind that is both.
        ControllerError(RayTaskError("set up", "no NCCL", RuntimeError("no NCCL")).as_instanceof_cause()),
        WorkerGroupError("died", {}),
    ],
)
def test_what_is_no_want_of_room_ends_the_run(error):
    cluster = Cluster((1, error), (1, "done"))
    with pytest.raises(type(error)):
        cluster.run()
    assert cluster.waits == 1
