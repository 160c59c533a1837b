"""The ground and the chart together: nothing is in both, an operator's rights are enough, and what jobs request is in the queue."""

import itertools
import tomllib

import pytest
import yaml

from tests.k8s.chart import CHART, SHAPES, chart_for
from tests.k8s.kustomize import GROUND, OVERLAYS, build, named
from tests.k8s.quantities import amount, pod_requests, total
from tests.k8s.schemas import embedded_rayjob

pytestmark = [pytest.mark.helm, pytest.mark.usefixtures("kubectl")]

VALUES = {"defaults": CHART / "values.yaml", **SHAPES}
# Where an operator with these values would be; elsewhere on the base.
OVERLAY_OF = {"defaults": "overlays/kind", "laptop": "overlays/kind", "multi-node-efa": "overlays/eks"}
# What kubectl calls the kinds that the chart may make.
PLURALS = {
    "ConfigMap": "configmaps",
    "LocalQueue": "localqueues",
    "NetworkPolicy": "networkpolicies",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "PodMonitor": "podmonitors",
    "PriorityClass": "priorityclasses",
    "PrometheusRule": "prometheusrules",
    "RayCluster": "rayclusters",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ServiceAccount": "serviceaccounts",
}
# What Helm does to what it manages; it keeps its releases in Secrets.
HELMS_VERBS = {"get", "list", "create", "update", "patch", "delete"}


@pytest.fixture(params=VALUES)
def values(request):
    return request.param


@pytest.fixture
def rendered(values, helm4):
    return helm4.template("echotrain", CHART, "--namespace", "echotrain", "--values", VALUES[values])


@pytest.fixture
def overlay(values):
    return build(OVERLAY_OF.get(values, "base"))


def job_pods(rendered):
    """Return the pod specs of the job template: head, a pod of each group, submitter."""
    (job,) = (job for each in rendered if (job := embedded_rayjob(each)) is not None)
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [*(group["template"]["spec"] for group in groups), job["spec"]["submitterPodTemplate"]["spec"]]


def flavors_for(pod, overlay):
    """Return the flavors that Kueue would consider for a pod: those that its selector of nodes does not speak against, and big enough."""
    (group,) = named(overlay, "ClusterQueue", "echotrain")["spec"]["resourceGroups"]
    labels = {
        flavor["name"]: named(overlay, "ResourceFlavor", flavor["name"]).get("spec", {}).get("nodeLabels", {})
        for flavor in group["flavors"]
    }
    keys = set(itertools.chain.from_iterable(labels.values()))
    wanted = {key: value for key, value in pod.get("nodeSelector", {}).items() if key in keys}
    requests = pod_requests(pod)
    return [
        flavor["name"]
        for flavor in group["flavors"]
        if wanted.items() <= labels[flavor["name"]].items()
        and all(amount(each["nominalQuota"]) >= requests.get(each["name"], 0) for each in flavor["resources"])
    ]


def allowed(role, api_group, resource):
    rules = [rule for rule in role["rules"] if api_group in rule["apiGroups"] and resource in rule["resources"]]
    return {verb for rule in rules for verb in rule["verbs"]}


def test_nothing_is_both_in_the_ground_and_in_the_chart(rendered):
    def things(documents):
        return {(each["apiVersion"].split("/")[0], each["kind"], each["metadata"]["name"]) for each in documents}

    assert not things(rendered) & set().union(*(things(build(overlay)) for overlay in OVERLAYS))


def test_every_resource_that_a_job_requests_is_covered_by_the_queue(rendered, overlay):
    (group,) = named(overlay, "ClusterQueue", "echotrain")["spec"]["resourceGroups"]
    requested = {name for pod in job_pods(rendered) for name in pod_requests(pod)}
    assert requested <= set(group["coveredResources"])


def test_pods_with_gpus_find_one_kind_of_nodes_and_those_without_any(rendered, overlay, values):
    uses_kueue = yaml.safe_load(VALUES[values].read_text()).get("kueue", {}).get("queue")
    for pod in job_pods(rendered):
        found = flavors_for(pod, overlay)
        if pod_requests(pod).get("nvidia.com/gpu"):
            assert len(found) == 1
            assert found != ["cpu"]
        elif uses_kueue:
            assert found[:1] == ["cpu"]


@pytest.mark.parametrize("values", ["defaults", "laptop"], indirect=True)
def test_one_job_fits_the_laptops_queue_and_the_standing_cluster_its_quota_beside_it(rendered, overlay):
    (group,) = named(overlay, "ClusterQueue", "echotrain")["spec"]["resourceGroups"]
    queue = {each["name"]: amount(each["nominalQuota"]) for each in group["flavors"][0]["resources"]}
    job = total(pod_requests(pod) for pod in job_pods(rendered))
    assert all(job[name] <= queue[name] for name in job)
    cluster = named(rendered, "RayCluster", "echotrain")["spec"]
    standing = [pod_requests(cluster["headGroupSpec"]["template"]["spec"])]
    for group in cluster["workerGroupSpecs"]:
        standing += [pod_requests(group["template"]["spec"])] * group["maxReplicas"]
    standing += [cluster["autoscalerOptions"]["resources"]["requests"]]
    standing += [pod_requests(named(overlay, "StatefulSet", "s3")["spec"]["template"]["spec"])]
    needed = total([job, *standing])
    quota = named(overlay, "ResourceQuota", "echotrain")["spec"]["hard"]
    assert all(needed[name] <= amount(quota[f"requests.{name}"]) for name in ("cpu", "memory"))


def test_the_standing_clusters_volumes_fit_the_quota(rendered, overlay):
    quota = named(overlay, "ResourceQuota", "echotrain")["spec"]["hard"]
    limits = named(overlay, "LimitRange", "echotrain")["spec"]["limits"]
    (largest,) = (amount(each["max"]["storage"]) for each in limits if each["type"] == "PersistentVolumeClaim")
    for cluster in (each["spec"] for each in rendered if each["kind"] == "RayCluster"):
        groups = [(cluster["headGroupSpec"], 1), *((group, group["maxReplicas"]) for group in cluster["workerGroupSpecs"])]
        volumes = [
            amount(volume["ephemeral"]["volumeClaimTemplate"]["spec"]["resources"]["requests"]["storage"])
            for group, replicas in groups
            for volume in group["template"]["spec"]["volumes"] * replicas
            if "ephemeral" in volume
        ]
        assert max(volumes, default=0) <= largest
        assert sum(volumes) <= amount(quota["requests.storage"])
        assert len(volumes) <= amount(quota["persistentvolumeclaims"])


def test_operators_may_do_to_everything_in_the_chart_what_helm_does(rendered):
    role, cluster_role = (named(build("base"), kind, "echotrain-operator") for kind in ("Role", "ClusterRole"))
    assert allowed(role, "", "secrets") >= HELMS_VERBS
    for document in rendered:
        api_group = document["apiVersion"].rpartition("/")[0]
        held = cluster_role if document["kind"] == "PriorityClass" else role
        assert allowed(held, api_group, PLURALS[document["kind"]]) >= HELMS_VERBS, document["kind"]


def test_operators_hold_all_that_they_grant_to_researchers(rendered):
    role = named(build("base"), "Role", "echotrain-operator")
    for rule in named(rendered, "Role", "echotrain-researcher")["rules"]:
        for api_group, resource in itertools.product(rule["apiGroups"], rule["resources"]):
            assert allowed(role, api_group, resource) >= set(rule["verbs"]), resource


def test_the_image_has_one_name_and_version_everywhere():
    version = tomllib.loads((GROUND.parent / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version
    image = f"{yaml.safe_load((CHART / 'values.yaml').read_text())['image']['repository']}:{version}"
    server = named(build("overlays/kind"), "StatefulSet", "s3")["spec"]["template"]["spec"]
    assert {each["image"] for each in server["containers"]} == {image}
    assert f"image: {image}\n" in (GROUND / "pipelines/pipeline.yaml").read_text()
    assert f"--tag {image} --load" in (GROUND / "README.md").read_text()


@pytest.mark.cluster
@pytest.mark.slow
def test_an_operator_who_is_no_admin_installs_upgrades_and_removes_the_chart(api_server, helm, kubectl, tmp_path):
    if not api_server.is_own:
        pytest.skip("would change the namespace echotrain of this cluster")
    api_server.run(kubectl, "apply", "--server-side", "-k", GROUND / "base")
    here = helm.on(api_server)
    settings = ["--values", SHAPES["kueue"], "--set=cluster.enabled=true", "--set=podDisruptionBudget.enabled=false"]
    settings += [f"--set=monitoring.{part}=true" for part in ("podMonitor", "alerts", "dashboards")]
    settings += ["--set=priorities.create.echotrain-high=1000"]
    install = ["upgrade", "--install", "team-b", chart_for(api_server, tmp_path), "--namespace", "echotrain", *settings]
    operator = ["--kube-as-user", "olga", "--kube-as-group", "echotrain-operators"]
    with pytest.raises(RuntimeError, match="forbidden"):
        here.run(*install, "--kube-as-user", "olga", "--kube-as-group", "echotrain-researchers")
    here.run(*install, *operator)
    here.run(*install, *operator, "--set", "image.tag=another")
    here.run("uninstall", "team-b", "--namespace", "echotrain", *operator)
    kinds, label = "rayclusters,roles,configmaps,localqueues", "app.kubernetes.io/instance=team-b"
    assert not api_server.run(kubectl, "--namespace", "echotrain", "get", kinds, "--selector", label, "--output", "name").stdout
