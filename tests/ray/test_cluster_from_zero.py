"""A standing cluster of no workers, which Ray's autoscaler v2 lets grow: what trains there, what waits, and what is refused."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from echotrain.data.catalog.store import load_catalog
from echotrain.data.simulation.scans import SimulationConfig, simulate
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import find_checkpoint
from tests.autoscaled import AutoscaledCluster, autoscaled_cluster, publish

pytestmark = [pytest.mark.ray, pytest.mark.slow]

GROUPS = {"data": {"CPU": 1, "max": 2}, "h100": {"CPU": 1, "GPU": 1, "max": 1}}
# Of a group that its operator has published and that the autoscaler cannot make.
NEVER = {**GROUPS, "a100": {"CPU": 8, "GPU": 8, "max": 1}}
WAITING = "waiting for nodes: 1 worker of {}, and those that are up hold 0"
# A driver that has a CPU worker beside it before it trains, and tells what it came to and which nodes were up before and meanwhile: one
# without work leaves after 12 s, which may be before the run has ended.
BESIDE_A_CPU = """
import sys
import threading
import ray
from ray.util.placement_group import placement_group
from echotrain.orchestration.runtime.cluster import connect
from ray_jobs import train
connect()
assert placement_group([{"CPU": 1}]).wait(60)
def told():
    return {kind: sum(node["Alive"] and node["Resources"].get(kind, 0) > 0 for node in ray.nodes()) for kind in ("CPU", "GPU")}
before, seen, is_over = told(), [], threading.Event()
def look():
    while not is_over.wait(0.2):
        seen.append(told()["GPU"])
looking = threading.Thread(target=look)
looking.start()
code = train.main(sys.argv[1:])
is_over.set()
looking.join()
print("there was a CPU node:", before["CPU"] > 0, "GPU nodes:", before["GPU"], "then:", max(seen))
sys.exit(code)
"""

# A driver that prepares once the workers of whoever came before have left, which they do after 12 idle seconds.
FROM_ZERO = """
import sys
import time
import ray
from echotrain.orchestration.runtime.cluster import connect
from ray_jobs import prepare
connect()
deadline = time.monotonic() + 90
while sum(node["Alive"] for node in ray.nodes()) > 1:
    if time.monotonic() > deadline:
        sys.exit("workers without work have not left")
    time.sleep(0.5)
sys.exit(prepare.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[AutoscaledCluster]:
    """Start a head alone, with a group of CPUs and one of declared GPUs."""
    with autoscaled_cluster(GROUPS) as made:
        yield made


def settings(catalog_uri: str, storage: Path, *more: str) -> list[str]:
    recipe = ["varnet_mosaic_x4_debug", f"data.catalog={catalog_uri}", f"storage={storage}"]
    return [*recipe, "batch_size=4", "epochs=1", *more]


def test_two_workers_train_on_a_cluster_that_has_none_yet(cluster, catalog_uri, tmp_path):
    env = publish(tmp_path / "groups.json", GROUPS)
    code, said = cluster.run("-m", "ray_jobs.train", *settings(catalog_uri, tmp_path, "workers=2", "device=cpu", "name=two"), **env)
    assert code == 0, said
    assert "waiting for nodes: 2 workers of 1 CPU, and those that are up hold" in said
    assert "2 worker(s) on cpu" in said
    meta = find_checkpoint(open_store(str(tmp_path / "two")))
    assert meta is not None
    assert meta.position["epoch"] == 1


def test_beside_cpu_workers_auto_asks_for_the_gpus_that_may_come(cluster, catalog_uri, tmp_path):
    """The GPU is declared, so that the run ends where a worker looks for CUDA's."""
    env = publish(tmp_path / "groups.json", GROUPS)
    code, said = cluster.run("-c", BESIDE_A_CPU, *settings(catalog_uri, tmp_path, "device=auto"), **env)
    assert WAITING.format("1 CPU and 1 GPU") in said
    assert "there was a CPU node: True GPU nodes: 0 then: 1" in said, said
    assert code == 2
    assert "on cpu" not in said
    assert find_checkpoint(open_store(str(tmp_path / "varnet_mosaic_x4_debug"))) is None


def test_more_than_may_ever_come_is_refused_at_once_with_the_numbers(cluster, catalog_uri, tmp_path):
    env = publish(tmp_path / "groups.json", GROUPS)
    code, said = cluster.run("-m", "ray_jobs.train", *settings(catalog_uri, tmp_path, "workers=4", "device=cpu"), **env)
    assert code == 2
    assert "workers=4 of 1 CPU each: are more than the 3 that fit" in said
    assert "Set workers=3, or add nodes." in said
    assert "waiting" not in said


def test_nodes_that_never_come_end_the_run_with_the_remedy(cluster, catalog_uri, tmp_path):
    env = publish(tmp_path / "groups.json", NEVER, node_timeout_s=3)
    asked = settings(catalog_uri, tmp_path, "cpus_per_worker=4", "device=cuda")
    code, said = cluster.run("-m", "ray_jobs.train", *asked, **env)
    assert code == 2
    assert WAITING.format("4 CPUs and 1 GPU") in said
    assert "error: 1 worker of 4 CPUs and 1 GPU: wait for nodes, and none has come for 3 s" in said
    assert "set ECHOTRAIN_NODE_TIMEOUT_S to wait longer" in said
    assert "Traceback" not in said


def test_a_run_that_waits_for_nodes_is_stopped_like_any_other(cluster, catalog_uri, tmp_path):
    env = publish(tmp_path / "groups.json", NEVER)
    asked = settings(catalog_uri, tmp_path, "cpus_per_worker=4", "device=cuda")
    with cluster.start("-m", "ray_jobs.train", *asked, **env) as driver:
        assert driver.stdout is not None
        for line in driver.stdout:
            if WAITING.format("4 CPUs and 1 GPU") in line:
                driver.send_signal(signal.SIGTERM)
                break
        rest = driver.stdout.read()
    assert driver.returncode == 3, rest
    assert "stopped at step 0" in rest
    assert "Traceback" not in rest


def test_workers_leave_after_their_run_and_scans_are_prepared_by_others_that_come_for_it(cluster, tmp_path):
    env = publish(tmp_path / "groups.json", {"data": GROUPS["data"]})
    simulate(SimulationConfig(num_patients=2, volumes_per_patient=1, num_slices=2, matrix=32), tmp_path / "scans")
    code, said = cluster.run("-c", FROM_ZERO, str(tmp_path / "scans"), "--to", str(tmp_path / "prepared"), **env)
    assert code == 0, said
    assert WAITING.format("1 CPU") in said
    assert load_catalog(str(tmp_path / "prepared")).table.num_rows == 4
