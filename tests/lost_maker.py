"""A run whose samples are made on two nodes, of which one goes in the midst of an epoch; run as a program, since a process has one cluster.

It prints how many steps were still to be made then, and how long the slowest of them was waited for.
"""

import atexit
import contextlib
import itertools
import logging
import os
import sys
import time
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

from echotrain.orchestration.runtime.cluster import connect
from tests.local_cluster import lines, run, short_experiment


def working(parent: psutil.Process, name: str) -> list[psutil.Process]:
    """Return the processes below another one that say they are at work on something at this moment."""
    found = []
    for child in parent.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # It may have ended since.
            if name in " ".join(child.cmdline()):
                found.append(child)
    return found


def works_on(node: Any, name: str) -> bool:
    """Whether a process of that name is at work on a node at this moment."""
    return bool(working(psutil.Process(node.all_processes["raylet"][0].process.pid), name))


def main(catalog: str, storage: str, *settings: str) -> None:
    """Train with a worker on the head, and makers of samples on two nodes beside it."""
    # As the chart has it.
    os.environ.update({"RAY_health_check_period_ms": "1000"})
    cluster = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [cluster.head_node, *(cluster.add_node(num_cpus=1) for _ in range(2))]
    atexit.register(cluster.shutdown)
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    connect()
    seen: list[float] = []
    gone: list[float] = []

    def watch(record: dict[str, object]) -> None:
        if record["kind"] != "train":
            return
        seen.append(time.monotonic())
        if int(str(record["global_step"])) >= 3 and not gone:
            # Neither the head nor the one that trains, at a moment when it makes samples.
            victims = [node for node in nodes[1:] if not works_on(node, "RayTrainWorker")]
            while not gone:
                for node in victims:
                    if not gone and works_on(node, "make_samples"):
                        gone.append(time.monotonic())
                        cluster.remove_node(node, allow_graceful=False)

    result = run(short_experiment(catalog, storage), "workers=1", "stream.where=cluster", *settings, on_record=watch)
    waits = [later - before for before, later in itertools.pairwise(seen) if later > gone[0]]
    waited = [record["data_wait_s"] for record in lines(result) if record["kind"] == "train"][3:]
    print(
        f"steps: {result.global_step}, waited for after the loss: {sum(each > 0.01 for each in waited)}, longest: {max(waits):.1f} s",
        flush=True,
    )
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
