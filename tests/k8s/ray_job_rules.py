"""Rules about a RayJob beyond its cluster; see kuberay_rules.py."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import yaml

from tests.k8s.names import DNS_LABEL
from tests.k8s.ray_resources import name_problems, part, pod_spec

__all__ = ["JOB_RULES"]

_MAX_JOB_NAME = 47  # The cluster of a job is called JOB-abcde.
_MAX_POD_SETS = 18  # of a Workload of Kueue 0.19
_QUEUE = "kueue.x-k8s.io/queue-name"


def job_name(document: dict[str, Any]) -> Iterator[str]:
    yield from name_problems(document, _MAX_JOB_NAME)


def job_has_exactly_one_source_of_a_cluster(job: dict[str, Any]) -> Iterator[str]:
    spec = job.get("spec") or {}
    if not spec.get("clusterSelector"):
        if spec.get("rayClusterSpec") is None:
            yield "one of rayClusterSpec and clusterSelector must be set"
        return
    if not spec["clusterSelector"].get("ray.io/cluster"):
        yield "clusterSelector names no ray.io/cluster"
    if spec.get("suspend"):
        yield "clusterSelector excludes suspend"
    if (spec.get("backoffLimit") or 0) > 0:
        yield "clusterSelector excludes backoffLimit"
    if spec.get("submissionMode") == "SidecarMode":
        yield "clusterSelector excludes SidecarMode"


def submission_mode_is_known_and_fits(job: dict[str, Any]) -> Iterator[str]:
    """That an unknown mode is refused is not in validation.go: the CRD takes any string, and KubeRay then submits nothing."""
    spec = job.get("spec") or {}
    mode = spec.get("submissionMode", "K8sJobMode")
    if mode not in ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"):
        yield f"{mode!r} is no submission mode"
    if mode == "InteractiveMode" and (spec.get("backoffLimit") or 0) > 0:
        yield "InteractiveMode excludes backoffLimit"
    if mode == "SidecarMode":
        yield from (f"SidecarMode excludes {field}" for field in ("submitterPodTemplate", "submitterConfig") if spec.get(field) is not None)
        policy = pod_spec(part(part(spec, "rayClusterSpec"), "headGroupSpec")).get("restartPolicy")
        if policy not in (None, "", "Never"):
            yield f"in SidecarMode the head's restartPolicy must be Never or unset, not {policy}"


def submitter_can_be_a_kubernetes_job(job: dict[str, Any]) -> Iterator[str]:
    """From Kubernetes' validation of Jobs: a pod template without a restartPolicy has Always, which a Job may not have."""
    template = (job.get("spec") or {}).get("submitterPodTemplate")
    if template is not None:
        policy = (template.get("spec") or {}).get("restartPolicy")
        if policy not in ("Never", "OnFailure"):
            yield f"restartPolicy of submitterPodTemplate must be Never or OnFailure, not {policy or 'unset'}"


def job_ends_its_cluster_once(job: dict[str, Any]) -> Iterator[str]:
    spec = job.get("spec") or {}
    shuts_down, strategy = bool(spec.get("shutdownAfterJobFinishes")), spec.get("deletionStrategy") or {}
    if spec.get("suspend") and not shuts_down:
        yield "suspend needs shutdownAfterJobFinishes"
    if (spec.get("ttlSecondsAfterFinished") or 0) > 0 and not shuts_down:
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    if strategy.get("deletionRules") and shuts_down:
        yield "deletionStrategy.deletionRules exclude shutdownAfterJobFinishes"
    policies = [part(strategy, when).get("policy") for when in ("onSuccess", "onFailure") if when in strategy]
    if shuts_down and "DeleteNone" in policies:
        yield "shutdownAfterJobFinishes excludes the policy DeleteNone"


def deletion_rules_are_consistent(job: dict[str, Any]) -> Iterator[str]:
    spec = job.get("spec") or {}
    strategy = spec.get("deletionStrategy") or {}
    rules = strategy.get("deletionRules") or []
    policies = [rule.get("policy") for rule in rules]
    policies += [part(strategy, when).get("policy") for when in ("onSuccess", "onFailure") if when in strategy]
    if "DeleteWorkers" in policies and part(spec, "rayClusterSpec").get("enableInTreeAutoscaling"):
        yield "DeleteWorkers excludes enableInTreeAutoscaling"
    if spec.get("clusterSelector"):
        yield from (f"clusterSelector excludes {policy}" for policy in ("DeleteCluster", "DeleteWorkers") if policy in policies)
    delays: dict[tuple[str, str], dict[str, int]] = {}
    for rule in rules:
        condition = rule.get("condition") or {}
        ttl = condition.get("ttlSeconds", 0)
        when = (
            ("jobStatus", condition["jobStatus"]) if "jobStatus" in condition else ("deployment", condition.get("jobDeploymentStatus", ""))
        )
        if ttl < 0:
            yield f"ttlSeconds is {ttl}"
        if rule.get("policy") in delays.setdefault(when, {}):
            yield f"{rule['policy']} is there twice for {when[1]}"
        delays[when][rule.get("policy")] = ttl
    for when, by_policy in delays.items():
        ordered = [by_policy[policy] for policy in ("DeleteWorkers", "DeleteCluster", "DeleteSelf") if policy in by_policy]
        if ordered != sorted(ordered):
            yield f"for {when[1]} workers must go before their cluster, and it before the job"


def job_limits_are_positive(job: dict[str, Any]) -> Iterator[str]:
    spec = job.get("spec") or {}
    lowest = {"activeDeadlineSeconds": 1, "preRunningDeadlineSeconds": 1, "ttlSecondsAfterFinished": 0, "backoffLimit": 0}
    for field, low in lowest.items():
        if spec.get(field) is not None and spec[field] < low:
            yield f"{field} is {spec[field]}, at least {low} is allowed"


def runtime_environment_is_yaml(job: dict[str, Any]) -> Iterator[str]:
    text = (job.get("spec") or {}).get("runtimeEnvYAML") or ""
    try:
        read = yaml.safe_load(text)
    except yaml.YAMLError as error:
        yield f"runtimeEnvYAML is no YAML ({str(error).splitlines()[0]})"
    else:
        if read is not None and not isinstance(read, dict):
            yield "runtimeEnvYAML is no mapping"


def cluster_of_a_job_has_no_upgrade_strategy(job: dict[str, Any]) -> Iterator[str]:
    if part(part(part(job, "spec"), "rayClusterSpec"), "upgradeStrategy").get("type"):
        yield "rayClusterSpec.upgradeStrategy is for RayClusters of their own"


def job_does_not_ask_for_kubernetes_tokens(job: dict[str, Any]) -> Iterator[str]:
    if part(part(part(job, "spec"), "rayClusterSpec"), "authOptions").get("enableK8sTokenAuth"):
        yield "authOptions.enableK8sTokenAuth is not supported for RayJobs"


def queued_job_is_one_that_kueue_takes(job: dict[str, Any]) -> Iterator[str]:
    """From Kueue's webhook for RayJobs."""
    spec = job.get("spec") or {}
    if not part(job.get("metadata") or {}, "labels").get(_QUEUE):
        return
    cluster = part(spec, "rayClusterSpec")
    if not spec.get("shutdownAfterJobFinishes"):
        yield "a queued job must have shutdownAfterJobFinishes"
    if spec.get("clusterSelector"):
        yield "a queued job can have no clusterSelector"
    if cluster.get("enableInTreeAutoscaling"):
        yield "a queued job's cluster cannot autoscale"
    names = [group.get("groupName", "") for group in cluster.get("workerGroupSpecs") or []]
    if len(names) + 2 > _MAX_POD_SETS:
        yield f"a queued job can have at most {_MAX_POD_SETS - 2} worker groups, it has {len(names)}"
    if "head" in names:
        yield "a queued job's worker group cannot be called head"
    yield from (f"{name!r} can be no pod set's name" for name in names if not DNS_LABEL.fullmatch(name))


JOB_RULES: dict[str, Callable[..., Iterable[str]]] = {
    rule.__name__: rule
    for rule in (
        job_name,
        job_has_exactly_one_source_of_a_cluster,
        submission_mode_is_known_and_fits,
        submitter_can_be_a_kubernetes_job,
        job_ends_its_cluster_once,
        deletion_rules_are_consistent,
        job_limits_are_positive,
        runtime_environment_is_yaml,
        cluster_of_a_job_has_no_upgrade_strategy,
        job_does_not_ask_for_kubernetes_tokens,
        queued_job_is_one_that_kueue_takes,
    )
}
