import pytest

from echotrain.errors import LaunchError
from echotrain.launching.choices import choose_priority, choose_queue
from echotrain.launching.platform import GroupSize
from echotrain.launching.sizing import Need, choose_group, num_pods
from tests.k8s.rayjob_template import template

DATA = GroupSize(cpus=4, gpus=0, max=4)
H100 = GroupSize(cpus=96, gpus=8, max=4)
A100 = GroupSize(cpus=16, gpus=4, max=2)


@pytest.mark.parametrize(
    ("groups", "device", "expected"),
    [
        ({"data": DATA, "h100": H100}, "gpu", "h100"),
        ({"data": DATA, "h100": H100}, "cuda", "h100"),
        ({"data": DATA, "h100": H100}, "cpu", "data"),
        ({"data": DATA}, "gpu", "data"),
        ({"h100": H100}, "cpu", "h100"),
        ({"data": DATA, "h100": H100}, "none", ""),
        ({}, "none", ""),
    ],
)
def test_the_only_group_that_fits_is_taken(groups, device, expected):
    assert choose_group(groups, Need(device=device)) == expected


@pytest.mark.parametrize(
    ("groups", "device", "message"),
    [
        ({"a100": A100, "h100": H100}, "gpu", r"several.*a100 \(16 CPUs and 4 GPUs a pod, at most 2\); h100"),
        ({"data": DATA, "more": DATA}, "gpu", "several.*data.*more"),
        ({"data": DATA}, "cuda", "has no GPU"),
        ({}, "gpu", "not offered"),
    ],
)
def test_where_no_group_or_several_fit_they_are_listed(groups, device, message):
    with pytest.raises(LaunchError, match=message):
        choose_group(groups, Need(device=device))


def test_a_group_that_is_asked_for_must_be_offered_and_have_what_the_job_needs():
    groups = {"data": DATA, "h100": H100}
    assert choose_group(groups, Need(device="gpu"), "data") == "data"
    with pytest.raises(LaunchError, match="--group v100: is not offered"):
        choose_group(groups, Need(device="gpu"), "v100")
    with pytest.raises(LaunchError, match="has no GPU"):
        choose_group(groups, Need(device="cuda"), "data")


@pytest.mark.parametrize(
    ("size", "need", "expected"),
    [
        (H100, Need(workers=1), 1),
        (H100, Need(workers=8), 1),
        (H100, Need(workers=9), 2),
        (H100, Need(workers=32), 4),
        (H100, Need(workers=8, cpus_per_worker=24), 2),  # its CPUs hold four workers
        (H100, Need(workers=96, device="cpu"), 1),
        (DATA, Need(workers=9, device="cpu"), 3),
        (DATA, Need(workers=3, cpus_per_worker=3), 3),  # a worker is in one pod
        (DATA, Need(workers=0, device="cpu"), 1),
        (DATA, Need(workers=10, cpus_per_worker=0.4), 1),
    ],
)
def test_pods_are_as_many_as_hold_the_workers(size, need, expected):
    assert num_pods("g", size, need) == expected


@pytest.mark.parametrize(
    ("need", "nodes", "message"),
    [
        (Need(workers=33), None, r"33 workers: need 5 pods of group g .*at most 4\).*at most 32"),
        (Need(workers=1, cpus_per_worker=100), None, "does not fit a pod"),
        (Need(workers=1), 5, "must be 1 to 4"),
        (Need(workers=1), 0, "must be 1 to 4"),
        (Need(workers=20), 2, "hold 16 workers.*Use --nodes 3"),
    ],
)
def test_more_than_the_operator_allows_and_less_than_the_job_needs_are_refused(need, nodes, message):
    with pytest.raises(LaunchError, match=message):
        num_pods("g", H100, need, nodes)


def test_nodes_that_are_asked_for_are_given():
    assert num_pods("g", DATA, Need(device="cpu"), 3) == 3


def test_queue_and_priority_are_the_operators_unless_another_on_offer_is_asked_for():
    offer = template(queue="team-a", queues=["team-a", "night"], priority="echotrain-low").platform
    assert (choose_queue(offer, ""), choose_queue(offer, "night")) == ("team-a", "night")
    assert (choose_priority(offer, ""), choose_priority(offer, "echotrain-high")) == ("echotrain-low", "echotrain-high")
    with pytest.raises(LaunchError, match="Choose one of team-a, night"):
        choose_queue(offer, "day")
    with pytest.raises(LaunchError, match="Kueue is not used here"):
        choose_queue(template().platform, "team-a")
