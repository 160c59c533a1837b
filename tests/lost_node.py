"""A cluster whose only worker node goes in the midst of work, and one that comes later; run as a program, since a process has one cluster.

It prints what is told, the items that were done, and the GPUs that an actor finds reserved.
"""

import atexit
import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from echotrain.log import setup_logging
from echotrain.orchestration.runtime.cluster import connect, reserved_gpus
from echotrain.orchestration.runtime.mapping import Result, map_items

__all__ = ["Slow"]


class Slow:
    """Says that an item is begun, and takes for ever over the very first one, until its node goes."""

    def __init__(self, folder: str) -> None:
        self._begun = Path(folder) / "begun"

    def __call__(self, item: dict[str, int]) -> Result:
        if not self._begun.exists():
            self._begun.touch()
            time.sleep(600)
        return Result({"item": item["item"], "gpus": reserved_gpus()})


class _Heard(logging.Handler):
    """Calls back at the first line of a wait."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act: Callable[[], object] | None = act

    def emit(self, record: logging.LogRecord) -> None:
        if "waiting for nodes" in record.getMessage() and self._act is not None:
            act, self._act = self._act, None
            act()


def main(folder: str) -> None:
    """Map some items over workers of one GPU; the node that has it goes at the first, and comes when it is waited for."""
    cluster = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 0, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1, num_gpus=1)
    atexit.register(cluster.shutdown)
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    connect()
    setup_logging()
    came, done = threading.Event(), []
    logging.getLogger("echotrain").addHandler(_Heard(came.set))

    def do() -> None:
        mapped = map_items([{"item": n} for n in range(3)], Slow, folder, concurrency=1, num_cpus=0, num_gpus=1)
        done.extend(result.values for result in mapped)

    # Ray makes nodes in the main thread alone.
    mapping = threading.Thread(target=do, daemon=True)
    mapping.start()
    while not Path(folder, "begun").exists():
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)
    print("told:", came.wait(60), flush=True)
    cluster.add_node(num_cpus=1, num_gpus=1)
    mapping.join(60)
    print("done:", sorted(values["item"] for values in done), "GPUs:", {values["gpus"] for values in done}, flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
