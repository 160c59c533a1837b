"""What is said while workers wait for nodes, and when the wait is given up."""

import io

import pytest
from rich.console import Console

from echotrain.errors import ResourceError
from echotrain.orchestration.runtime import waiting
from echotrain.orchestration.runtime.capacity import Capacity, Node, Shape, capacity_of
from echotrain.orchestration.runtime.waiting import NodeWait, RoomWatch
from echotrain.sweeps.console import SweepConsole
from echotrain.sweeps.trial import Trial
from echotrain.training.console import ConsoleProgress
from echotrain.worker_groups import PublishedGroups, WorkerGroup

SHAPE = Shape(cpus=1, gpus=1)
PUBLISHED = PublishedGroups(groups=(WorkerGroup(name="a10g", cpus=15, gpus=1, memory=2**30, min=0, max=4),), node_timeout_s=100)


def room(up: int):
    return capacity_of([Node(), *[Node(cpus=15, gpus=1, group="a10g")] * up], PUBLISHED)


def waited(looks, *, workers=3, limit_s=100.0):
    """Return what is told by looks at (time, nodes that are up)."""
    wait, told = NodeWait(SHAPE, workers, limit_s, "lower workers", now=0.0), []
    for now, up in looks:
        wait.look(room(up), now, lambda text, now=now: told.append((now, text)))
    return told


def test_a_wait_for_nodes_is_told_at_once_and_now_and_then():
    told = waited([(now, 1) for now in range(1, 95)])
    assert [now for now, _ in told] == [1, 31, 61, 91]
    assert told[1][1] == (
        "waiting for nodes: 3 workers of 1 CPU and 1 GPU, and those that are up hold 1 (31 s so far, at most 100 s without a new one)"
    )


def test_a_wait_in_which_no_node_comes_ends_with_the_numbers_and_the_remedy():
    waited([(now, 0) for now in range(1, 100)])
    with pytest.raises(ResourceError, match="3 workers of 1 CPU and 1 GPU: wait for nodes, and none has come for 100 s") as error:
        waited([(now, 0) for now in range(1, 101)])
    assert "may grow by 4 of a10g" in error.value.limit
    assert "ECHOTRAIN_NODE_TIMEOUT_S" in error.value.remedy
    assert "lower workers" in error.value.remedy


def test_every_node_that_comes_begins_the_time_anew_and_one_that_comes_again_does_not():
    waited([(now, now // 80) for now in range(1, 240)])
    with pytest.raises(ResourceError, match="none has come"):
        waited([(now, now // 40 % 2) for now in range(1, 200)])


def test_nodes_that_are_up_and_that_others_use_are_waited_for_without_a_limit():
    told = waited([(now, 3) for now in range(1, 1000)])
    assert told[0] == (10, "waiting for other work: 3 workers of 1 CPU and 1 GPU fit the nodes that are up, which others use (10 s so far)")
    assert [now for now, _ in told][:3] == [10, 40, 70]


def test_a_node_that_goes_while_others_use_it_begins_the_time_anew():
    waited([(now, 3 if now < 500 else 2) for now in range(1, 599)])
    with pytest.raises(ResourceError, match="none has come"):
        waited([(now, 3 if now < 500 else 2) for now in range(1, 601)])


def test_without_a_limit_a_wait_is_told_and_not_ended():
    told = waited([(now, 0) for now in range(1, 10_000)], limit_s=0)
    assert told[-1][1].endswith("hold 0 (167 min so far)")


def test_what_no_node_that_may_come_would_hold_is_refused_at_once():
    with pytest.raises(ResourceError, match="5 workers of 1 CPU and 1 GPU: are more than the 4 that fit"):
        waited([(1, 0)], workers=5)


@pytest.fixture
def look(monkeypatch):
    """Return a way to look for a worker's room at a time, with so many nodes up; and what was told."""
    told = []

    def at(now, up, *, watch, is_idle=True, groups=None):
        monkeypatch.setattr(waiting.time, "monotonic", lambda: now)
        monkeypatch.setattr(waiting, "published_groups", lambda: groups)
        monkeypatch.setattr(waiting, "capacity", lambda: Capacity(nodes=(Node(), *[Node(cpus=15, gpus=1)] * up)))
        watch.look(is_idle=is_idle)
        return told

    at.told = told
    return at


def test_work_that_no_node_is_left_for_is_told_of_though_nobody_knows_what_may_come(look):
    watch = RoomWatch(SHAPE, look.told.append)
    assert look(0, 0, watch=watch, is_idle=False) == []
    for now in range(1, 70):
        look(now, 0, watch=watch)
    assert len(look.told) == 3
    assert look.told[0].startswith("waiting for nodes: 1 worker of 1 CPU and 1 GPU, and those that are up hold 0")
    look(70, 1, watch=watch, is_idle=False)
    assert len(look(71, 0, watch=watch)) == 4


def test_a_worker_that_starts_is_no_wait_and_one_that_does_not_is_told_of(look):
    watch, other = RoomWatch(SHAPE, look.told.append), RoomWatch(SHAPE, look.told.append, is_starting_told=False)
    for now in range(29):
        assert look(now, 1, watch=watch) == look(now, 1, watch=other) == []
    for now in range(29, 40):
        look(now, 1, watch=other)
        look(now, 1, watch=watch)
    assert [told.partition(":")[0] for told in look.told] == ["waiting for other work"]


def test_where_it_is_known_what_may_come_the_wait_has_an_end(look):
    watch = RoomWatch(SHAPE, look.told.append)
    with pytest.raises(ResourceError, match="are more than the 0 that fit"):
        look(0, 0, watch=watch, groups=PUBLISHED)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_person_reads_of_the_wait_of_a_run_and_of_a_trial(is_terminal):
    printed = io.StringIO()
    console = Console(file=printed, force_terminal=is_terminal, soft_wrap=True)
    ConsoleProgress(console).log({"kind": "waiting", "text": "waiting for nodes: 1"})
    sweep, trial = SweepConsole(console), Trial(number=0, name="lr=1", values={}, run="runs/0")
    sweep.begin("s", [], total=1, at_a_time=1)
    sweep.started(trial)
    sweep.waiting(trial, "waiting for nodes: 2")
    sweep.close()
    assert "waiting for nodes: 1" in printed.getvalue()
    assert "lr=1: waiting for nodes: 2" in printed.getvalue() or (is_terminal and "lr=1  waiting for nodes: 2" in printed.getvalue())
