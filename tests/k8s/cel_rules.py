"""The CEL rules of the CRDs, in Python: few enough that a table is cheaper than an interpreter.

A rule is looked up by its text. One that the table lacks is reported as a problem, so that a new release of a CRD cannot bring a rule that
is silently passed over. Rules about a change (``oldSelf``) do not concern a document by itself.
"""

from collections.abc import Callable
from typing import Any

__all__ = ["broken_cel_rules"]

_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def _no_borrowing_limit(spec: Any) -> bool:
    return not any("borrowingLimit" in r for group in spec["resourceGroups"] for flavor in group["flavors"] for r in flavor["resources"])


_RULES: dict[str, Callable[[Any], bool]] = {
    # RayCluster, RayJob
    "self in ['ray.io/kuberay-operator', 'kueue.x-k8s.io/multikueue']": lambda v: (
        v in ("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue")
    ),
    "self in ['DeleteCluster', 'DeleteWorkers', 'DeleteSelf', 'DeleteNone']": (
        lambda v: v in ("DeleteCluster", "DeleteWorkers", "DeleteSelf", "DeleteNone")
    ),
    "!((has(self.onSuccess) || has(self.onFailure)) && has(self.deletionRules))": (
        lambda v: not (("onSuccess" in v or "onFailure" in v) and "deletionRules" in v)
    ),
    "((has(self.onSuccess) && has(self.onFailure)) || has(self.deletionRules))": (
        lambda v: ("onSuccess" in v and "onFailure" in v) or "deletionRules" in v
    ),
    "!(has(self.jobStatus) && has(self.jobDeploymentStatus))": lambda v: not ("jobStatus" in v and "jobDeploymentStatus" in v),
    "has(self.jobStatus) || has(self.jobDeploymentStatus)": lambda v: "jobStatus" in v or "jobDeploymentStatus" in v,
    # ClusterQueue, Cohort
    "!has(self.cohort) && has(self.resourceGroups) ? "
    "self.resourceGroups.all(rg, rg.flavors.all(f, f.resources.all(r, !has(r.borrowingLimit)))) : true": (
        lambda v: "cohort" in v or "resourceGroups" not in v or _no_borrowing_limit(v)
    ),
    "!has(self.cohortName) && has(self.resourceGroups) ? "
    "self.resourceGroups.all(rg, rg.flavors.all(f, f.resources.all(r, !has(r.borrowingLimit)))) : true": (
        lambda v: "cohortName" in v or "resourceGroups" not in v or _no_borrowing_limit(v)
    ),
    "!has(self.preference) || (self.whenCanBorrow == 'TryNextFlavor' && self.whenCanPreempt == 'TryNextFlavor')": (
        lambda v: "preference" not in v or v["whenCanBorrow"] == v["whenCanPreempt"] == "TryNextFlavor"
    ),
    "!(self.reclaimWithinCohort == 'Never' && has(self.borrowWithinCohort) &&  self.borrowWithinCohort.policy != 'Never')": (
        lambda v: v["reclaimWithinCohort"] != "Never" or v.get("borrowWithinCohort", {}).get("policy", "Never") == "Never"
    ),
    "self.flavors.all(x, size(x.resources) == size(self.coveredResources))": (
        lambda v: all(len(flavor["resources"]) == len(v["coveredResources"]) for flavor in v["flavors"])
    ),
    # ResourceFlavor
    "!has(self.topologyName) || self.nodeLabels.size() >= 1": lambda v: "topologyName" not in v or len(v["nodeLabels"]) >= 1,
    "self.all(x, x.effect in ['NoSchedule', 'PreferNoSchedule', 'NoExecute'])": lambda v: all(x["effect"] in _EFFECTS for x in v),
    "self.all(x, !has(x.key) ? x.operator == 'Exists' : true)": lambda v: all("key" in x or x["operator"] == "Exists" for x in v),
    "self.all(x, has(x.tolerationSeconds) ? x.effect == 'NoExecute' : true)": (
        lambda v: all("tolerationSeconds" not in x or x["effect"] == "NoExecute" for x in v)
    ),
    "self.all(x, !has(x.operator) || x.operator in ['Equal', 'Exists'])": (
        lambda v: all(x.get("operator", "Equal") in ("Equal", "Exists") for x in v)
    ),
    "self.all(x, has(x.operator) && x.operator == 'Exists' ? !has(x.value) : true)": (
        lambda v: all(x.get("operator") != "Exists" or "value" not in x for x in v)
    ),
    "self.all(x, !has(x.effect) || x.effect in ['NoSchedule', 'PreferNoSchedule', 'NoExecute'])": (
        lambda v: all(x.get("effect", "NoExecute") in _EFFECTS for x in v)
    ),
    # Topology
    "size(self.filter(i, size(self.filter(j, j == i)) > 1)) == 0": lambda v: all(v.count(x) == 1 for x in v),
    "size(self.filter(i, i.nodeLabel == 'kubernetes.io/hostname')) == 0 || self[size(self) - 1].nodeLabel == 'kubernetes.io/hostname'": (
        lambda v: all(x["nodeLabel"] != "kubernetes.io/hostname" for x in v) or v[-1]["nodeLabel"] == "kubernetes.io/hostname"
    ),
}


def broken_cel_rules(schema: dict[str, Any], value: Any) -> list[str]:
    """Return what the CEL rules of one node of a schema have against a value that has its defaults."""
    problems = []
    for entry in schema.get("x-kubernetes-validations", ()):
        rule = entry["rule"]
        if "oldSelf" in rule:
            continue
        if rule not in _RULES:
            problems.append(f"tests/k8s/cel_rules.py does not know the rule {rule}")
            continue
        try:
            holds = _RULES[rule](value)
        except (KeyError, TypeError):
            holds = False  # As in CEL: a rule that asks for a field that is not there fails.
        if not holds:
            problems.append(entry.get("message", f"breaks the rule {rule}"))
    return problems
