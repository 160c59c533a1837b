"""The strict validator: what it refuses, with which path, and that a real server says the same of mutated manifests."""

import json
import os
import random
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s import examples
from tests.k8s.api_server import ApiServer
from tests.k8s.cluster import Cluster
from tests.k8s.crds import KUBERAY_GENERATIONS, OLDEST, crd_files
from tests.k8s.manifests import DuplicateKeyError, read_manifests
from tests.k8s.mutants import mutants
from tests.k8s.schemas import Validator

EXAMPLES = [examples.ray_cluster, examples.ray_job, examples.pod_monitor, examples.local_queue, examples.cluster_queue]
DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "toy"},
    "spec": {
        "selector": {"matchLabels": {"app": "toy"}},
        "template": {"metadata": {"labels": {"app": "toy"}}, "spec": {"containers": [{"name": "main", "image": "image"}]}},
    },
}


@pytest.fixture(scope="module")
def validator() -> Validator:
    """Return one that knows the newest CRDs."""
    return Validator(crd_files())


def ray_cluster(**spec: Any) -> dict[str, Any]:
    """Return a RayCluster with a few fields of its spec changed."""
    document = examples.ray_cluster()
    document["spec"] |= spec
    return document


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_right_manifest_has_no_problems(example: Callable[[], dict[str, Any]], validator: Validator) -> None:
    assert validator.problems(example()) == []


@pytest.mark.parametrize("generation", KUBERAY_GENERATIONS)
def test_manifests_can_be_held_against_each_generation_of_kuberay(generation: str) -> None:
    validator = Validator(crd_files(generation))
    assert validator.problems(examples.ray_cluster()) == []
    assert validator.problems(examples.ray_job()) == []


def test_a_field_that_an_old_crd_does_not_have_is_told() -> None:
    document = ray_cluster(authOptions={"mode": "token"})
    assert Validator(crd_files()).problems(document) == []
    assert "authOptions" in Validator(crd_files(OLDEST)).problems(document)[0]


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (ray_cluster(rayVersoin="2.60.0"), "spec: .*rayVersoin"),
        (ray_cluster(autoscalerOptions={"idleTimeoutSecs": 60}), r"spec\.autoscalerOptions: .*idleTimeoutSecs"),
        (ray_cluster(workerGroupSpecs=[{"groupName": "data"}]), r'spec\.workerGroupSpecs\[0\]: "template" is a required'),
        (ray_cluster(workerGroupSpecs={"groupName": "data"}), r"spec\.workerGroupSpecs: .*array"),
        (ray_cluster(upgradeStrategy={"type": "Replace"}), r"spec\.upgradeStrategy\.type"),
        (ray_cluster(managedBy="me"), r"spec\.managedBy: .*kueue"),
        ({**examples.ray_cluster(), "metadata": {"name": "toy", "lables": {}}}, "metadata: .*lables"),
        ({**examples.ray_cluster(), "metadata": {"name": "Toy"}}, "metadata.name: 'Toy'"),
        ({**examples.ray_cluster(), "metadata": {"labels": {"a": "b"}}}, "metadata.name: is missing"),
        ({**examples.ray_cluster(), "metadata": {"name": "toy", "labels": {"team": "a b"}}}, "metadata.labels: 'a b'"),
        ({**examples.ray_cluster(), "metadata": {"name": "toy", "labels": {"-x": "a"}}}, "metadata.labels: '-x'"),
        ({**examples.ray_cluster(), "metadata": {"name": "toy", "annotations": {"a b": "c"}}}, "metadata.annotations: 'a b'"),
        ({**examples.ray_cluster(), "metadata": {"name": "toy", "annotations": {"a": "b" * 2**18}}}, "metadata.annotations: 262145 bytes"),
        ({**examples.ray_cluster(), "metadata": {"name": "toy", "labels": {"port": 8080}}}, r"metadata\.labels\.port: 8080"),
        ({**examples.ray_cluster(), "apiVersion": "ray.io/v1alpha1"}, "deprecated"),
        ({**examples.ray_cluster(), "apiVersion": "ray.io/v2"}, "no schema for ray.io/v2 RayCluster"),
        ({"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "metadata": {"name": "toy"}}, "no schema for policy/v1beta1"),
        ({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "toy"}}, "deprecated: use discovery.k8s.io/v1"),
        ({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "1st"}}, "metadata.name: '1st'"),
        ({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "toy"}, "data": {"key": "not base64!"}}, r"data\.key"),
        ({**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replica": 1}}, "spec: .*replica"),
        ({}, "no schema for no apiVersion no kind"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(document: dict[str, Any], problem: str, validator: Validator) -> None:
    with pytest.raises(AssertionError, match=problem):
        assert not validator.problems(document), "\n".join(validator.problems(document))


def test_a_deployment_is_right_and_a_service_too(validator: Validator) -> None:
    assert validator.problems(DEPLOYMENT) == []
    ports = [{"port": 80, "protocol": "TCP"}, {"port": 80, "protocol": "UDP"}]
    assert validator.problems({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "toy"}, "spec": {"ports": ports}}) == []


@pytest.mark.parametrize("kubernetes", ["1.28", "1.37"])
def test_manifests_can_be_held_against_a_release_of_kubernetes(kubernetes: str) -> None:
    validator = Validator(kubernetes=kubernetes)
    assert validator.problems(DEPLOYMENT) == []
    pod = {**DEPLOYMENT["spec"]["template"], "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "toy"}}
    pod["spec"] = {**pod["spec"], "resources": {"limits": {"cpu": "1"}}}
    assert bool(validator.problems(pod)) == (kubernetes == "1.28"), "resources of a whole pod came with 1.32"


def test_what_is_twice_in_a_list_by_its_keys_is_told(validator: Validator) -> None:
    document = examples.ray_cluster()
    container = document["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    container["env"] *= 2
    assert 'containers[0].env[1]: {"name": "HOME"} is there twice' in validator.problems(document)[0]


def test_a_null_counts_as_absent_and_a_default_as_given(validator: Validator) -> None:
    group = {**examples.ray_cluster()["spec"]["workerGroupSpecs"][0], "minReplicas": None, "rayStartParams": None}
    del group["maxReplicas"]
    assert validator.problems(ray_cluster(workerGroupSpecs=[group])) == []
    assert '"template" is a required' in validator.problems(ray_cluster(workerGroupSpecs=[{**group, "template": None}]))[0]


def test_a_number_that_is_a_quantity_must_be_whole(validator: Validator) -> None:
    document = examples.ray_cluster()
    limits = document["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    limits["cpu"] = 1.5
    assert "limits.cpu: 1.5" in validator.problems(document)[0]
    limits["cpu"] = "1500m"
    assert validator.problems(document) == []


def test_the_job_template_in_a_config_map_is_validated_too(validator: Validator) -> None:
    job = examples.ray_job()
    job["metadata"] = {"labels": {"team": "mri"}}
    del job["spec"]["entrypoint"]
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "echotrain-rayjob"},
        "data": {"rayjob.yaml": yaml.safe_dump(job)},
    }
    assert validator.problems(config_map) == []
    job["spec"]["bakoffLimit"] = 1
    config_map["data"] = {"rayjob.yaml": yaml.safe_dump(job)}
    assert validator.problems(config_map)[0].startswith("data['rayjob.yaml']: spec: ")
    config_map["data"] = {"rayjob.yaml": "kind: RayJob\nkind: RayJob\n"}
    assert "line 2: the key 'kind' is there twice" in validator.problems(config_map)[0]
    config_map["data"] = {"rayjob.yaml": ""}
    assert "has 0 documents" in validator.problems(config_map)[0]
    config_map["data"] = {"rayjob.yaml": "text"}
    assert "is no mapping" in validator.problems(config_map)[0]


def toy_crd(folder: Path, **spec: Any) -> Path:
    """Write a CRD of a kind Toy with a schema for its spec."""
    schema = {"type": "object", "properties": {"spec": {"type": "object", **spec}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    crd = {"spec": {"group": "toys.example", "names": {"kind": "Toy"}, "versions": [version]}}
    path = folder / "crd.yaml"
    path.write_text(yaml.safe_dump(crd))
    return path


def toy(**spec: Any) -> dict[str, Any]:
    """Return a Toy."""
    return {"apiVersion": "toys.example/v1", "kind": "Toy", "metadata": {"name": "toy"}, "spec": spec}


def test_unknown_fields_pass_where_the_crd_preserves_them(tmp_path: Path) -> None:
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"size": {"type": "integer"}}}
    validator = Validator([toy_crd(tmp_path, properties={"free": free})])
    assert validator.problems(toy(free={"anything": 1})) == []
    assert validator.problems(toy(free={"size": "1"})) != []
    assert validator.problems(toy(anything=1)) != []


def test_an_embedded_resource_has_a_kind_and_right_metadata(tmp_path: Path) -> None:
    inner = {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}
    validator = Validator([toy_crd(tmp_path, properties={"inner": inner})])
    assert validator.problems(toy(inner={"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}})) == []
    assert validator.problems(toy(inner={"kind": "Pod"})) != []
    assert validator.problems(toy(inner={"apiVersion": "v1", "kind": "Pod", "metadata": {"nam": "a"}})) != []


def test_a_cel_rule_that_is_not_known_is_a_problem_and_not_passed_over(tmp_path: Path) -> None:
    validator = Validator([toy_crd(tmp_path, **{"x-kubernetes-validations": [{"rule": "self.a < self.b"}]})])
    assert "does not know the rule self.a < self.b" in validator.problems(toy())[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0),
        ("1:30", "1:30"),
        ("2026-11-21", "2026-11-21"),
        ("yes", True),
        ("0o17", "0o17"),
        ("017", 15),
        ("1.5", 1.5),
        ("~", None),
    ],
)
def test_scalars_are_read_as_kubernetes_tools_read_them(text: str, value: Any) -> None:
    assert read_manifests(f"key: {text}") == [{"key": value}]


def test_a_key_that_is_there_twice_is_an_error_with_its_line() -> None:
    with pytest.raises(DuplicateKeyError, match="line 3: the key 'b'"):
        read_manifests("a:\n  b: 1\n  b: 2\n")
    assert read_manifests("x: &x {a: 1}\ny: {<<: *x, a: 2}") == [{"x": {"a": 1}, "y": {"a": 2}}]
    assert read_manifests("---\n---\na: 1\n") == [{"a": 1}]


PATHS = {
    "RayCluster": "/apis/ray.io/v1/namespaces/default/rayclusters",
    "RayJob": "/apis/ray.io/v1/namespaces/default/rayjobs",
    "PodMonitor": "/apis/monitoring.coreos.com/v1/namespaces/default/podmonitors",
    "LocalQueue": "/apis/kueue.x-k8s.io/v1beta2/namespaces/default/localqueues",
    "ClusterQueue": "/apis/kueue.x-k8s.io/v1beta2/clusterqueues",
}


@pytest.mark.cluster
@pytest.mark.parametrize("example", EXAMPLES)
def test_a_real_server_takes_and_refuses_the_same_mutants(
    example: Callable[[], dict[str, Any]], api_server: Cluster, validator: Validator
) -> None:
    """60 mutants of each kind with a fixed seed; ECHOTRAIN_MUTANTS=COUNT asks for more, with a seed of the day's own."""
    if not isinstance(api_server, ApiServer):
        pytest.skip("a given cluster has CRDs and webhooks of its own")
    asked = os.environ.get("ECHOTRAIN_MUTANTS", "")
    seed = random.SystemRandom().randrange(2**32) if asked else 0
    refused = 0
    for change, mutant in mutants(example(), random.Random(seed), int(asked or 60)):
        said = server_refusal(api_server, mutant)
        problems = validator.problems(mutant)
        refused += bool(said)
        assert bool(said) == bool(problems), f"seed {seed}, {change}: the server says {said}, the validator {problems}"
    assert refused


def server_refusal(server: ApiServer, document: dict[str, Any]) -> str | None:
    """Return what a server has against a document, None where it would take it."""
    try:
        server.request("POST", f"{PATHS[document['kind']]}?dryRun=All&fieldValidation=Strict", document)
    except urllib.error.HTTPError as error:
        message: str = json.loads(error.read())["message"]
        return message
    return None
