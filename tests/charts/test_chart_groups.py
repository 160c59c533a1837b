"""What the chart tells pods of their groups: the sizes that KubeRay is given, and nothing for which pods would be replaced."""

import functools
import json
from typing import Any

import pytest
from ray.autoscaler._private.kuberay.autoscaling_config import _generate_available_node_types_from_ray_cr_spec

from echotrain.launching.template import JobOrder, fill, parse_template
from echotrain.orchestration.runtime.capacity import GROUP_LABEL
from echotrain.worker_groups import GROUPS_VARIABLE, PublishedGroups, parse_groups
from tests.k8s.chart import CHART, SHAPES
from tests.k8s.helm import Helm
from tests.k8s.manifests import read_manifests
from tests.k8s.schemas import embedded_rayjob

pytestmark = pytest.mark.helm

ALL = ["default", *SHAPES]
STANDING = [shape for shape in ALL if shape != "kueue"]
ANNOTATION = "echotrain.io/worker-groups"
UNITS = {"Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@functools.cache
def render(helm: Helm, shape: str, *settings: str) -> list[dict[str, Any]]:
    values = () if shape == "default" else ("--values", SHAPES[shape])
    flags = [part for setting in ("kuberay.version=1.7.0", *settings) for part in ("--set", setting)]
    return list(read_manifests(helm.run("template", "echotrain", CHART, "--namespace", "echotrain", *values, *flags).stdout))


def named(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any] | None:
    return next((each for each in documents if (each["kind"], each["metadata"]["name"]) == (kind, name)), None)


def files_of(pod: dict[str, Any], documents: list[dict[str, Any]]) -> dict[str, str]:
    """Return the texts that a pod of Ray finds on its disk, by path: of ConfigMaps, and of its own annotations."""
    texts: dict[str, str] = {}
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    for mount in pod["spec"]["containers"][0]["volumeMounts"]:
        volume = volumes[mount["name"]]
        for item in volume.get("downwardAPI", {}).get("items", []):
            key = item["fieldRef"]["fieldPath"].removeprefix("metadata.annotations['").removesuffix("']")
            texts[f"{mount['mountPath']}/{item['path']}"] = pod["metadata"]["annotations"][key]
        if (source := named(documents, "ConfigMap", volume.get("configMap", {}).get("name", ""))) is not None:
            texts |= {f"{mount['mountPath']}/{key}": text for key, text in source["data"].items()}
    return texts


def published_to(pod: dict[str, Any], documents: list[dict[str, Any]]) -> PublishedGroups:
    """Return what a pod reads, by the variable that its programs go by."""
    env = {variable["name"]: variable.get("value", "") for variable in pod["spec"]["containers"][0]["env"]}
    return parse_groups(files_of(pod, documents)[env[GROUPS_VARIABLE]].encode(), place="the pod")


def told(published: PublishedGroups) -> dict[str, dict[str, int]]:
    return {g.name: {"cpus": g.cpus, "gpus": g.gpus, "memory": g.memory, "min": g.min, "max": g.max} for g in published.groups}


def given_to_kuberay(cluster: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return the sizes of the groups as KubeRay and Ray have them."""
    sizes = {}
    for group in cluster["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        sizes[group["groupName"]] = {
            "cpus": int(group["rayStartParams"]["num-cpus"]),
            "gpus": sum(int(amount) for name, amount in limits.items() if name.endswith("/gpu")),
            "memory": int(limits["memory"][:-2]) * UNITS[limits["memory"][-2:]],
            "min": group["minReplicas"],
            "max": group["maxReplicas"],
        }
    return sizes


def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]


@pytest.mark.parametrize("shape", STANDING)
def test_every_pod_of_the_standing_cluster_reads_the_sizes_that_kuberay_has(helm: Helm, shape: str):
    documents = render(helm, shape)
    cluster = named(documents, "RayCluster", "echotrain")
    assert cluster is not None
    for pod in pods(cluster["spec"]):
        assert told(published_to(pod, documents)) == given_to_kuberay(cluster["spec"])
        assert published_to(pod, documents).node_timeout_s == 1800


def test_a_cluster_that_does_not_stand_publishes_nothing(helm4: Helm):
    assert named(render(helm4, "kueue"), "ConfigMap", "echotrain-groups") is None


def test_without_an_autoscaler_nothing_more_comes_than_there_is(helm4: Helm):
    documents = render(helm4, "air-gapped", "autoscaler.enabled=false")
    cluster = named(documents, "RayCluster", "echotrain")
    assert cluster is not None
    sizes = told(published_to(pods(cluster["spec"])[0], documents))
    assert {name: (size["min"], size["max"]) for name, size in sizes.items()} == {"data": (1, 1), "v100": (1, 1)}


@pytest.mark.parametrize("setting", ["data.maxReplicas=7", "data.minReplicas=2", "autoscaler.nodeTimeoutSeconds=60"])
def test_how_far_it_may_grow_changes_what_is_published_and_no_pod(helm4: Helm, setting: str):
    """KubeRay replaces the pods of a template that has changed, under the strategy Recreate all of them."""
    before, after = (render(helm4, "multi-node-efa", *settings) for settings in ((), (setting,)))
    clusters = [named(documents, "RayCluster", "echotrain") for documents in (before, after)]
    assert clusters[0] is not None
    assert clusters[1] is not None
    assert pods(clusters[0]["spec"]) == pods(clusters[1]["spec"])
    assert clusters[0]["metadata"]["annotations"] == clusters[1]["metadata"]["annotations"]
    texts = [published_to(pods(cluster["spec"])[0], documents) for cluster, documents in zip(clusters, (before, after), strict=True)]
    assert texts[0] != texts[1]


@pytest.mark.parametrize("shape", ALL)
def test_a_job_is_told_of_the_pods_that_the_launcher_gives_it(helm4: Helm, shape: str):
    documents = render(helm4, shape)
    config_map = named(documents, "ConfigMap", "echotrain-rayjob")
    assert config_map is not None
    template = parse_template(config_map, version=json.loads(config_map["data"]["platform.json"])["echotrain"])
    for group in (*template.platform.groups, ""):
        job = fill(template, JobOrder(name="knee", command=("true",), group=group, pods=2 if group else 0))
        cluster = job["spec"]["rayClusterSpec"]
        for pod in pods(cluster):
            assert told(published_to(pod, documents)) == given_to_kuberay(cluster)
        if group:
            assert told(published_to(pods(cluster)[0], documents))[group]["max"] == 2
        assert ANNOTATION not in job["spec"]["submitterPodTemplate"]["metadata"]["annotations"]
    assert embedded_rayjob(config_map) == template.manifest, "what was published is left as it is"


def test_an_operator_s_annotation_does_not_hide_the_chart_s(helm4: Helm):
    documents = render(helm4, "default", r"pods.annotations.echotrain\.io/worker-groups=mine")
    job = next(found for document in documents if (found := embedded_rayjob(document)))
    assert parse_groups(pods(job["spec"]["rayClusterSpec"])[0]["metadata"]["annotations"][ANNOTATION].encode(), place="x").groups


@pytest.mark.parametrize("shape", STANDING)
def test_rays_autoscaler_knows_the_label_by_which_work_asks_for_a_group(helm: Helm, shape: str):
    """It makes no pod for a task with a label that it does not know the pod to have, though the pod would."""
    clusters = [each["spec"] for each in render(helm, shape) if each["kind"] == "RayCluster"]
    assert clusters
    for spec in clusters:
        kinds = _generate_available_node_types_from_ray_cr_spec(spec)
        groups = [group["groupName"] for group in spec["workerGroupSpecs"]]
        assert {name: kinds[name]["labels"][GROUP_LABEL] for name in groups} == {name: name for name in groups}
