"""A Ray cluster that grows from a head alone, on this machine: Ray's autoscaler v2 over its fake nodes.

Ray's own ``AutoscalingCluster`` does the same, but ends by ``ray stop``, which ends every cluster of the machine.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from echotrain.storage.embedded import free_ports

__all__ = ["AutoscaledCluster", "autoscaled_cluster", "publish"]

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
_HEAD = "ray.head.default"
_STARTED = "Ray runtime started"


@dataclass(frozen=True)
class AutoscaledCluster:
    """A head without CPUs, and an autoscaler that knows of groups.

    Attributes:
        env: Of whoever joins it.
        log: What the head prints.
    """

    env: dict[str, str]
    log: Path

    def start(self, *command: str, **env: str) -> "subprocess.Popen[str]":
        """Start a driver beside the head."""
        return subprocess.Popen(
            [sys.executable, *command],
            env={**self.env, **env},
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *command: str, timeout: float = 240, **env: str) -> tuple[int, str]:
        """Run a driver to its end; return its exit code and all that it printed."""
        with self.start(*command, **env) as driver:
            try:
                said, _ = driver.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                driver.kill()
                said, _ = driver.communicate()
                raise AssertionError(f"{command} did not end; it said:\n{said}") from None
        return driver.returncode, said


def publish(path: Path, groups: Mapping[str, Mapping[str, int]], *, node_timeout_s: int = 240) -> dict[str, str]:
    """Write what the chart would publish of these groups; return the environment that names it."""
    described = {
        name: {"cpus": group.get("CPU", 0), "gpus": group.get("GPU", 0), "memory": 2**30, "min": 0, "max": group["max"]}
        for name, group in groups.items()
    }
    path.write_text(json.dumps({"format": 1, "nodeTimeoutSeconds": node_timeout_s, "groups": described}))
    return {"ECHOTRAIN_WORKER_GROUPS": str(path)}


@contextlib.contextmanager
def autoscaled_cluster(groups: Mapping[str, Mapping[str, int]]) -> Iterator[AutoscaledCluster]:
    """Yield a cluster of a head alone.

    Args:
        groups: By name, the ``CPU`` and ``GPU`` of a node, and ``max``, its nodes at most. There is no device behind a GPU.
    """
    # A folder of its own, with a short name for its sockets: else every ``ray.init`` of this machine would find and join this cluster.
    session = Path(tempfile.mkdtemp(prefix="ray-"))
    port, client, metrics, agent = free_ports(4)
    address = f"127.0.0.1:{port}"
    (session / "autoscaling.json").write_text(json.dumps(_autoscaling(groups, address)))
    env = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'library'}{os.pathsep}{ROOT}",
        "RAY_ADDRESS": address,
        "RAY_AUTH_MODE": "disabled",
        "RAY_SCHEDULER_EVENTS": "0",  # As the chart has it.
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    of_head = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={session}"]
    command += [f"--port={port}", f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"]
    command += [f"--dashboard-agent-listen-port={agent}", "--object-store-memory=200000000"]
    command += [f"--autoscaling-config={session / 'autoscaling.json'}"]
    log = session / "head.log"
    with log.open("w") as printed:
        head = subprocess.Popen(command, env={**env, **of_head}, cwd=ROOT, stdout=printed, stderr=printed, start_new_session=True)
    try:
        _await_start(head, log)
        yield AutoscaledCluster(env, log)
    finally:
        _end(head, session)


def _autoscaling(groups: Mapping[str, Mapping[str, int]], address: str) -> dict[str, object]:
    steps = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    types = {
        name: {
            "resources": {**{kind: group[kind] for kind in ("CPU", "GPU") if kind in group}, "object_store_memory": 150 * 2**20},
            "node_config": {},
            "min_workers": 0,
            "max_workers": group["max"],
        }
        for name, group in groups.items()
    }
    return {
        "cluster_name": "from-zero",
        "max_workers": 8,
        "idle_timeout_minutes": 0.2,
        "upscaling_speed": 1000,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": address,
        },
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{step}_commands": [] for step in steps},
        "head_node_type": _HEAD,
        "available_node_types": {_HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}, **types},
    }


def _await_start(head: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and head.poll() is None:
        if _STARTED in log.read_text():
            return
        time.sleep(0.2)
    raise AssertionError(f"the cluster did not start: {log.read_text()[-2000:]}")


def _end(head: "subprocess.Popen[bytes]", session: Path) -> None:
    """End the head, and whatever of its cluster outlives it: fake nodes are no children of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(head.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        head.wait(timeout=3)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(session).encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
    head.wait()
    shutil.rmtree(session, ignore_errors=True)
