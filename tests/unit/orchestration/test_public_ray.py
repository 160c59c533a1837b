"""What is taken from Ray: public names alone, but for one file. Each of its names is tested here, so that an upgrade says which is gone."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray.train
from ray.core.generated.autoscaler_pb2 import ClusterConfig
from ray.train.torch import TorchTrainer

from echotrain.orchestration.runtime import private_ray, signals, trainer
from echotrain.orchestration.runtime.signals import WorkerSignals, catch_sigterm, watch_preemption
from echotrain.training.outcome import Signal

ROOT = Path(__file__).resolve().parents[3]
PRIVATE = ROOT / "library/echotrain/orchestration/runtime/private_ray.py"
# Of Ray, without an underscore and documented nowhere.
INSIDE = ("ray.core", "ray.experimental", "ray.train.v2", "ray.tune.execution", "ray.tune.impl")


def private_names(source):
    """Return the names of Ray's inside in a module: imported, or written as attributes."""
    tree, dotted = ast.parse(source), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            dotted += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            dotted += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            dotted.append(ast.unparse(node))
    return sorted(
        name
        for name in dotted
        if name.startswith("ray.") and (name.startswith(INSIDE) or any(part.startswith("_") for part in name.split(".")))
    )


def test_no_other_file_takes_a_name_of_rays_inside():
    files = {*(ROOT / "library").rglob("*.py"), *(ROOT / "ray_jobs").rglob("*.py")} - {PRIVATE}
    assert len(files) > 300
    found = {str(path): private_names(path.read_text()) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "from ray._private.state import state",
        "import ray._raylet",
        "from ray.experimental.internal_kv import _internal_kv_get",
        "from ray.train.v2.api.exceptions import ControllerError",
        "from ray.data import _internal",
        "import ray; ray._private.worker.global_worker",
    ],
)
def test_a_name_of_rays_inside_is_known_for_one(line):
    assert private_names(line)


@pytest.mark.parametrize(("module", "unneeded"), [("notes", ("ray.train", "torch")), ("mapping", ("ray.train", "torch"))])
def test_a_process_that_does_not_train_imports_nothing_that_trains(module, unneeded):
    code = f"import sys, echotrain.orchestration.runtime.{module}; found = set(sys.argv[1:]) & set(sys.modules); assert not found, found"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, *unneeded], check=True, env=environment)


def test_the_autoscalers_limits_are_where_they_were(monkeypatch):
    """``state.get_cluster_config``, and the fields of what it returns."""
    told = ClusterConfig(max_resources={"CPU": 4})
    told.node_group_configs.add(name="data", resources={"CPU": 2}, min_count=0, max_count=2)
    monkeypatch.setattr(type(private_ray.state), "get_cluster_config", lambda self: told)
    assert private_ray.cluster_config() is told


def test_the_watch_over_placement_groups_and_the_dealing_of_datasets_are_left_out_and_nothing_else():
    """``TorchTrainer._create_default_callbacks``, ``PlacementGroupCleanerCallback`` and ``DatasetsCallback``."""
    whole, left = (
        [type(each).__name__ for each in kind(print)._create_default_callbacks()] for kind in (TorchTrainer, trainer._TrainerWithoutHelpers)
    )
    unneeded = {"DatasetsCallback", "PlacementGroupCleanerCallback"}
    assert unneeded < set(whole)
    assert left == [name for name in whole if name not in unneeded]


class Group:
    """What Ray gives a backend to set up, as far as the first thing that is done to it."""

    def __init__(self):
        self.done = []

    def execute(self, function, **arguments):
        self.done.append(function)

    def execute_single(self, rank, function):
        raise InterruptedError


def test_every_worker_catches_sigterm_before_its_process_group_is_made():
    group, config = Group(), trainer.TorchWithSigterm(backend="gloo")
    with pytest.raises(InterruptedError):
        config.backend_cls().on_start(group, config)
    assert group.done == [catch_sigterm]


@pytest.fixture
def as_worker(monkeypatch):
    """Undo what a worker's signals leave in a process."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.delenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", raising=False)
    yield
    signal.signal(signal.SIGTERM, before)
    signals._terminated.clear()
    signals._preempted.clear()


def test_a_worker_that_is_asked_to_end_leaves(as_worker):
    catch_sigterm()
    asked = WorkerSignals(None)
    assert asked() == Signal.NONE
    signal.raise_signal(signal.SIGTERM)
    assert asked() == Signal.LEAVE


def watched(monkeypatch, *answers):
    """Watch for a preemption of which Ray says this; return how often it was asked, once it is asked no more."""
    left, asked = list(answers), []

    def get_preemption_info():
        asked.append(None)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ray.train, "get_preemption_info", get_preemption_info)
    watch_preemption(period_s=0.01)
    for thread in signals.threading.enumerate():
        if thread.name == "preemption":
            thread.join(10)
    return len(asked)


def test_a_node_that_is_about_to_go_asks_for_a_checkpoint(as_worker, monkeypatch):
    info = ray.train.PreemptionInfo(deadline_ms=None, preempted_node_to_ranks={"node": [1]})
    assert watched(monkeypatch, None, None, info) == 3
    assert WorkerSignals(None)() == Signal.SAVE


def test_a_group_that_ends_is_no_preemption(as_worker, monkeypatch):
    assert watched(monkeypatch, None, ray.exceptions.RayActorError()) == 2
    assert WorkerSignals(None)() == Signal.NONE


def test_where_ray_does_not_watch_nobody_asks(as_worker, monkeypatch):
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    assert watched(monkeypatch) == 0
