"""How many workers a cluster holds, now and once it has grown."""

from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ray.core.generated.autoscaler_pb2 import ClusterConfig

from echotrain.orchestration.runtime import capacity as module
from echotrain.orchestration.runtime.capacity import Capacity, Node, Shape, capacity_of
from echotrain.worker_groups import GROUPS_VARIABLE, PublishedGroups, WorkerGroup

GIB = 2**30


def group(name, *, cpus=4, gpus=0, most=4):
    return WorkerGroup(name=name, cpus=cpus, gpus=gpus, memory=8 * GIB, min=0, max=most)


def published(*groups):
    return PublishedGroups(groups=groups, node_timeout_s=1800)


SHAPES = st.builds(Shape, cpus=st.sampled_from([0.5, 1.0, 2.0, 3.0]), gpus=st.sampled_from([0.0, 1.0, 2.0]))


@st.composite
def clusters(draw):
    groups = [
        group(name, cpus=draw(st.integers(1, 5)), gpus=draw(st.integers(0, 3)), most=draw(st.integers(0, 3))) for name in ("data", "h100")
    ]
    nodes = []
    for each in groups:
        up = draw(st.integers(0, each.max))
        is_labelled = draw(st.booleans())
        nodes += [Node(cpus=each.cpus, gpus=each.gpus, group=each.name if is_labelled else "")] * up
    return groups, [Node(), *nodes]


def placed_one_by_one(groups, shape):
    """Return how many workers can be placed, one after another, on every pod that there may ever be."""
    left = [[Fraction(each.cpus), Fraction(each.gpus)] for each in groups for _ in range(each.max)]
    wants = [Fraction(shape.cpus), Fraction(shape.gpus)]
    count = 0
    while pod := next((pod for pod in left if all(has >= want for has, want in zip(pod, wants, strict=True))), None):
        pod[:] = [has - want for has, want in zip(pod, wants, strict=True)]
        count += 1
    return count


@given(clusters(), SHAPES)
def test_a_cluster_holds_what_its_largest_size_holds_however_much_of_it_is_up(cluster, shape):
    groups, nodes = cluster
    room = capacity_of(nodes, published(*groups))
    assert room.workers(shape) == placed_one_by_one(groups, shape)
    assert room.gpus == sum(each.gpus * each.max for each in groups)
    assert room.num_nodes == 1 + sum(each.max for each in groups)


@given(clusters(), SHAPES)
def test_what_fits_now_is_what_fits_when_nothing_more_may_come(cluster, shape):
    groups, nodes = cluster
    assert capacity_of(nodes, published(*groups)).workers_now(shape) == capacity_of(nodes, published()).workers(shape)


def test_a_worker_of_four_gpus_does_not_fit_pods_of_one():
    room = capacity_of([Node()], published(group("a10g", cpus=15, gpus=1, most=16), group("data", most=20)))
    assert room.workers(Shape(cpus=1, gpus=4)) == 0
    assert room.workers(Shape(cpus=1, gpus=1)) == 16


def test_more_nodes_than_a_group_may_have_are_all_counted_and_none_comes():
    room = capacity_of([Node(cpus=4, group="data")] * 3, published(group("data", most=2)))
    assert room.workers(Shape(cpus=1)) == room.workers_now(Shape(cpus=1)) == 12


def test_of_groups_alike_a_node_without_a_name_takes_one_place_and_one_beyond_its_group_takes_none():
    alike = published(group("data", most=2), group("more", most=2))
    assert capacity_of([Node(cpus=4)], alike).workers(Shape(cpus=4)) == 4
    assert capacity_of([Node(cpus=4, group="data")] * 3, alike).workers(Shape(cpus=4)) == 3 + 2


def test_a_node_of_a_group_that_is_not_published_takes_no_place_of_another_size():
    room = capacity_of([Node(cpus=8, group="old")], published(group("data", most=2)))
    assert room.workers(Shape(cpus=4)) == 2 + 2


@pytest.fixture
def unpublished(monkeypatch):
    """Return a way to stand on a cluster whose chart, if it has one, publishes nothing."""
    monkeypatch.delenv(GROUPS_VARIABLE, raising=False)

    def stand(nodes, config=None):
        monkeypatch.setattr(module, "nodes_up", lambda: tuple(nodes))
        monkeypatch.setattr(module, "cluster_config", lambda: config)
        return module.capacity()

    return stand


@given(st.lists(st.builds(Node, cpus=st.integers(0, 4), gpus=st.integers(0, 2)), max_size=5), SHAPES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_worker_that_fits_only_the_sum_of_nodes_fits_none(unpublished, nodes, shape):
    assert unpublished(nodes).workers(shape) == sum(node.holds(shape) for node in nodes)


def test_of_an_autoscaler_that_tells_of_its_groups_each_is_counted_by_its_nodes(unpublished):
    config = ClusterConfig(max_resources={"GPU": 9})
    config.node_group_configs.add(name="small", resources={"CPU": 2}, max_count=3)
    config.node_group_configs.add(name="large", resources={"CPU": 8, "GPU": 4}, max_count=-1)
    room = unpublished([Node(), Node(cpus=2)], config)
    assert [room.workers(Shape(cpus=cpus)) for cpus in (2, 4, 16)] == [3 + 4 * 2, 2 * 2, 0]
    assert room.workers(Shape(cpus=1, gpus=4)) == 2


def test_a_node_holds_what_its_parts_divide_to():
    room = Capacity(nodes=(Node(cpus=4, gpus=2),))
    assert [room.workers(Shape(cpus=cpus, gpus=gpus)) for cpus, gpus in ((1, 0), (3, 0), (0.1, 0), (1, 1), (0, 1))] == [4, 1, 40, 2, 2]
    assert Capacity(nodes=(Node(cpus=0.3),)).workers(Shape(cpus=0.1)) == 3


def test_it_says_what_it_has_and_what_may_come():
    room = capacity_of([Node(), Node(cpus=4, group="data")], published(group("data"), group("h100", cpus=90, gpus=8, most=2)))
    grows = "3 of data (4 CPUs, 8.6 GB a pod), 2 of h100 (90 CPUs, 8 GPUs, 8.6 GB a pod)"
    assert str(room) == f"the cluster has 4 CPUs and 0 GPUs, and may grow by {grows}"
    assert str(Capacity(nodes=(Node(cpus=1),))) == "the cluster has 1 CPU and 0 GPUs"
