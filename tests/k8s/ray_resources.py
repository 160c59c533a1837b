"""How the rules about KubeRay look at its resources: absent and null are the same, and the first container is Ray's."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.k8s.names import DNS_1035_LABEL

__all__ = ["Cluster", "environment", "name_problems", "part", "pod_spec", "ray_container", "version_numbers"]


@dataclass(frozen=True)
class Cluster:
    """The part that a RayCluster and a RayJob share.

    Attributes:
        spec: A RayClusterSpec.
        annotations: Of the RayCluster or the RayJob.
        gates: Feature gates that the operator was given beyond its defaults.
    """

    spec: dict[str, Any]
    annotations: dict[str, str]
    gates: frozenset[str]

    @property
    def head(self) -> dict[str, Any]:
        """The head group."""
        return self.spec.get("headGroupSpec") or {}

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The worker groups."""
        return self.spec.get("workerGroupSpecs") or []

    @property
    def named_groups(self) -> list[tuple[str, dict[str, Any]]]:
        """The head and the worker groups, each with what to call it."""
        return [("headGroupSpec", self.head), *((f"worker group {group.get('groupName')}", group) for group in self.groups)]

    @property
    def autoscales(self) -> bool:
        """Whether KubeRay adds Ray's autoscaler."""
        return bool(self.spec.get("enableInTreeAutoscaling"))

    @property
    def is_v2(self) -> bool:
        """Whether it would be autoscaler v2."""
        return part(self.spec, "autoscalerOptions").get("version") == "v2"

    @property
    def head_env(self) -> dict[str, Any]:
        """The environment of Ray's container in the head."""
        return environment(self.head)

    @property
    def fault_tolerance(self) -> dict[str, Any] | None:
        """The options of GCS fault tolerance, None where there are none."""
        return self.spec.get("gcsFaultToleranceOptions")


def part(holder: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a mapping within a mapping, an empty one where it is absent or null."""
    return holder.get(key) or {}


def pod_spec(group: dict[str, Any]) -> dict[str, Any]:
    """Return the spec of the pods of a group."""
    return part(part(group, "template"), "spec")


def ray_container(group: dict[str, Any]) -> dict[str, Any]:
    """Return the container in which Ray runs, an empty one where there is none."""
    containers = pod_spec(group).get("containers") or [{}]
    return containers[0]


def environment(group: dict[str, Any]) -> dict[str, Any]:
    """Return the environment of Ray's container, None for what is taken from elsewhere."""
    return {entry["name"]: entry.get("value") for entry in ray_container(group).get("env") or []}


def version_numbers(text: Any) -> tuple[int, ...] | None:
    """Return a version's numbers, None where KubeRay could not read it."""
    found = re.match(r"v?(\d+(?:\.\d+)+)", str(text or ""))
    return tuple(map(int, found[1].split("."))) if found else None


def name_problems(document: dict[str, Any], limit: int) -> Iterator[str]:
    """Yield what is wrong with the name of a resource; a template, which the launcher names, has none."""
    name = (document.get("metadata") or {}).get("name")
    if name is None:
        return
    if len(name) > limit:
        yield f"{name!r} has {len(name)} characters, at most {limit} are allowed"
    if not DNS_1035_LABEL.fullmatch(name):
        yield f"{name!r} must start with a letter and have only a-z, 0-9 and '-'"
