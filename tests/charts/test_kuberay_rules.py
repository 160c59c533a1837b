"""KubeRay's run-time rules: each fires on the smallest document that breaks it, and none on one that is right."""

import copy
from typing import Any

import pytest
import yaml

from tests.k8s import examples
from tests.k8s.kuberay_rules import RULES, broken_rules

CLUSTER, JOB = examples.ray_cluster, examples.ray_job
GROUP = "spec.workerGroupSpecs.0"
HEAD_ENV = "spec.headGroupSpec.template.spec.containers.0.env"
V2 = {"spec.enableInTreeAutoscaling": True, "spec.autoscalerOptions": {"version": "v2"}}
SIDECAR = {"spec.submissionMode": "SidecarMode", "spec.submitterPodTemplate": None}
QUEUED = {"metadata.labels": {"kueue.x-k8s.io/queue-name": "team"}}
REMOVED = object()


def rule(status: str, policy: str, ttl: int) -> dict[str, Any]:
    """Return a deletion rule of a RayJob."""
    return {"policy": policy, "condition": {"jobStatus": status, "ttlSeconds": ttl}}


def env(name: str, value: str = "1") -> list[dict[str, str]]:
    """Return an environment of one variable."""
    return [{"name": name, "value": value}]


# (rule, what to start from, what to change)
BROKEN: list[tuple[str, Any, dict[str, Any]]] = [
    ("cluster_name", CLUSTER, {"metadata.name": "a" * 54}),
    ("cluster_name", CLUSTER, {"metadata.name": "1st"}),
    ("cluster_name", CLUSTER, {"metadata.name": "a.b"}),
    ("job_name", JOB, {"metadata.name": "a" * 48}),
    ("job_name", JOB, {"metadata.name": "Job"}),
    ("group_names_are_distinct", CLUSTER, {f"{GROUP}+": {"groupName": "data"}}),
    ("group_name_is_a_label", CLUSTER, {f"{GROUP}.groupName": "a group"}),
    ("every_group_has_a_container", CLUSTER, {"spec.headGroupSpec.template.spec.containers": []}),
    ("every_group_has_a_container", CLUSTER, {f"{GROUP}.template.spec": {}}),
    ("replicas_are_within_their_bounds", CLUSTER, {f"{GROUP}.minReplicas": 5}),
    ("replicas_are_within_their_bounds", CLUSTER, {f"{GROUP}.minReplicas": -1}),
    ("replicas_are_within_their_bounds", CLUSTER, {f"{GROUP}.replicas": 9}),
    ("resources_are_given_once", CLUSTER, {"spec.headGroupSpec.resources": {"CPU": "1"}}),
    ("group_labels_are_labels", CLUSTER, {f"{GROUP}.labels": {"a key": "value"}}),
    ("group_labels_are_labels", CLUSTER, {f"{GROUP}.rayStartParams": {"labels": "a=b"}}),
    ("suspended_groups_have_no_autoscaler", CLUSTER, {**V2, f"{GROUP}.suspend": True}),
    ("restart_policy_suits_autoscaler_v2", CLUSTER, {**V2, f"{GROUP}.template.spec.restartPolicy": "Always"}),
    ("group_idle_timeout_needs_autoscaler_v2", CLUSTER, {f"{GROUP}.idleTimeoutSeconds": 60}),
    ("group_idle_timeout_needs_autoscaler_v2", CLUSTER, {**V2, f"{GROUP}.idleTimeoutSeconds": -1}),
    ("group_priority_needs_autoscaler_v2_and_ray_2_56", CLUSTER, {f"{GROUP}.priority": 1}),
    ("group_priority_needs_autoscaler_v2_and_ray_2_56", CLUSTER, {**V2, f"{GROUP}.priority": 1, "spec.rayVersion": "2.55.1"}),
    ("autoscaler_version_is_said_once", CLUSTER, {HEAD_ENV: env("RAY_enable_autoscaler_v2")}),
    ("autoscaler_version_is_said_once", CLUSTER, {**V2, HEAD_ENV: env("RAY_enable_autoscaler_v2")}),
    ("autoscaler_options_are_in_range", CLUSTER, {"spec.autoscalerOptions": {"idleTimeoutSeconds": -1}}),
    ("autoscaler_options_are_in_range", CLUSTER, {"spec.autoscalerOptions": {"env": env("KUBERAY_GEN_AUTOSCALER_START_CMD")}}),
    ("fault_tolerance_is_configured_by_its_options_alone", CLUSTER, {HEAD_ENV: env("RAY_REDIS_ADDRESS")}),
    ("fault_tolerance_is_configured_by_its_options_alone", CLUSTER, {HEAD_ENV: env("REDIS_USERNAME")}),
    (
        "fault_tolerance_is_configured_by_its_options_alone",
        CLUSTER,
        {HEAD_ENV: env("REDIS_PASSWORD"), "spec.gcsFaultToleranceOptions": {"redisAddress": "redis:6379"}},
    ),
    (
        "fault_tolerance_is_configured_by_its_options_alone",
        CLUSTER,
        {"metadata.annotations": {"ray.io/ft-enabled": "true"}, "spec.gcsFaultToleranceOptions": {"redisAddress": "redis:6379"}},
    ),
    ("fault_tolerance_fits_its_backend", CLUSTER, {"spec.gcsFaultToleranceOptions": {"backend": "rocksdb"}}),
    ("fault_tolerance_fits_its_backend", CLUSTER, {"spec.gcsFaultToleranceOptions": {"storage": {"size": "1Gi"}}}),
    ("token_authentication_has_a_ray_that_knows_it", CLUSTER, {"spec.authOptions": {"mode": "token"}, "spec.rayVersion": REMOVED}),
    ("token_authentication_has_a_ray_that_knows_it", CLUSTER, {"spec.authOptions": {"mode": "token"}, "spec.rayVersion": "2.51.0"}),
    ("token_authentication_has_a_ray_that_knows_it", CLUSTER, {"spec.authOptions": {"enableK8sTokenAuth": True}}),
    ("fields_behind_feature_gates_have_them", CLUSTER, {"spec.networkPolicy": {"mode": "DenyAll"}}),
    ("fields_behind_feature_gates_have_them", JOB, {"spec.rayClusterSpec.tlsOptions": {"enabled": True}}),
    ("network_policy_of_kuberay_is_consistent", CLUSTER, {"spec.networkPolicy": {"workerGroups": [{"groupName": "other"}]}}),
    (
        "network_policy_of_kuberay_is_consistent",
        CLUSTER,
        {"spec.networkPolicy": {"mode": "DenyAllEgress", "head": {"ingressRules": [{}]}}},
    ),
    ("job_has_exactly_one_source_of_a_cluster", JOB, {"spec.rayClusterSpec": REMOVED}),
    ("job_has_exactly_one_source_of_a_cluster", JOB, {"spec.clusterSelector": {"ray.io/cluster": "toy"}}),
    ("submission_mode_is_known_and_fits", JOB, {"spec.submissionMode": "K8SJobMode"}),
    ("submission_mode_is_known_and_fits", JOB, {"spec.submissionMode": "SidecarMode"}),
    ("submission_mode_is_known_and_fits", JOB, {"spec.submissionMode": "InteractiveMode"}),
    ("submission_mode_is_known_and_fits", JOB, {**SIDECAR, "spec.rayClusterSpec.headGroupSpec.template.spec.restartPolicy": "Always"}),
    ("submitter_can_be_a_kubernetes_job", JOB, {"spec.submitterPodTemplate.spec.restartPolicy": REMOVED}),
    ("submitter_can_be_a_kubernetes_job", JOB, {"spec.submitterPodTemplate.spec.restartPolicy": "Always"}),
    ("job_ends_its_cluster_once", JOB, {"spec.shutdownAfterJobFinishes": False}),
    ("job_ends_its_cluster_once", JOB, {"spec.deletionStrategy": {"deletionRules": [rule("SUCCEEDED", "DeleteCluster", 0)]}}),
    ("deletion_rules_are_consistent", JOB, {"spec.deletionStrategy": {"deletionRules": [rule("FAILED", "DeleteCluster", -1)]}}),
    (
        "deletion_rules_are_consistent",
        JOB,
        {"spec.deletionStrategy": {"deletionRules": [rule("FAILED", "DeleteWorkers", 60), rule("FAILED", "DeleteCluster", 0)]}},
    ),
    ("deletion_rules_are_consistent", JOB, {"spec.deletionStrategy": {"deletionRules": [rule("FAILED", "DeleteSelf", 0)] * 2}}),
    ("job_limits_are_positive", JOB, {"spec.activeDeadlineSeconds": 0}),
    ("job_limits_are_positive", JOB, {"spec.backoffLimit": -1}),
    ("runtime_environment_is_yaml", JOB, {"spec.runtimeEnvYAML": "a: [b"}),
    ("runtime_environment_is_yaml", JOB, {"spec.runtimeEnvYAML": "- a"}),
    ("cluster_of_a_job_has_no_upgrade_strategy", JOB, {"spec.rayClusterSpec.upgradeStrategy": {"type": "Recreate"}}),
    ("job_does_not_ask_for_kubernetes_tokens", JOB, {"spec.rayClusterSpec.authOptions": {"mode": "token", "enableK8sTokenAuth": True}}),
    ("queued_job_is_one_that_kueue_takes", JOB, {**QUEUED, "spec.rayClusterSpec.enableInTreeAutoscaling": True}),
    ("queued_job_is_one_that_kueue_takes", JOB, {**QUEUED, "spec.rayClusterSpec.workerGroupSpecs.0.groupName": "A100"}),
]

RIGHT: list[tuple[Any, dict[str, Any]]] = [
    (CLUSTER, {}),
    (JOB, {}),
    (JOB, {"metadata.name": REMOVED}),
    (CLUSTER, {"metadata.name": "a" * 53}),
    (JOB, {"metadata.name": "a" * 47}),
    (CLUSTER, {**V2, f"{GROUP}.idleTimeoutSeconds": 60, f"{GROUP}.priority": 2}),
    (CLUSTER, {**V2, f"{GROUP}.template.spec.restartPolicy": "Never"}),
    (CLUSTER, {"spec.authOptions": {"mode": "token"}}),
    (CLUSTER, {"spec.gcsFaultToleranceOptions": {"redisAddress": "redis:6379"}}),
    (CLUSTER, {f"{GROUP}.suspend": True}),
    (CLUSTER, {f"{GROUP}.minReplicas": REMOVED, f"{GROUP}.maxReplicas": REMOVED}),
    (JOB, QUEUED),
    (JOB, SIDECAR),
    (JOB, {"spec.submitterPodTemplate": REMOVED}),
]


def changed(start: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """Return a document with values at dotted paths changed; a path that ends in + adds an item after that one."""
    document = copy.deepcopy(start())
    for path, value in changes.items():
        *parents, last = path.rstrip("+").split(".")
        holder = document
        for parent in parents:
            holder = holder[int(parent)] if isinstance(holder, list) else holder.setdefault(parent, {})
        key = int(last) if isinstance(holder, list) else last
        if path.endswith("+"):
            holder.insert(key + 1, {**copy.deepcopy(holder[key]), **value})
        elif value is REMOVED:
            del holder[key]
        else:
            holder[key] = value
    return document


@pytest.mark.parametrize(("name", "start", "changes"), BROKEN, ids=[f"{name}-{index}" for index, (name, _, _) in enumerate(BROKEN)])
def test_a_rule_fires_on_what_breaks_it(name: str, start: Any, changes: dict[str, Any]) -> None:
    broken = broken_rules(changed(start, changes))
    assert name in {problem.partition(":")[0] for problem in broken}


@pytest.mark.parametrize(("start", "changes"), RIGHT)
def test_no_rule_fires_on_what_is_right(start: Any, changes: dict[str, Any]) -> None:
    assert broken_rules(changed(start, changes)) == []


def test_every_rule_has_a_document_that_breaks_it() -> None:
    assert {name for name, _, _ in BROKEN} == set(RULES)


def test_a_rule_about_clusters_holds_within_a_job() -> None:
    job = changed(JOB, {"spec.rayClusterSpec.workerGroupSpecs.0.minReplicas": 9})
    assert broken_rules(job)[0].startswith("replicas_are_within_their_bounds")


def test_the_template_in_a_config_map_is_a_job() -> None:
    template = yaml.safe_dump(changed(JOB, {"metadata.name": REMOVED, "spec.backoffLimit": -1}))
    config_map = {"kind": "ConfigMap", "metadata": {"name": "echotrain-rayjob"}, "data": {"rayjob.yaml": template}}
    assert [problem.partition(":")[0] for problem in broken_rules(config_map)] == ["job_limits_are_positive"]


def test_a_gate_that_the_operator_was_given_opens_its_field() -> None:
    document = changed(CLUSTER, {"spec.gcsFaultToleranceOptions": {"backend": "rocksdb", "storage": {"size": "1Gi"}}})
    assert broken_rules(document)
    assert broken_rules(document, ["GCSFaultToleranceEmbeddedStorage"]) == []


def test_the_backends_of_fault_tolerance_do_not_mix() -> None:
    options = {"backend": "rocksdb", "redisAddress": "redis:6379", "storage": {"claimName": "claim", "size": "1Gi"}}
    broken = broken_rules(changed(CLUSTER, {"spec.gcsFaultToleranceOptions": options}), ["GCSFaultToleranceEmbeddedStorage"])
    assert len(broken) == 2


def test_other_kinds_are_passed_over() -> None:
    assert broken_rules({"kind": "Deployment"}) == []
