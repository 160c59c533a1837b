"""What KubeRay 1.7 refuses, or does wrong, only when it runs: no schema says it, and a chart could break it.

Each rule is a function that yields what it has against a cluster, a RayCluster or a RayJob. They are written after KubeRay's
``ray-operator/controllers/ray/utils/validation.go``, with the CRDs' defaults taken as filled in; where a rule is from elsewhere (the Jobs
of Kubernetes, Kueue's webhook for RayJobs) its docstring says so. Rules about what the project renders nowhere (RayService, RayCronJob,
the history server's collector, mTLS) are left out, but their feature gates are asked for.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.k8s.ray_cluster_rules import CLUSTER_RULES
from tests.k8s.ray_job_rules import JOB_RULES
from tests.k8s.ray_resources import Cluster, name_problems
from tests.k8s.schemas import embedded_rayjob

__all__ = ["RULES", "broken_rules"]

_MAX_CLUSTER_NAME = 53


def broken_rules(document: dict[str, Any], gates: Iterable[str] = ()) -> list[str]:
    """Return what KubeRay would have against a document, each with the name of the rule; nothing of another kind.

    Args:
        document: A RayCluster, a RayJob, or the ConfigMap in which the chart publishes a RayJob.
        gates: Feature gates that the operator was given beyond its defaults.
    """
    document = embedded_rayjob(document) or document
    kind, spec = document.get("kind"), document.get("spec") or {}
    if kind not in ("RayCluster", "RayJob"):
        return []
    rules, inner = (RAY_CLUSTER_RULES, spec) if kind == "RayCluster" else (JOB_RULES, spec.get("rayClusterSpec"))
    broken = [f"{name}: {problem}" for name, rule in rules.items() for problem in rule(document)]
    if inner is not None:
        annotations = (document.get("metadata") or {}).get("annotations") or {}
        cluster = Cluster(inner, annotations, frozenset(gates))
        broken += [f"{name}: {problem}" for name, rule in CLUSTER_RULES.items() for problem in rule(cluster)]
    return broken


def cluster_name(document: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a RayCluster's name."""
    yield from name_problems(document, _MAX_CLUSTER_NAME)


RAY_CLUSTER_RULES: dict[str, Callable[..., Iterable[str]]] = {"cluster_name": cluster_name}
RULES = {**RAY_CLUSTER_RULES, **JOB_RULES, **CLUSTER_RULES}
