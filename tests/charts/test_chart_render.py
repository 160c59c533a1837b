"""What the chart renders, of every shape: valid everywhere, nothing that KubeRay refuses, and nothing changed unseen."""

import functools
import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.chart import CHART, SHAPES
from tests.k8s.crds import KUEUE, NEWEST, OLDEST, PROMETHEUS, crd_files
from tests.k8s.helm import Helm
from tests.k8s.kuberay_rules import broken_rules
from tests.k8s.manifests import read_manifests
from tests.k8s.schemas import Validator, embedded_rayjob

pytestmark = pytest.mark.helm

REPOSITORY = CHART.parents[1]
GOLDEN = Path(__file__).parent / "golden"
UPDATE = "ECHOTRAIN_UPDATE_GOLDEN"
# The defaults are a shape as well. Of the old KubeRay, what needs a newer one is left out, and asks for no token, which it cannot check.
DEFAULT = "default"
ALL = [DEFAULT, *SHAPES]
OLD = {
    "multi-node-efa": ["cluster.upgradeStrategy=None", "jobs.preRunningDeadlineSeconds=0"],
    "air-gapped": ["gcs.faultTolerance=none"],
}
# What the operator must be told to take it (its README and ours say so).
GATES = {"air-gapped": ["GCSFaultToleranceEmbeddedStorage"]}


@functools.cache
def render(helm: Helm, shape: str, *flags: str) -> str:
    values = () if shape == DEFAULT else ("--values", SHAPES[shape])
    return helm.run("template", "echotrain", CHART, "--namespace", "echotrain", *values, *flags).stdout


@functools.cache
def validator(generation: str) -> Validator:
    return Validator(crd_files(generation, KUEUE, PROMETHEUS))


def with_kuberay(version: str, *settings: str) -> list[str]:
    return [part for setting in (f"kuberay.version={version}", *settings) for part in ("--set", setting)]


def problems(text: str, generation: str, gates: list[str]) -> list[str]:
    return [
        f"{document['kind']} {document['metadata'].get('name')}: {problem}"
        for document in read_manifests(text)
        for problem in (*validator(generation).problems(document), *broken_rules(document, gates))
    ]


def pods(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the pod templates of a RayCluster or of the job's template, by name."""
    job = embedded_rayjob(document)
    if document["kind"] != "RayCluster" and job is None:
        return {}
    spec = job["spec"]["rayClusterSpec"] if job else document["spec"]
    found = {"head": spec["headGroupSpec"]["template"]}
    found |= {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    if job:
        found["submitter"] = job["spec"]["submitterPodTemplate"]
    return {f"{'job' if job else 'cluster'} {name}": pod["spec"] for name, pod in found.items()}


@pytest.mark.parametrize("shape", ALL)
def test_every_shape_passes_lint(helm: Helm, shape: str):
    values = () if shape == DEFAULT else ("--values", SHAPES[shape])
    assert "0 chart(s) failed" in helm.run("lint", "--strict", CHART, *values).stdout


@pytest.mark.parametrize("shape", ALL)
def test_every_shape_is_valid_for_the_newest_kuberay(helm4: Helm, shape: str):
    assert problems(render(helm4, shape, *with_kuberay("1.7.0")), NEWEST, GATES.get(shape, [])) == []


@pytest.mark.parametrize("shape", ALL)
def test_every_shape_is_valid_for_the_oldest_kuberay_without_what_it_lacks(helm4: Helm, shape: str):
    text = render(helm4, shape, *with_kuberay("1.4.2", "auth.mode=disabled", *OLD.get(shape, [])))
    assert problems(text, OLDEST, []) == []


@pytest.mark.parametrize("generation", [OLDEST, NEWEST])
def test_the_default_values_are_valid_where_kuberay_is_not_known(helm4: Helm, generation: str):
    assert problems(render(helm4, DEFAULT), generation, []) == []


@pytest.mark.parametrize("flags", [(), with_kuberay("1.7.0")], ids=["unknown KubeRay", "KubeRay 1.7"])
def test_token_authentication_is_on_by_default_on_every_pod(helm4: Helm, flags: list[str]):
    for document in read_manifests(render(helm4, DEFAULT, *flags)):
        job = embedded_rayjob(document)
        if document["kind"] != "RayCluster" and job is None:
            continue
        spec = job["spec"]["rayClusterSpec"] if job else document["spec"]
        if flags:
            assert spec["authOptions"] == {"mode": "token"}
            continue
        containers = [container for pod in pods(document).values() for container in pod["containers"]]
        containers += [spec["autoscalerOptions"]] if spec["enableInTreeAutoscaling"] else []
        for container in containers:
            env = {variable["name"]: variable for variable in container["env"]}
            assert env["RAY_AUTH_MODE"]["value"] == "token"
            assert env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "echotrain", "key": "auth_token"}


@pytest.mark.parametrize("shape", ALL)
def test_both_helms_render_what_was_reviewed(helm: Helm, shape: str):
    """``ECHOTRAIN_UPDATE_GOLDEN=1`` writes what is rendered now; the review is that of the diff."""
    golden = GOLDEN / f"{shape}.yaml"
    documents = render(helm, shape, *with_kuberay("1.7.0")).split("---\n")
    # Dashboards are files of their own, and reviewed there.
    text = "---\n".join(document for document in documents if "templates/dashboards.yaml" not in document)
    if os.environ.get(UPDATE):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text(), f"see the change by {UPDATE}=1 and git diff"


@pytest.mark.parametrize("shape", ALL)
def test_memory_is_requested_as_it_is_limited_and_shared_memory_is_within(helm4: Helm, shape: str):
    for document in read_manifests(render(helm4, shape)):
        for name, pod in pods(document).items():
            resources = pod["containers"][0]["resources"]
            assert resources["requests"]["memory"] == resources["limits"]["memory"], name
            if "submitter" not in name:
                mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
                volumes = {volume["name"]: volume for volume in pod["volumes"]}
                assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory", name
                assert "/spill" in mounts, name


@pytest.mark.parametrize("shape", ALL)
def test_nothing_runs_on_the_head_but_drivers_and_gpu_pods_tolerate_their_taint(helm4: Helm, shape: str):
    for document in read_manifests(render(helm4, shape)):
        job = embedded_rayjob(document)
        if document["kind"] != "RayCluster" and job is None:
            continue
        spec = job["spec"]["rayClusterSpec"] if job else document["spec"]
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        for name, pod in pods(document).items():
            if "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]:
                assert any(toleration.get("key") == "nvidia.com/gpu" for toleration in pod["tolerations"]), name


@pytest.mark.parametrize("shape", ALL)
def test_no_secret_is_made_or_written_down(helm4: Helm, shape: str):
    documents = list(read_manifests(render(helm4, shape)))
    assert [document for document in documents if document["kind"] == "Secret"] == []
    for document in documents:
        for pod in pods(document).values():
            for variable in pod["containers"][0]["env"]:
                if any(word in variable["name"] for word in ("KEY", "SECRET", "TOKEN", "SALT", "PASSWORD")):
                    assert "secretKeyRef" in variable["valueFrom"], variable["name"]


def test_a_job_says_what_a_launcher_must_know(helm4: Helm):
    template = next(d for d in read_manifests(render(helm4, "kueue")) if d["metadata"]["name"] == "echotrain-rayjob")
    assert json.loads(template["data"]["platform.json"]) == {
        "format": 1,
        "chart": yaml.safe_load((CHART / "Chart.yaml").read_text())["version"],
        "echotrain": "0.1.0",
        "ray": "2.60.0",
        "release": "echotrain",
        "storage": "s3://mri-echotrain/team-a",
        "groups": {"data": {"cpus": 15, "gpus": 0, "max": 8}, "a100": {"cpus": 90, "gpus": 8, "max": 4}},
        "queue": "team-a",
        "queues": ["team-a"],
        "priority": "echotrain-normal",
        "priorities": ["echotrain-low", "echotrain-normal", "echotrain-high"],
        "wandb": {"enabled": False, "url": ""},
        "dashboard": "",
    }
    job = embedded_rayjob(template)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    groups = {group["groupName"]: group for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    assert [groups["a100"][name] for name in ("replicas", "minReplicas", "maxReplicas")] == [0, 0, 0]
    assert groups["data"]["replicas"] == 0
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert job["spec"]["ttlSecondsAfterFinished"] == 0, "KubeRay counts it to the end of the cluster, whose GPUs idle meanwhile"


@pytest.mark.parametrize(
    ("uri", "keys", "endpoint", "authority"),
    [
        ("s3://mri/a", {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}, "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"),
        ("gs://mri_1/a", {"GOOGLE_SERVICE_ACCOUNT_KEY"}, "GOOGLE_BASE_URL", "SSL_CERT_FILE"),
        ("az://mri/a", {"AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"}, "AZURE_ENDPOINT", "SSL_CERT_FILE"),
    ],
)
def test_every_store_has_its_own_variables_and_its_keys_by_reference(helm4: Helm, uri: str, keys: set[str], endpoint: str, authority: str):
    values = [f"storage.uri={uri}", "storage.endpoint=https://store.lab", "storage.caConfigMap=authority", "storage.existingSecret=keys"]
    text = render(helm4, DEFAULT, *(word for value in values for word in ("--set", value)))
    seen = []
    for spec in (spec for document in read_manifests(text) for spec in pods(document).values()):
        env = {each["name"]: each for each in spec["containers"][0]["env"]}
        of_store = {name for name in env if name.startswith(("AWS_", "GOOGLE_", "AZURE_", "SSL_"))}
        if not of_store:
            continue
        seen.append(of_store)
        assert {name: env[name]["valueFrom"]["secretKeyRef"] for name in keys} == {name: {"name": "keys", "key": name} for name in keys}
        assert of_store - keys == {endpoint, authority} | ({"AWS_REGION"} if uri.startswith("s3") else set())
        assert env[endpoint]["value"] == "https://store.lab"
    assert problems(text, NEWEST, []) == []
    assert seen


def test_priorities_are_those_of_pods_without_kueue_and_of_workloads_with_it(helm4: Helm):
    def job(shape: str) -> dict[str, Any]:
        return next(found for document in read_manifests(render(helm4, shape)) if (found := embedded_rayjob(document)))

    plain, queued = job("spot"), job("kueue")
    assert plain["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["priorityClassName"] == "echotrain-normal"
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "echotrain-normal"
    assert "priorityClassName" not in queued["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]


def test_a_job_has_the_time_to_end_that_its_pod_has(helm4: Helm):
    for document in read_manifests(render(helm4, "spot")):
        for name, pod in pods(document).items():
            assert pod["terminationGracePeriodSeconds"] == 100
            env = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
            if "submitter" not in name:
                assert env["RAY_JOB_STOP_WAIT_TIME_S"] == env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] == "80"


@pytest.mark.parametrize("shape", ALL)
def test_only_the_autoscaler_has_a_token_of_the_api(helm4: Helm, shape: str):
    for document in read_manifests(render(helm4, shape)):
        for pod in pods(document).values():
            assert pod["automountServiceAccountToken"] is False
            mounts = [mount["mountPath"] for container in pod["containers"] for mount in container["volumeMounts"]]
            assert not [path for path in mounts if "serviceaccount" in path]
        if document["kind"] == "RayCluster" and document["spec"]["enableInTreeAutoscaling"]:
            mounted = {mount["mountPath"]: mount["name"] for mount in document["spec"]["autoscalerOptions"]["volumeMounts"]}
            volumes = {volume["name"]: volume for volume in document["spec"]["headGroupSpec"]["template"]["spec"]["volumes"]}
            sources = volumes[mounted["/var/run/secrets/kubernetes.io/serviceaccount"]]["projected"]["sources"]
            assert [next(iter(source)) for source in sources] == ["serviceAccountToken", "configMap", "downwardAPI"]


@pytest.mark.parametrize("shape", ALL)
def test_disk_is_requested_for_all_that_lies_on_it(helm4: Helm, shape: str):
    for document in read_manifests(render(helm4, shape)):
        for name, pod in pods(document).items():
            volumes = [
                volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if volume.get("emptyDir", {"medium": 1}).get("medium") is None
            ]
            resources = pod["containers"][0]["resources"]
            assert resources["limits"]["ephemeral-storage"] == resources["requests"]["ephemeral-storage"], name
            assert mebibytes(resources["limits"]["ephemeral-storage"]) > sum(map(mebibytes, volumes)), name


@pytest.mark.parametrize("shape", ALL)
def test_no_map_of_a_cluster_is_empty(helm4: Helm, shape: str):
    """Where a later release fills such a map, Helm 4's rollback sends null for it, which the server refuses."""
    for document in read_manifests(render(helm4, shape)):
        if document["kind"] == "RayCluster":
            assert empty_maps(document) == []


def empty_maps(value: Any, path: str = "") -> list[str]:
    if isinstance(value, dict):
        return [name for key, inner in value.items() for name in empty_maps(inner, f"{path}.{key}")] if value else [path]
    return [name for index, inner in enumerate(value) for name in empty_maps(inner, f"{path}[{index}]")] if isinstance(value, list) else []


def mebibytes(quantity: str) -> int:
    return int(quantity[:-2]) * {"Mi": 1, "Gi": 1024, "Ti": 1024**2}[quantity[-2:]]


def test_own_objects_are_rendered_as_templates(helm4: Helm):
    flags = ("--set-json", 'extraObjects=[{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-mine"}}]')
    assert any(document["metadata"]["name"] == "echotrain-mine" for document in read_manifests(render(helm4, DEFAULT, *flags)))


def test_the_chart_is_of_the_project_s_versions():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert chart["appVersion"] == project["version"]
    assert any(
        dependency.startswith("ray[") and dependency.endswith(f"=={values['ray']['version']}") for dependency in project["dependencies"]
    )
