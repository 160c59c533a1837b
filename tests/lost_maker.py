"""A run whose samples are made on two nodes, of which one goes in the midst of an epoch; run as a program, since a process has one cluster.

It prints by how much the slowest step after that was waited for.
"""

import atexit
import itertools
import logging
import os
import sys
import time

import ray
from ray.cluster_utils import Cluster

from echotrain.orchestration.runtime.cluster import connect
from tests.local_cluster import run, short_experiment


def main(catalog: str, storage: str, *settings: str) -> None:
    """Train with a worker on the head, and makers of samples on two nodes beside it."""
    # As the chart has it.
    os.environ.update({"RAY_health_check_period_ms": "1000"})
    cluster = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
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
            gone.append(time.monotonic())
            cluster.remove_node(nodes[0], allow_graceful=False)

    result = run(short_experiment(catalog, storage), "workers=1", "stream.where=cluster", *settings, on_record=watch)
    waits = [later - before for before, later in itertools.pairwise(seen) if later > gone[0]]
    print(f"steps: {result.global_step}, longest wait: {max(waits):.1f} s", flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
