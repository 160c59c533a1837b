"""A run whose only worker node goes in the midst of it, and another comes; run as a program, since a process has one cluster.

It trains into the folder it is given and prints what is told of the wait. The node that comes does so when it is waited for.
"""

import atexit
import logging
import sys
import threading

import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from echotrain.config import override
from echotrain.orchestration.runtime.driver import FitResult, fit
from echotrain.recipes.registry import RECIPES
from echotrain.training.sinks import Record

__all__: list[str] = []


def main(storage: str, *settings: str) -> None:
    """Train; remove the node at the third step, and add one at the first word of a wait after that."""
    cluster = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 0, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    atexit.register(cluster.shutdown)
    ray.init(address=cluster.address, logging_level=logging.ERROR)
    trained, waited, ended = threading.Event(), threading.Event(), threading.Event()
    results: list[FitResult] = []

    def hear(record: Record) -> None:
        if record["kind"] == "start":
            print("starts at", record["global_step"], flush=True)
        if record["kind"] == "train" and record["global_step"] >= 3:
            trained.set()
        if record["kind"] == "waiting":
            print("told:", record["text"], flush=True)
            waited.set()

    def train() -> None:
        experiment = override(RECIPES["varnet_mosaic_x4_debug"](), [f"storage={storage}", *settings])
        try:
            results.append(fit(experiment, console=Console(quiet=True), on_record=hear))
        finally:
            ended.set()

    # Ray makes nodes in the main thread alone.
    threading.Thread(target=train, daemon=True).start()
    trained.wait(180)
    cluster.remove_node(node, allow_graceful=False)
    print("waited:", waited.wait(120), flush=True)
    cluster.add_node(num_cpus=1)
    ended.wait(120)
    print("finished:", [result.global_step for result in results if result.is_finished], flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
