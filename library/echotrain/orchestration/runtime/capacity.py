"""How many workers a cluster can hold: on the nodes that are up, and on those that may come."""

import collections
import math
from collections.abc import Sequence
from dataclasses import dataclass

import ray

from echotrain.orchestration.runtime.private_ray import cluster_config
from echotrain.worker_groups import PublishedGroups, WorkerGroup, published_groups

__all__ = ["GROUP_LABEL", "Capacity", "Node", "Shape", "capacity", "capacity_of", "nodes_up"]

# Ray's label of a node; KubeRay says the group in the pod's environment.
GROUP_LABEL = "ray.io/node-group"
_ROUNDING = 1e-9
# Nodes of a group that may grow for ever.
_NO_LIMIT = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What one worker reserves.

    Attributes:
        cpus, gpus: Not both 0.
    """

    cpus: float = 0.0
    gpus: float = 0.0

    def __str__(self) -> str:
        parts = [_counted(amount, kind) for amount, kind in ((self.cpus, "CPU"), (self.gpus, "GPU")) if amount]
        return " and ".join(parts)

    def bundle(self) -> dict[str, float]:
        """Return it as Ray writes it."""
        return {kind: amount for kind, amount in (("CPU", self.cpus), ("GPU", self.gpus)) if amount}


@dataclass(frozen=True, kw_only=True)
class Node:
    """What one node offers.

    Attributes:
        cpus, gpus: Used or not.
        group: Of the chart; "" where Ray knows of none.
    """

    cpus: float = 0.0
    gpus: float = 0.0
    group: str = ""

    def holds(self, shape: Shape) -> int:
        """Return how many workers of a shape fit it when it is empty."""
        shares = [has / wants for has, wants in ((self.cpus, shape.cpus), (self.gpus, shape.gpus)) if wants]
        return math.floor(min(shares) + _ROUNDING)


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What a cluster has, and what it can grow by.

    Attributes:
        nodes: That are up.
        coming: Groups, and how many pods each may still add.
    """

    nodes: tuple[Node, ...]
    coming: tuple[tuple[WorkerGroup, int], ...] = ()

    @property
    def gpus(self) -> float:
        """All of them, those that may come included."""
        return sum(node.gpus for node in self.nodes) + sum(group.gpus * count for group, count in self.coming)

    @property
    def num_nodes(self) -> int:
        """All of them, those that may come included."""
        return len(self.nodes) + sum(count for _, count in self.coming)

    def of(self, group: str) -> "Capacity":
        """Return what one group has; all of it where that is ""."""
        if not group:
            return self
        nodes = tuple(node for node in self.nodes if node.group == group)
        return Capacity(nodes=nodes, coming=tuple(each for each in self.coming if each[0].name == group))

    def kinds(self) -> list[tuple[Node, int]]:
        """Return the kinds of nodes and how many there are of each, those that may come included."""
        counts = collections.Counter(self.nodes)
        for group, count in self.coming:
            counts[_pod(group)] += count
        return [(node, count) for node, count in counts.items() if count]

    def workers(self, shape: Shape) -> int:
        """Return how many workers of a shape fit once every node that may come is there."""
        return self.workers_now(shape) + sum(count * _pod(group).holds(shape) for group, count in self.coming)

    def workers_now(self, shape: Shape) -> int:
        """Return how many fit the nodes that are up, whoever uses them."""
        return sum(node.holds(shape) for node in self.nodes)

    def __str__(self) -> str:
        cpus, gpus = sum(node.cpus for node in self.nodes), sum(node.gpus for node in self.nodes)
        grows = ", ".join(f"{count} of {group}" for group, count in self.coming if count)
        has = f"the cluster has {_counted(cpus, 'CPU')} and {_counted(gpus, 'GPU')}"
        return f"{has}, and may grow by {grows}" if grows else has


def capacity() -> Capacity:
    """Return that of the cluster that this process is connected to: of the chart's groups, or of those that Ray's autoscaler tells of.

    Raises:
        ConfigError: What is published of its groups cannot be read.
    """
    return capacity_of(nodes_up(), published_groups() or PublishedGroups(groups=_told_by_ray(), node_timeout_s=0))


def capacity_of(nodes: Sequence[Node], published: PublishedGroups) -> Capacity:
    """Return that of these nodes and of what each group may still add.

    A node that says no group which is published counts as one of a group with pods of its size.
    """
    names = {group.name for group in published.groups}
    known = collections.Counter(node.group for node in nodes if node.group in names)
    strangers = collections.Counter((node.cpus, node.gpus) for node in nodes if node.group not in names)
    coming = []
    for group in published.groups:
        room = max(0, group.max - known[group.name])
        alike = min(room, strangers[group.cpus, group.gpus])
        strangers[group.cpus, group.gpus] -= alike
        coming.append((group, room - alike))
    return Capacity(nodes=tuple(nodes), coming=tuple(coming))


def nodes_up() -> tuple[Node, ...]:
    """Return the nodes that Ray knows of and believes alive."""
    return tuple(
        Node(
            cpus=float(node["Resources"].get("CPU", 0)),
            gpus=float(node["Resources"].get("GPU", 0)),
            group=(node.get("Labels") or {}).get(GROUP_LABEL, ""),
        )
        for node in ray.nodes()
        if node["Alive"]
    )


def _told_by_ray() -> tuple[WorkerGroup, ...]:
    """Return the groups that an autoscaler has left word of in the cluster; most leave none."""
    config = cluster_config()
    if config is None:
        return ()
    limits, found = dict(config.max_resources), []
    for group in config.node_group_configs:
        has = dict(group.resources)
        # Without a limit of its own, -1, a group has that of the cluster, if it has one.
        counts = [group.max_count if group.max_count >= 0 else _NO_LIMIT, *(limits[kind] // has[kind] for kind in limits if has.get(kind))]
        sizes = {"cpus": has.get("CPU", 0), "gpus": has.get("GPU", 0), "memory": has.get("memory", 0)}
        found.append(WorkerGroup(name=group.name, **sizes, min=group.min_count, max=min(counts)))
    return tuple(found)


def _pod(group: WorkerGroup) -> Node:
    return Node(cpus=group.cpus, gpus=group.gpus, group=group.name)


def _counted(amount: float, kind: str) -> str:
    return f"{amount:g} {kind}{'s' * (amount != 1)}"
