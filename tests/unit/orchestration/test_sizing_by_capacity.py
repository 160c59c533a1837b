"""How many workers and trials are asked for, on clusters that may grow."""

from types import SimpleNamespace

import pytest

from echotrain.errors import ResourceError
from echotrain.orchestration.jobs import inference, tuning
from echotrain.orchestration.jobs.inference import actor_resources
from echotrain.orchestration.jobs.tuning import trials_at_a_time
from echotrain.orchestration.runtime import checks
from echotrain.orchestration.runtime.capacity import Capacity, Node, capacity_of
from echotrain.training.experiment import Experiment
from echotrain.worker_groups import PublishedGroups, WorkerGroup

DATA = WorkerGroup(name="data", cpus=8, gpus=0, memory=2**30, min=0, max=2)
H100 = WorkerGroup(name="h100", cpus=8, gpus=4, memory=2**30, min=0, max=2)
NOTHING_YET = (Node(),)
CPUS_UP = (Node(), Node(cpus=8, group="data"))


def grown(*groups: WorkerGroup, nodes: tuple[Node, ...] = NOTHING_YET) -> Capacity:
    return capacity_of(nodes, PublishedGroups(groups=groups, node_timeout_s=1800))


@pytest.mark.parametrize(
    ("room", "method", "items", "resources"),
    [
        (grown(DATA), {}, 100, {"concurrency": 16, "num_cpus": 1, "num_gpus": 0}),
        (grown(DATA), {"threads_per_worker": 3}, 100, {"concurrency": 4, "num_cpus": 3, "num_gpus": 0}),
        (grown(DATA, H100, nodes=CPUS_UP), {}, 100, {"concurrency": 8, "num_cpus": 0, "num_gpus": 1}),
        (grown(DATA, H100, nodes=CPUS_UP), {}, 3, {"concurrency": 3, "num_cpus": 0, "num_gpus": 1}),
        (grown(DATA, H100), {"uses_gpu": False, "workers": 20}, 100, {"concurrency": 20, "num_cpus": 1, "num_gpus": 0}),
        (Capacity(nodes=(Node(cpus=4),)), {}, 100, {"concurrency": 4, "num_cpus": 1, "num_gpus": 0}),
    ],
)
def test_volumes_are_mapped_over_the_gpus_that_may_come_and_over_cpus_where_none_may(monkeypatch, room, method, items, resources):
    monkeypatch.setattr(inference, "capacity", lambda: room)
    asked = SimpleNamespace(**{"workers": 0, "threads_per_worker": 1, "uses_gpu": True, **method})
    assert actor_resources(asked, items) == resources


@pytest.mark.parametrize("room", [grown(DATA), Capacity(nodes=(Node(cpus=16),))])
def test_more_workers_than_may_ever_fit_are_refused(monkeypatch, room):
    monkeypatch.setattr(inference, "capacity", lambda: room)
    with pytest.raises(ResourceError, match=r"workers=17: the cluster has .*so 16 fit"):
        actor_resources(SimpleNamespace(workers=17, threads_per_worker=1, uses_gpu=True), 100)


@pytest.mark.parametrize(
    ("room", "settings", "trials"),
    [
        (grown(DATA), {"workers": 2}, 8),
        (grown(DATA, H100, nodes=CPUS_UP), {"workers": 2}, 4),
        # A worker of three CPUs leaves two GPUs of each pod idle.
        (grown(H100), {"workers": 1, "cpus_per_worker": 3}, 4),
        (grown(DATA, H100, nodes=CPUS_UP), {"workers": 2, "device": "cpu"}, 16),
        (Capacity(nodes=(Node(cpus=4),)), {"workers": 2}, 2),
    ],
)
def test_as_many_trials_run_at_a_time_as_the_largest_cluster_holds(monkeypatch, room, settings, trials):
    for module in (checks, tuning):
        monkeypatch.setattr(module, "capacity", lambda: room)
    base = Experiment(batch_size=8, **settings)
    assert trials_at_a_time(base, 0) == trials
    with pytest.raises(ResourceError, match=f"the cluster holds {trials}"):
        trials_at_a_time(base, trials + 1)
