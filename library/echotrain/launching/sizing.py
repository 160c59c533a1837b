"""How many pods, and of which group, a job needs."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from echotrain.errors import LaunchError
from echotrain.launching.platform import GroupSize

__all__ = ["Need", "choose_group", "num_pods"]


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a job computes with.

    Attributes:
        workers: Processes at a time; 0 for as many as fit the pods.
        cpus_per_worker: CPUs that each reserves.
        device: ``gpu`` takes a GPU per worker where the group has any, ``cuda`` must have one, ``cpu`` leaves them idle, and ``none`` is
            done by the driver, on the head.
    """

    workers: int = 0
    cpus_per_worker: float = 1.0
    device: Literal["gpu", "cuda", "cpu", "none"] = "gpu"


def choose_group(groups: Mapping[str, GroupSize], need: Need, asked: str = "") -> str:
    """Return the group that a job runs on; "" where the head is enough.

    Raises:
        LaunchError: The group asked for does not exist or has no GPU, or several would do and none was asked for.
    """
    if asked:
        if asked not in groups:
            raise LaunchError(f"--group {asked}", "is not offered", f"Choose one of {_listed(groups, groups)}.")
        if need.device == "cuda" and not groups[asked].gpus:
            raise LaunchError(f"--group {asked}", "has no GPU, and device=cuda asks for one", "Choose another group, or set device=auto.")
        return asked
    if need.device == "none":
        return ""
    with_gpu = [name for name, size in groups.items() if size.gpus]
    fitting = [name for name in groups if (name in with_gpu) == (need.device != "cpu")] or list(groups)
    if need.device == "cuda" and not with_gpu:
        raise LaunchError("device=cuda", f"has no GPU in {_listed(groups, groups)}", "Set device=auto, or ask the operator for GPUs.")
    if not fitting:
        raise LaunchError("a worker group", "is not offered by the template at all", "Ask the operator to add one to the chart's values.")
    if len(fitting) > 1:
        raise LaunchError("no --group", f"leaves several that fit: {_listed(groups, fitting)}", f"Say, for example, --group {fitting[0]}.")
    return fitting[0]


def num_pods(name: str, size: GroupSize, need: Need, asked: int | None = None) -> int:
    """Return the number of pods; ``asked`` is that of ``--nodes``.

    Raises:
        LaunchError: A pod cannot hold a worker, too many pods are needed, or those asked for are too few.
    """
    per_pod = _workers_per_pod(size, need)
    if per_pod == 0:
        limit = f"does not fit a pod of group {name} ({size})"
        raise LaunchError(f"a worker with {need.cpus_per_worker:g} CPUs", limit, "Lower cpus_per_worker, or choose another --group.")
    needed = max(1, math.ceil(need.workers / per_pod))
    if asked is not None and not 1 <= asked <= size.max:
        raise LaunchError(f"--nodes {asked}", f"must be 1 to {size.max} in group {name}", "Choose another number, or another --group.")
    if asked is not None and asked < needed and need.device != "none":
        raise LaunchError(
            f"--nodes {asked}", f"hold {asked * per_pod} workers ({size}), and {need.workers} are asked for", f"Use --nodes {needed}."
        )
    if asked is None and needed > size.max:
        raise LaunchError(
            f"{need.workers} workers",
            f"need {needed} pods of group {name} ({size})",
            f"Use at most {size.max * per_pod} at a time.",
        )
    return needed if asked is None else asked


def _workers_per_pod(size: GroupSize, need: Need) -> int:
    by_cpus = math.floor(size.cpus / need.cpus_per_worker + 1e-9)
    return min(by_cpus, size.gpus) if size.gpus and need.device in ("gpu", "cuda") else by_cpus


def _listed(groups: Mapping[str, GroupSize], names: Iterable[str]) -> str:
    return "; ".join(f"{name} ({groups[name]})" for name in names) or "none"
