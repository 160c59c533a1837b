"""The policy scan: which pods manifests lead to, that each check can fail, and what a reviewed list makes of findings."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from echotrain.errors import ConfigError, ResourceError
from tests.k8s import examples
from tests.k8s.api_server import ApiServer
from tests.k8s.cluster import Cluster
from tests.k8s.pod_checks import POD_CHECKS
from tests.k8s.pods import pods_of
from tests.k8s.policy import Exemption, Finding, find_checkov, judge, read_exceptions, scan, scan_with_checkov


def pod(**spec: Any) -> dict[str, Any]:
    """Return the right pod of the example's head, with a few fields of its spec changed."""
    head = pods_of([examples.ray_cluster()])[0]
    head["spec"] |= spec
    return head


def container(**fields: Any) -> dict[str, Any]:
    """Return a pod whose container has a few fields changed."""
    changed = pod()
    changed["spec"]["containers"][0] |= fields
    return changed


def context(**fields: Any) -> dict[str, Any]:
    """Return a pod whose container's security context has a few fields changed."""
    return container(securityContext=pod()["spec"]["containers"][0]["securityContext"] | fields)


BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("no_host_namespaces", pod(hostNetwork=True)),
    ("no_privileged_containers", context(privileged=True)),
    ("all_capabilities_are_dropped", context(capabilities={})),
    ("all_capabilities_are_dropped", context(capabilities={"drop": ["ALL"], "add": ["IPC_LOCK"]})),
    ("volumes_are_of_safe_types", pod(volumes=[{"name": "shm", "hostPath": {"path": "/dev/shm"}}])),
    ("no_host_ports", container(ports=[{"containerPort": 80, "hostPort": 80}])),
    ("no_hosts_in_probes", container(livenessProbe={"httpGet": {"port": 80, "host": "10.0.0.1"}})),
    ("app_armor_is_on", context(appArmorProfile={"type": "Unconfined"})),
    ("selinux_options_are_safe", context(seLinuxOptions={"type": "spc_t"})),
    ("proc_is_masked", context(procMount="Unmasked")),
    ("sysctls_are_safe", pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]})),
    ("seccomp_is_on", pod(securityContext={"runAsNonRoot": True})),
    ("seccomp_is_on", context(seccompProfile={"type": "Unconfined"})),
    ("privileges_cannot_grow", context(allowPrivilegeEscalation=True)),
    ("privileges_cannot_grow", container(securityContext={})),
    ("nothing_runs_as_root", context(runAsUser=0)),
    ("nothing_runs_as_root", pod(securityContext={})),
    ("root_file_system_is_read_only", context(readOnlyRootFilesystem=False)),
    ("memory_is_guaranteed", container(resources={"requests": {"cpu": 1}})),
    ("memory_is_guaranteed", container(resources={"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}})),
    ("cpu_is_requested", container(resources={"limits": {"memory": "2Gi"}})),
    ("secrets_are_taken_by_reference", container(env=[{"name": "WANDB_API_KEY", "value": "0123"}])),
    ("secrets_are_taken_by_reference", container(env=[{"name": "AWS_SECRET_ACCESS_KEY", "value": "0123"}])),
    ("images_have_a_version", container(image="registry.example:5000/echotrain")),
    ("images_have_a_version", container(image="echotrain:latest")),
    ("mounts_have_their_volumes", pod(volumes=[])),
    ("mounts_have_their_volumes", container(volumeMounts=[{"name": "shm", "mountPath": "/dev/shm"}] * 2)),
]


@pytest.mark.parametrize(("check", "broken"), BROKEN)
def test_a_check_fails_on_what_breaks_it(check: str, broken: dict[str, Any]) -> None:
    assert check in {finding.check for finding in scan([broken])}


def test_every_check_can_fail() -> None:
    assert {check for check, _ in BROKEN} == set(POD_CHECKS)


@pytest.mark.parametrize(
    "right",
    [
        pod(),
        context(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
        container(resources={"limits": {"cpu": 1, "memory": "1Gi"}}),
        container(image="echotrain@sha256:0123"),
        container(env=[{"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "WANDB_API_KEY"}}}]),
        container(securityContext=context()["spec"]["containers"][0]["securityContext"] | {"seccompProfile": {"type": "Localhost"}}),
    ],
)
def test_a_right_pod_has_no_findings(right: dict[str, Any]) -> None:
    assert scan([right]) == []


def names(*documents: dict[str, Any]) -> list[str]:
    """Return the names of the pods of documents."""
    return [one["metadata"]["name"] for one in pods_of(documents)]


def test_every_template_becomes_a_pod() -> None:
    job = examples.ray_job()
    template = {"spec": {"containers": [{"name": "main"}]}}
    plain = {"metadata": {"name": "toy"}, "spec": {"template": template}}
    cron = {"kind": "CronJob", "metadata": {"name": "toy"}, "spec": {"jobTemplate": {"spec": {"template": template}}}}
    assert names(examples.ray_cluster()) == ["raycluster-toy-head", "raycluster-toy-data"]
    assert names(job) == ["rayjob-toy-head", "rayjob-toy-data", "rayjob-toy-submitter"]
    assert names({"kind": "Deployment", **plain}, {"kind": "Job", **plain}, cron) == ["deployment-toy", "job-toy", "cronjob-toy"]
    assert names({"kind": "Service", "metadata": {"name": "toy"}}) == []
    config_map = {"kind": "ConfigMap", "metadata": {"name": "echotrain-rayjob"}, "data": {"rayjob.yaml": yaml.safe_dump(job)}}
    assert names(config_map)[0] == "rayjob-echotrain-rayjob-head"


def test_pods_have_what_kuberay_adds() -> None:
    cluster = examples.ray_cluster()
    assert "autoscaler" not in str(pods_of([cluster])[0])
    cluster["spec"] |= {"enableInTreeAutoscaling": True, "autoscalerOptions": {"version": "v2"}}
    head, worker = pods_of([cluster])
    assert [one["name"] for one in head["spec"]["containers"]] == ["ray-head", "autoscaler"]
    assert [one["name"] for one in worker["spec"]["initContainers"]] == ["wait-gcs-ready"]
    assert {finding.detail for finding in scan([head, worker])} >= {"autoscaler allows escalation", "autoscaler can write to it"}
    cluster["spec"]["autoscalerOptions"]["securityContext"] = head["spec"]["containers"][0]["securityContext"]
    assert scan(pods_of([cluster])) == []


def test_a_job_without_a_submitter_template_gets_the_default_one() -> None:
    job = examples.ray_job()
    del job["spec"]["submitterPodTemplate"]
    assert {finding.pod for finding in scan(pods_of([job]))} == {"rayjob-toy-submitter"}
    job["spec"]["submissionMode"] = "SidecarMode"
    assert names(job) == ["rayjob-toy-head", "rayjob-toy-data"]


def test_a_finding_without_an_argument_and_an_argument_without_a_finding_are_told() -> None:
    found = [Finding("A", "head", "x"), Finding("B", "head", "y"), Finding("B", "data", "y")]
    exemptions = [Exemption(check=check, pods=pods, why="because it is so") for check, pods in (("B", "h*"), ("C", "*"))]
    judgement = judge(found, exemptions)
    assert judgement.unargued == [Finding("A", "head", "x"), Finding("B", "data", "y")]
    assert judgement.stale == [exemptions[1]]


def test_the_reviewed_list_has_a_reason_for_each_entry(tmp_path: Path) -> None:
    assert isinstance(read_exceptions(Path(__file__).with_name("policy_exceptions.yaml")), list)
    path = tmp_path / "exceptions.yaml"
    path.write_text("CKV_K8S_38 *-head: The autoscaler talks to the API server.\nCKV_K8S_8: KubeRay adds probes itself.\n")
    assert [(one.check, one.pods) for one in read_exceptions(path)] == [("CKV_K8S_38", "*-head"), ("CKV_K8S_8", "*")]
    path.write_text("CKV_K8S_38: later\n")
    with pytest.raises(ConfigError, match="CKV_K8S_38"):
        read_exceptions(path)


def test_checkov_judges_synthetic_pods_and_asks_nobody() -> None:
    try:
        python = find_checkov()
    except ResourceError as error:
        pytest.skip(str(error))
    bad = copy.deepcopy(context(privileged=True))
    bad["metadata"]["name"] = "bad"
    found = {(finding.check, finding.pod) for finding in scan_with_checkov([pod(), bad], python)}
    privileged = "CKV_K8S_16"
    assert (privileged, "bad") in found
    assert (privileged, "raycluster-toy-head") not in found


def test_a_machine_without_checkov_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ECHOTRAIN_CHECKOV", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ResourceError, match="make tools"):
        find_checkov()


@pytest.mark.cluster
def test_synthetic_pods_are_pods_to_a_real_server(api_server: Cluster) -> None:
    if not isinstance(api_server, ApiServer):
        pytest.skip("a given cluster has admission rules of its own")
    for one in pods_of([examples.ray_cluster(), examples.ray_job()]):
        body = {**one, "metadata": {**one["metadata"], "namespace": "default"}}
        assert api_server.request("POST", "/api/v1/namespaces/default/pods?dryRun=All", body)["kind"] == "Pod"
