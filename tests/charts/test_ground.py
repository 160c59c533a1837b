"""The ground: what every overlay builds, what it lets in, and that its quotas go together."""

import json
import re

import pytest
import yaml

from tests.k8s.crds import crd_files
from tests.k8s.kustomize import GROUND, OVERLAYS, build, named
from tests.k8s.quantities import amount
from tests.k8s.schemas import NEWEST_KUBERNETES, Validator

pytestmark = [pytest.mark.helm, pytest.mark.usefixtures("kubectl")]


def pod_specs(documents):
    return [each["spec"]["template"]["spec"] for each in documents if each["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job")]


def containers(pod):
    return [*pod.get("initContainers", ()), *pod["containers"]]


@pytest.fixture(scope="module", params=["1.28", NEWEST_KUBERNETES])
def validator(request):
    return Validator(crd_files(), kubernetes=request.param)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_document_is_valid_on_the_oldest_and_the_newest_kubernetes(overlay, validator):
    problems = {(each["kind"], each["metadata"]["name"]): validator.problems(each) for each in build(overlay)}
    assert not {thing: found for thing, found in problems.items() if found}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_labelled_and_in_the_namespace_or_the_clusters(overlay):
    cluster_wide = {
        "Namespace",
        "ClusterRole",
        "ClusterRoleBinding",
        "ClusterQueue",
        "ResourceFlavor",
        "WorkloadPriorityClass",
        "StorageClass",
    }
    for document in build(overlay):
        metadata = document["metadata"]
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "echotrain", metadata["name"]
        assert metadata.get("namespace") == (None if document["kind"] in cluster_wide else "echotrain"), metadata["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_overlay_makes_a_thing_twice_or_holds_a_secret(overlay):
    documents = build(overlay)
    things = [(each["kind"], each["metadata"]["name"]) for each in documents]
    assert len(things) == len(set(things))
    assert "Secret" not in {kind for kind, _ in things}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_namespace_refuses_pods_that_are_not_restricted(overlay):
    labels = named(build(overlay), "Namespace", "echotrain")["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_kueue_admits_fits_the_quota_of_the_namespace(overlay):
    documents = build(overlay)
    quota = named(documents, "ResourceQuota", "echotrain")["spec"]["hard"]
    (group,) = named(documents, "ClusterQueue", "echotrain")["spec"]["resourceGroups"]
    for resource in group["coveredResources"]:
        admitted = sum(
            amount(each["nominalQuota"]) for flavor in group["flavors"] for each in flavor["resources"] if each["name"] == resource
        )
        if resource == "ephemeral-storage":
            assert f"requests.{resource}" not in quota  # The nodes' own disks are counted by Kueue alone.
        elif admitted:
            assert amount(quota[f"requests.{resource}"]) >= admitted, resource
    assert amount(quota["limits.memory"]) == amount(quota["requests.memory"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_queue_is_one_that_kueues_webhook_takes(overlay):
    """Every flavor names the covered resources in their order, exists, and pods without GPUs have one that is not kept for GPUs."""
    documents = build(overlay)
    queue = named(documents, "ClusterQueue", "echotrain")["spec"]
    (group,) = queue["resourceGroups"]
    for flavor in group["flavors"]:
        assert [each["name"] for each in flavor["resources"]] == group["coveredResources"], flavor["name"]
        spec = named(documents, "ResourceFlavor", flavor["name"]).get("spec", {})
        gpus = sum(amount(each["nominalQuota"]) for each in flavor["resources"] if each["name"] == "nvidia.com/gpu")
        assert bool(gpus) == bool(spec.get("nodeLabels")) == bool(spec.get("tolerations")), flavor["name"]
    assert len(group["flavors"]) == sum(each["kind"] == "ResourceFlavor" for each in documents)
    assert group["flavors"][0]["name"] == "cpu"
    namespace = named(documents, "Namespace", "echotrain")["metadata"]["name"]
    assert queue["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": namespace}}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_job_of_high_priority_is_above_one_that_asks_for_none_and_low_is_below(overlay):
    values = {each["metadata"]["name"]: each["value"] for each in build(overlay) if each["kind"] == "WorkloadPriorityClass"}
    assert values["echotrain-low"] < values["echotrain-normal"] == 0 < values["echotrain-high"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_operators_hold_no_more_of_the_cluster_than_they_read(overlay):
    rules = named(build(overlay), "ClusterRole", "echotrain-operator")["rules"]
    changed = [rule for rule in rules if set(rule["verbs"]) - {"get", "list", "watch"}]
    assert {resource for rule in changed for resource in rule["resources"]} == {"priorityclasses"}
    assert not any("*" in rule[field] for rule in rules for field in ("apiGroups", "resources", "verbs"))


def test_pods_are_restricted_small_and_replaceable():
    pods = [pod for overlay in OVERLAYS for pod in pod_specs(build(overlay))]
    assert pods
    for pod in pods:
        context = pod["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"], context["seccompProfile"]["type"]) == (True, 1000, "RuntimeDefault")
        assert pod["automountServiceAccountToken"] is False
        for container in containers(pod):
            own = container["securityContext"]
            assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"], own["capabilities"]) == (False, True, {"drop": ["ALL"]})
            resources = container["resources"]
            assert resources["requests"]["memory"] == resources["limits"]["memory"]
            assert resources["requests"]["cpu"]
        assert all({"readinessProbe", "livenessProbe"} <= set(container) for container in pod["containers"])


def test_the_kind_overlay_serves_what_the_charts_defaults_ask_for():
    documents = build("overlays/kind")
    service = named(documents, "Service", "s3")["spec"]
    pod = named(documents, "StatefulSet", "s3")["spec"]["template"]
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    assert [port["port"] for port in service["ports"]] == [9000]
    (server,) = pod["spec"]["containers"]
    keys = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in server["env"] if "valueFrom" in each}
    assert keys == {key: {"name": "echotrain-s3", "key": key} for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    assert "-bucket=echotrain" in server["args"]


def test_only_our_own_pods_reach_the_s3_of_the_kind_overlay():
    documents = build("overlays/kind")
    policy = named(documents, "NetworkPolicy", "s3")["spec"]
    pod = named(documents, "StatefulSet", "s3")["spec"]["template"]
    assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert policy["ingress"] == [
        {
            "from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "echotrain"}}}],
            "ports": [{"port": "http", "protocol": "TCP"}],
        }
    ]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy


def test_one_service_account_alone_may_take_the_iam_role_and_the_role_one_bucket():
    iam = GROUND / "overlays/eks/iam"
    trusts = [json.loads((iam / f"{name}.json").read_text())["Statement"] for name in ("trust_pod_identity", "trust_irsa")]
    (pod_identity,), (irsa,) = trusts
    tags = pod_identity["Condition"]["StringEquals"]
    assert (tags["aws:RequestTag/kubernetes-namespace"], tags["aws:RequestTag/kubernetes-service-account"]) == ("echotrain", "echotrain")
    assert irsa["Condition"]["StringEquals"]["OIDC_PROVIDER:sub"] == "system:serviceaccount:echotrain:echotrain"
    allowed = json.loads((iam / "permissions.json").read_text())["Statement"]
    assert all(each["Resource"].startswith("arn:aws:s3:::BUCKET") and "*" not in str(each["Action"]) for each in allowed)
    (denied,) = json.loads((iam / "bucket_policy.json").read_text())["Statement"]
    assert denied["Effect"] == "Deny"


def test_no_file_of_the_ground_holds_a_key():
    smells = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN|(?i:password|token|secret(?:_access)?_key)\s*[:=]\s*['\"]?[A-Za-z0-9+/]{12,}")
    for path in GROUND.rglob("*"):
        if path.is_file():
            assert not smells.search(path.read_text()), path


def test_kinds_of_the_ground_are_each_in_a_file_of_one_overlay():
    """A patch aside, no two files define the same thing."""
    defined = []
    for kustomization in GROUND.rglob("kustomization.yaml"):
        for resource in yaml.safe_load(kustomization.read_text())["resources"]:
            path = kustomization.parent / resource
            if path.is_file():
                defined += [(path.parent.name, each["kind"], each["metadata"]["name"]) for each in yaml.safe_load_all(path.read_text())]
    assert len(defined) == len(set(defined))
