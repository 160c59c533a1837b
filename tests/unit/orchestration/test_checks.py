"""What is told before a worker starts."""

import logging

import pyarrow as pa
import pytest
import torch

from echotrain.config import override, to_dict
from echotrain.data.catalog.rows import Catalog
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import CheckpointError, ConfigError, ResourceError
from echotrain.orchestration.runtime import checks
from echotrain.orchestration.runtime.capacity import Capacity, Node, capacity_of
from echotrain.orchestration.runtime.checks import check_groups, check_resumable, check_selection, choose_device
from echotrain.storage.local import LocalStore
from echotrain.training.checkpoint import CheckpointMeta
from echotrain.training.experiment import NUMBERLESS, Experiment, flatten, science
from echotrain.worker_groups import PublishedGroups, WorkerGroup

ROWS = [("v1", "p1", "train"), ("v2", "p1", "val")]
SHAPE = {"coils": 4, "height": 24, "width": 20, "padding_left": 0, "padding_right": 20}
TABLE = pa.Table.from_pylist(
    [{"dataset": "d", "volume": volume, "patient": patient, "split": split, "kind": "packed", **SHAPE} for volume, patient, split in ROWS]
)


@pytest.mark.parametrize("patients", [["p1"], []])
def test_leaks_of_a_given_split_are_warned_of_once_and_only_where_there_are_some(caplog, patients):
    catalog = Catalog(TABLE, f"root-{len(patients)}", 1, {"leaks": {"patients": patients}})
    with caplog.at_level(logging.WARNING):
        for fraction in (0.5, 1.0):
            check_selection(catalog, LinesData(catalog="root", fraction=fraction))
    assert [record.message.count("leaks 1 patients (1 in train and val)") for record in caplog.records] == [1] * len(patients)


DATA = WorkerGroup(name="data", cpus=15, gpus=0, memory=2**30, min=0, max=20)
A10G = WorkerGroup(name="a10g", cpus=15, gpus=1, memory=2**30, min=0, max=4)
H100 = WorkerGroup(name="h100", cpus=180, gpus=8, memory=2**30, min=0, max=2)
CPUS_UP = [Node(cpus=15, group="data")] * 3


def grown(*groups, nodes=()):
    return capacity_of([Node(), *nodes], PublishedGroups(groups=groups, node_timeout_s=1800))


@pytest.mark.parametrize(
    ("room", "settings", "device"),
    [
        (Capacity(nodes=(Node(cpus=4),)), {}, "cpu"),
        (Capacity(nodes=(Node(cpus=4, gpus=2),)), {"workers": 2}, "cuda"),
        (Capacity(nodes=(Node(cpus=4, gpus=2),)), {"workers": 4, "device": "cpu"}, "cpu"),
        (grown(DATA), {"workers": 300}, "cpu"),
        (grown(DATA, A10G), {"workers": 4}, "cuda"),
        (grown(DATA, A10G, nodes=CPUS_UP), {}, "cuda"),
        (grown(DATA, A10G, nodes=CPUS_UP), {"device": "cpu"}, "cpu"),
        (grown(DATA, H100), {"workers": 16, "cpus_per_worker": 22.5}, "cuda"),
    ],
)
def test_auto_is_a_gpu_wherever_one_is_or_may_come(monkeypatch, room, settings, device):
    monkeypatch.setattr(checks, "capacity", lambda: room)
    assert choose_device(Experiment(batch_size=512, **settings)) == device


@pytest.mark.parametrize(
    ("room", "settings", "said"),
    [
        (Capacity(nodes=(Node(cpus=4),)), {"workers": 5}, "more than the 4 that fit: the cluster has 4 CPUs and 0 GPUs. Set workers=4, or"),
        (
            Capacity(nodes=(Node(cpus=8, gpus=2),)),
            {"workers": 4},
            "workers=4 of 1 CPU and 1 GPU each: are more than the 2 that fit.*Set workers=2, set device=cpu, or add nodes",
        ),
        (
            Capacity(nodes=(Node(cpus=4),)),
            {"device": "cuda"},
            "more than the 0 that fit.* 0 GPUs. Set device=cpu, or add",
        ),
        (grown(DATA, A10G, nodes=CPUS_UP), {"workers": 5}, "more than the 4 that fit: the cluster has 45 CPUs.*4 of a10g.*device=cpu"),
        (grown(DATA, A10G), {"cpus_per_worker": 16}, "more than the 0 that fit.*Lower cpus_per_worker, or add nodes"),
        (grown(H100), {"workers": 16, "cpus_per_worker": 23}, "more than the 14 that fit.*Set workers=14"),
    ],
)
def test_what_the_largest_size_of_a_cluster_cannot_hold_is_refused_with_the_numbers(monkeypatch, room, settings, said):
    monkeypatch.setattr(checks, "capacity", lambda: room)
    with pytest.raises(ResourceError, match=said):
        choose_device(Experiment(batch_size=512, **settings))


def test_a_folder_is_warned_of_where_other_nodes_may_come(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(checks.ray, "nodes", lambda: [{"Alive": True}])
    for room, told in ((grown(DATA), "cluster of 21 nodes"), (Capacity(nodes=(Node(cpus=4),)), "")):
        caplog.clear()
        monkeypatch.setattr(checks, "capacity", lambda room=room: room)
        checks.warn_of_unshared_folder(Experiment(storage=str(tmp_path)))
        assert (told in caplog.text) if told else caplog.text == ""


@pytest.fixture
def begun(tmp_path):
    """Return a run's experiment, its store, and a function that resumes it with settings."""
    store, base = LocalStore(tmp_path), override(Experiment(), ["ema_decay=0.5", "data.catalog=s3://lab/a"])
    meta = CheckpointMeta(name="step-1", position={}, science=science(base), config=to_dict(base), catalog={})
    return lambda *settings: check_resumable(meta, override(base, settings), store)


@pytest.mark.parametrize(
    "setting",
    [
        *("model.activation_checkpointing=true", "model.compile_regularizer=true"),
        *("epochs=99", "data.catalog=s3://lab/moved", "data.trusted=[s3://a]", "workers=2", "storage=elsewhere", "device=cpu"),
        *("log_every=1", "stream.threads=3", "wandb.group=x"),
    ],
)
def test_a_run_goes_on_elsewhere_and_by_other_means(begun, setting):
    begun(setting)


@pytest.mark.parametrize(
    "setting",
    [
        "seed=1",
        "batch_size=8",
        "precision=bf16",
        "ema_decay=0.9",
        "validate_every=2",
        "model.chans=3",
        "data.mask.kind=magic",
        "optim.lr=1",
    ],
)
def test_a_run_is_not_gone_on_with_by_other_science(begun, setting):
    with pytest.raises(CheckpointError, match=rf"made by another experiment: {setting.partition('=')[0]} was .*, now"):
        begun(setting)


def test_what_changes_no_number_is_a_setting_and_no_science():
    assert set(NUMBERLESS) == {"model.activation_checkpointing", "model.compile_regularizer"}
    assert set(NUMBERLESS) <= set(flatten(to_dict(Experiment()))) - set(science(Experiment()))


def test_a_group_of_parameters_that_the_network_lacks_is_told_before_a_worker_starts():
    small = ["model.num_cascades=1", "model.chans=2", "model.pools=1", "model.sens_chans=2", "model.sens_pools=1"]
    before = torch.get_rng_state()
    check_groups(override(Experiment(), [*small, "optim.groups=[{names: [sens_net.*], lr: 0.1}]"]))
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ConfigError, match=r"'sense_net\.\*': matches no parameter"):
        check_groups(override(Experiment(), [*small, "optim.groups=[{names: [sense_net.*], lr: 0.1}]"]))
