"""What the chart publishes of a cluster's worker groups: how large their pods are, and how many there may be.

Ray's autoscaler knows this and tells nobody. So the chart writes it into a file of every pod, which ``ECHOTRAIN_WORKER_GROUPS`` names.
Where that is not set, which is everywhere outside of Kubernetes, nothing is known of nodes that are not there yet.
"""

import json
import os
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echotrain.errors import ConfigError
from echotrain.units import human_bytes

__all__ = [
    "GROUPS_FORMAT",
    "GROUPS_VARIABLE",
    "NODE_TIMEOUT_VARIABLE",
    "PublishedGroups",
    "WorkerGroup",
    "parse_groups",
    "published_groups",
]

GROUPS_FORMAT = 1
GROUPS_VARIABLE = "ECHOTRAIN_WORKER_GROUPS"
NODE_TIMEOUT_VARIABLE = "ECHOTRAIN_NODE_TIMEOUT_S"
_MAX_BYTES = 2**18
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,28}[a-z0-9])?")
# Far beyond any pod and any cluster: what is larger is a mistake, and would overflow somewhere else.
_LARGEST = {"cpus": 2**16, "gpus": 2**10, "memory": 2**60, "min": 2**20, "max": 2**20}
_LONGEST_S = 30 * 86400
_REMEDY = "Ask the operator to install the chart of this echotrain again."


@dataclass(frozen=True, kw_only=True)
class WorkerGroup:
    """A group of worker pods.

    Attributes:
        name: Of the group; Ray labels its nodes with it.
        cpus, gpus, memory: Of a pod; memory in bytes.
        min, max: Pods that always stand, and pods at most.
    """

    name: str
    cpus: int
    gpus: int
    memory: int
    min: int
    max: int

    def __str__(self) -> str:
        gpus = f", {self.gpus} GPU{'s' * (self.gpus != 1)}" if self.gpus else ""
        return f"{self.name} ({self.cpus} CPU{'s' * (self.cpus != 1)}{gpus}, {human_bytes(self.memory)} a pod)"


@dataclass(frozen=True, kw_only=True)
class PublishedGroups:
    """All groups of a cluster.

    Attributes:
        groups: By name.
        node_timeout_s: How long a job waits for a node that does not come; 0 waits for ever.
    """

    groups: tuple[WorkerGroup, ...]
    node_timeout_s: float


def published_groups() -> PublishedGroups | None:
    """Return what this process's environment publishes; None where it publishes nothing.

    Raises:
        ConfigError: What is published cannot be read, or makes no sense.
    """
    path = os.environ.get(GROUPS_VARIABLE, "")
    if not path:
        return None
    place = f"{GROUPS_VARIABLE}={path}"
    try:
        with Path(path).open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(place, f"names a file that cannot be read ({error})", _REMEDY) from error
    published = parse_groups(text, place=place)
    return PublishedGroups(groups=published.groups, node_timeout_s=_node_timeout_s(published.node_timeout_s))


def parse_groups(text: bytes, *, place: str) -> PublishedGroups:
    """Return the groups that a published text describes.

    Args:
        text: JSON: ``{"format": 1, "nodeTimeoutSeconds": 1800, "groups": {NAME: {"cpus", "gpus", "memory", "min", "max"}}}``.
        place: Where it was read, for messages.

    Raises:
        ConfigError: It is anything else.
    """
    if len(text) > _MAX_BYTES:
        raise ConfigError(place, f"has more than {human_bytes(_MAX_BYTES)}, which no chart writes", _REMEDY)
    try:
        values = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ConfigError(place, f"is no JSON ({error})", _REMEDY) from error
    found = values.get("format") if isinstance(values, dict) else None
    if type(found) is not int or found != GROUPS_FORMAT:
        raise ConfigError(f"{place}: format {_short(found)}", f"is not the format {GROUPS_FORMAT} that this echotrain reads", _REMEDY)
    _check_keys(values, ("format", "nodeTimeoutSeconds", "groups"), place)
    timeout_s = _count(values["nodeTimeoutSeconds"], _LONGEST_S, f"{place}: nodeTimeoutSeconds")
    groups = values["groups"]
    if not isinstance(groups, dict):
        raise ConfigError(f"{place}: groups {_short(groups)}", "must map names to groups", _REMEDY)
    return PublishedGroups(groups=tuple(_group(name, group, place) for name, group in groups.items()), node_timeout_s=timeout_s)


def _group(name: str, values: Any, place: str) -> WorkerGroup:
    where = f"{place}: group {_short(name)}"
    if not _NAME.fullmatch(name):
        raise ConfigError(where, "is no name of a group: at most 30 lower-case letters, digits and dashes", _REMEDY)
    if not isinstance(values, dict):
        raise ConfigError(f"{where} {_short(values)}", "must be a map", _REMEDY)
    _check_keys(values, tuple(_LARGEST), where)
    counts = {key: _count(values[key], largest, f"{where}: {key}") for key, largest in _LARGEST.items()}
    if counts["min"] > counts["max"]:
        raise ConfigError(f"{where}: min {counts['min']}", f"is more than max {counts['max']}", _REMEDY)
    return WorkerGroup(name=name, **counts)


def _check_keys(values: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in sorted(set(values) ^ set(known)):
        raise ConfigError(f"{where}: {_short(key)}", "is missing" if key in known else f"is none of {', '.join(known)}", _REMEDY)


def _count(value: Any, largest: int, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
        raise ConfigError(f"{where} {_short(value)}", f"must be a whole number from 0 to {largest}", _REMEDY)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands twice")
    return values


def _short(value: Any) -> str:
    """Return a stranger's value for a message: a hostile one may be long, and deep."""
    return reprlib.repr(value)


def _node_timeout_s(published: float) -> float:
    """Return the time that a job's own environment gives, else the operator's."""
    text = os.environ.get(NODE_TIMEOUT_VARIABLE, "")
    if not text:
        return published
    if not re.fullmatch(r"\d{1,7}", text, re.ASCII) or int(text) > _LONGEST_S:
        limit = f"must be whole seconds, at most {_LONGEST_S}"
        raise ConfigError(f"{NODE_TIMEOUT_VARIABLE}={_short(text)}", limit, "Use, say, 3600; 0 waits for ever.")
    return float(text)
