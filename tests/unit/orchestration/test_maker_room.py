"""Room for makers of samples: beside the trainers, shared among ranks and trials, and refused where there is none."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.config import override
from echotrain.orchestration.runtime.capacity import Capacity, Node, Shape
from echotrain.orchestration.runtime.maker_room import describe_need, with_makers, workers_that_fit
from echotrain.training.experiment import Experiment
from echotrain.worker_groups import WorkerGroup

CPU = Shape(cpus=1)
GPU = Shape(cpus=4, gpus=1)
DATA = WorkerGroup(name="data", cpus=16, gpus=0, memory=1, min=0, max=4)
# Two nodes of GPUs that are up, a data node, and three of those that may come.
GROUPS = Capacity(
    nodes=(Node(cpus=8, gpus=2, group="h100"), Node(cpus=8, gpus=2, group="h100"), Node(cpus=16, group="data")), coming=((DATA, 3),)
)


def asked(*settings: str) -> Experiment:
    return override(Experiment(), ["stream.where=cluster", "batch_size=64", *settings])


@pytest.mark.parametrize(
    ("settings", "room", "shape", "fit"),
    [
        (["stream.where=rank"], Capacity(nodes=(Node(cpus=4),)), CPU, 4),
        ([], Capacity(nodes=(Node(cpus=4),)), CPU, 2),
        (["stream.cpus_per_maker=2"], Capacity(nodes=(Node(cpus=4),)), CPU, 1),
        ([], Capacity(nodes=(Node(cpus=1),)), CPU, 0),
        # The trainers' own CPUs are no room for makers that ask for a group.
        (["stream.group=data"], GROUPS, GPU, 4),
        # A maker is on one node.
        (["stream.group=data", "stream.cpus_per_maker=32"], GROUPS, GPU, 0),
        (["stream.group=data", "stream.cpus_per_maker=9"], GROUPS, GPU, 4),
        (["stream.cpus_per_maker=4"], Capacity(nodes=(Node(cpus=2),) * 4), CPU, 0),
        (["stream.cpus_per_maker=2"], Capacity(nodes=(Node(cpus=2),) * 4), CPU, 2),
        (["stream.cpus_per_maker=2"], Capacity(nodes=(Node(cpus=3),) * 4), CPU, 3),
        # A trainer that takes the only node of its group leaves none to makers that ask for it.
        (["stream.group=h100"], Capacity(nodes=(Node(cpus=8, gpus=1, group="h100"), Node(cpus=64))), Shape(cpus=8, gpus=1), 0),
        # Trainers go where no maker may.
        (["stream.group=data"], Capacity(nodes=(Node(cpus=16), Node(cpus=2, group="data"))), Shape(cpus=4), 2),
        (["stream.group=none"], GROUPS, GPU, 0),
    ],
)
def test_a_worker_fits_with_a_maker_beside_it(settings, room, shape, fit):
    assert workers_that_fit(asked(*settings), room, shape) == fit


NODES = st.builds(Node, cpus=st.integers(1, 7), group=st.sampled_from(["", "data"]))


@given(
    nodes=st.lists(NODES, min_size=1, max_size=3),
    cpus=st.integers(1, 3),
    each=st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    group=st.sampled_from(["", "data"]),
)
def test_workers_that_fit_can_be_placed_with_a_maker_for_each(nodes, cpus, each, group):
    fit = workers_that_fit(asked(f"stream.cpus_per_maker={each}", f"stream.group={group}"), Capacity(nodes=tuple(nodes)), Shape(cpus=cpus))
    possible = {0}
    for placed in itertools.product(*(range(node.holds(Shape(cpus=cpus)) + 1) for node in nodes)):
        rest = [Node(cpus=node.cpus - count * cpus) for node, count in zip(nodes, placed, strict=True) if group in ("", node.group)]
        if sum(node.holds(Shape(cpus=each)) for node in rest) >= sum(placed):
            possible.add(sum(placed))
    assert fit in possible


@given(cpus=st.integers(1, 64), workers=st.integers(1, 8), at_a_time=st.integers(1, 4), each=st.sampled_from([0.5, 1.0, 2.0]))
def test_makers_of_all_ranks_and_trials_fit_beside_the_trainers(cpus, workers, at_a_time, each):
    experiment, room = asked(f"workers={workers}", f"stream.cpus_per_maker={each}"), Capacity(nodes=(Node(cpus=cpus),))
    makers = with_makers(experiment, room, CPU, at_a_time=at_a_time).stream.makers
    assert makers >= 1
    ranks = workers * at_a_time
    if workers_that_fit(experiment, room, CPU) >= ranks:
        assert ranks * (1 + makers * each) <= cpus
        assert ranks * (1 + (makers + 1) * each) > cpus or makers == 64


def test_a_number_that_is_given_stays(capsys):
    room = Capacity(nodes=(Node(cpus=64),))
    assert with_makers(asked("stream.makers=3"), room, CPU).stream.makers == 3
    assert with_makers(asked("stream.where=rank"), room, CPU).stream.makers == 0


def test_what_is_asked_for_is_said():
    assert describe_need(asked("stream.group=data"), GPU) == "4 CPUs and 1 GPU and 1 CPU of group data to make samples"
    assert describe_need(asked("stream.where=rank"), GPU) == "4 CPUs and 1 GPU"
