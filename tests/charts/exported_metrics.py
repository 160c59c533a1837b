"""The metrics that exist, and their labels: ours, those of the installed Ray, and those of optional neighbours."""

import functools
import re
from pathlib import Path

import ray
from ray.autoscaler._private.prom_metrics import AutoscalerPrometheusMetrics

from echotrain.orchestration.runtime.prometheus import COUNTERS, GAUGES

__all__ = ["OPTIONAL", "TARGET_LABELS", "labels_of"]

# From the PodMonitor.
TARGET_LABELS = {"namespace", "pod", "instance", "ray_io_cluster", "ray_io_node_type", "ray_io_group"}

# Not everybody scrapes these, so panels and alerts on them must say what they need.
OPTIONAL = {
    "kube_pod_status_phase": {"namespace", "pod", "phase"},
    "kube_pod_container_status_restarts_total": {"namespace", "pod", "container"},
    "kuberay_job_deployment_status": {"namespace", "name", "uid", "deployment_status"},
}

# The labels of what Ray's C++ exports are not to be read from the package; tests/ray holds them against a scrape.
_NATIVE_LABELS = {
    "ray_resources": {"Name", "State"},
    "ray_object_store_memory": {"Location"},
    "ray_memory_manager_worker_eviction_total": {"Name", "Type"},
    "ray_node_manager_unexpected_worker_failure_total": {"Name", "Type"},
}

_RAY = Path(ray.__file__).parent


def labels_of(metric: str) -> set[str] | None:
    """Return the labels that a metric has, besides those of its target; None where nothing exports it."""
    known = {**_ours(), **_reporters(), **_autoscalers(), **OPTIONAL}
    if metric not in known and _is_native(metric):
        return _NATIVE_LABELS[metric]
    return known.get(metric)


def _ours() -> dict[str, set[str]]:
    tags = {"echotrain_score": {"run", "metric"}, "echotrain_task": {"run", "metric"}}
    counters = {f"ray_{name}_total": {"run", "error"} for name in COUNTERS}
    return {f"ray_{name}": tags.get(name, {"run"}) for name in GAUGES} | counters


@functools.cache
def _reporters() -> dict[str, set[str]]:
    """Return what the agent of each node measures itself."""
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    return {f"ray_{name}": {str(key) for key in gauge.view.columns} for name, gauge in METRICS_GAUGES.items()}


@functools.cache
def _autoscalers() -> dict[str, set[str]]:
    metrics = AutoscalerPrometheusMetrics(session_name="")
    return {family.name: {"NodeType", "SessionName"} for family in metrics.registry.collect() if family.type == "gauge"}


@functools.cache
def _is_native(metric: str) -> bool:
    """Whether Ray's C++ exports a metric: its name is a literal there, and Ray's own dashboards show it.

    Either alone says little: a word like ``resources`` is a literal for many reasons, and a dashboard may show what is long gone.
    """
    literal = f"\0{metric.removeprefix('ray_').removesuffix('_total')}\0".encode()
    is_literal = any(literal in (_RAY / place).read_bytes() for place in ("core/src/ray/raylet/raylet", "core/src/ray/gcs/gcs_server"))
    return is_literal and metric in _shown_by_ray()


@functools.cache
def _shown_by_ray() -> set[str]:
    sources = (_RAY / "dashboard/modules/metrics/dashboards").glob("*_panels.py")
    return {name for source in sources for name in re.findall(r"\bray_\w+", source.read_text())}
