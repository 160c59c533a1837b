"""The network path of every shape: policies let through what Ray, KubeRay and Prometheus need and nothing else; selectors find their pods.

Where a pod connects to is read from its own environment, not from the values that made the policies.
"""

import functools
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.k8s.chart import CHART, SHAPES
from tests.k8s.helm import Helm
from tests.k8s.kuberay_labels import cleanup_labels, head_service
from tests.k8s.kustomize import GROUND
from tests.k8s.manifests import read_manifests
from tests.k8s.network import Machine, Network, Pod, matches, pod_of
from tests.k8s.pods import pods_of
from tests.k8s.schemas import embedded_rayjob

pytestmark = pytest.mark.helm

ALL = ["default", *SHAPES]
STANDING = [shape for shape in ALL if shape != "kueue"]
GCS, DASHBOARD, CLIENT, METRICS = 6379, 8265, 10001, 8080
HTTPS, API_SERVER_PORT = 443, 6443
DEFAULT_PORTS = {"http": 80, "https": HTTPS, "redis": GCS, "rediss": GCS}
OPERATOR = Pod(namespace="kuberay-system", labels={"app.kubernetes.io/name": "kuberay-operator"})
PROMETHEUS = Pod(namespace="monitoring", labels={"app.kubernetes.io/name": "prometheus"})
STRANGER = Pod(namespace="elsewhere", labels={"app.kubernetes.io/name": "echotrain", "app.kubernetes.io/instance": "echotrain"})
NEIGHBOUR = Pod(namespace="echotrain", labels={"app.kubernetes.io/name": "echotrain", "app.kubernetes.io/instance": "other"})
CLUSTER_DNS = Pod(namespace="kube-system", labels={"k8s-app": "kube-dns"})
NODE_DNS = Machine(address="169.254.20.10")
OUTSIDE = Machine(address="8.8.8.8")
API_SERVER = Machine(address="10.0.0.1")


class Scene:
    """What a shape renders, and the pods that come of it."""

    def __init__(self, documents: list[dict[str, Any]]) -> None:
        self.documents = documents
        self.allows = Network(documents).allows
        self.manifests = pods_of(documents)
        self.pods = [pod_of(manifest) for manifest in self.manifests]
        self.heads = [pod for pod in self.pods if pod.labels.get("ray.io/node-type") == "head"]
        self.workers = [pod for pod in self.pods if pod.labels.get("ray.io/node-type") == "worker"]
        self.submitters = [pod for pod in self.pods if "job-name" in pod.labels]
        self.standing = [head for head in self.heads if head.labels["ray.io/cluster"] in self.names("RayCluster")]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the documents of a kind."""
        return [document for document in self.documents if document["kind"] == kind]

    def names(self, kind: str) -> list[str]:
        """Return their names."""
        return [document["metadata"]["name"] for document in self.of(kind)]

    def in_clusters(self) -> Iterator[tuple[Pod, list[Pod]]]:
        """Yield each head with the workers of its cluster."""
        for head in self.heads:
            cluster = head.labels["ray.io/cluster"]
            yield head, [worker for worker in self.workers if worker.labels["ray.io/cluster"] == cluster]

    def chosen(self, selector: dict[str, Any]) -> list[Pod]:
        """Return the pods that a selector selects."""
        return [pod for pod in self.pods if matches(selector, pod.labels)]

    def services(self) -> Iterator[tuple[Pod, str]]:
        """Yield each Ray pod with the URLs that its environment sends it to."""
        for manifest, pod in zip(self.manifests, self.pods, strict=True):
            env = {entry["name"]: entry.get("value") for entry in manifest["spec"]["containers"][0]["env"]}
            if "AWS_REGION" in env:
                yield pod, env.get("AWS_ENDPOINT_URL", "https://s3.amazonaws.com")
            if "WANDB_API_KEY" in env:
                yield pod, env.get("WANDB_BASE_URL", "https://api.wandb.ai")

    def redis(self) -> Iterator[tuple[Pod, str]]:
        """Yield who speaks with Redis: the standing head, and the pod that cleans up after it."""
        for cluster in self.of("RayCluster"):
            address = cluster["spec"].get("gcsFaultToleranceOptions", {}).get("redisAddress")
            if address:
                labels = cleanup_labels(cluster["metadata"]["name"], cluster["spec"]["headGroupSpec"])
                for pod in (*self.standing, Pod(namespace="echotrain", labels=labels)):
                    yield pod, address


@functools.cache
def scene(helm: Helm, shape: str, *flags: str) -> Scene:
    values = ("--values", SHAPES[shape]) if shape in SHAPES else ()
    return Scene(helm.template("echotrain", CHART, "--namespace", "echotrain", *values, *flags))


def settings(*pairs: str) -> list[str]:
    return [flag for pair in pairs for flag in ("--set-json", pair)]


def ends_at(url: str) -> tuple[Pod | Machine, int]:
    """Return where a URL leads: to a pod behind a Service, into the hospital's own addresses, or out."""
    parts = urlsplit(url)
    assert parts.hostname
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    if parts.hostname.endswith((".svc", ".svc.cluster.local")):
        service, namespace = parts.hostname.split(".")[:2]
        return Pod(namespace=namespace, labels={"app": service}), port
    return Machine(address="10.20.30.40" if parts.hostname.endswith(".internal") else "52.216.0.1"), port


@pytest.mark.parametrize("shape", ALL)
def test_pods_of_a_cluster_reach_each_other_at_any_port(helm4: Helm, shape: str):
    here = scene(helm4, shape)
    assert here.heads
    for head, workers in here.in_clusters():
        assert workers
        assert all(here.allows(worker, head, GCS) for worker in workers)
        for port in (1024, 31337, 65535):
            assert all(here.allows(one, other, port) for one in (head, *workers) for other in (head, *workers))


@pytest.mark.parametrize("shape", ALL)
def test_the_operator_and_the_submitter_reach_the_dashboard_of_heads(helm4: Helm, shape: str):
    here = scene(helm4, shape)
    assert here.submitters
    for head in here.heads:
        assert all(here.allows(source, head, DASHBOARD) for source in (OPERATOR, *here.submitters))


@pytest.mark.parametrize("shape", ALL)
def test_an_ingress_controller_reaches_the_dashboard_only_where_it_is_named(helm4: Helm, shape: str):
    here = scene(helm4, shape)
    for head in here.heads:
        assert here.allows(Pod(namespace="ingress-nginx"), head, DASHBOARD) == (shape == "multi-node-efa")


@pytest.mark.parametrize("shape", ALL)
@pytest.mark.parametrize("port", [GCS, DASHBOARD, CLIENT, METRICS])
def test_nobody_else_reaches_ray(helm4: Helm, shape: str, port: int):
    here = scene(helm4, shape)
    others = [STRANGER, NEIGHBOUR, OUTSIDE, CLUSTER_DNS, *([OPERATOR] if port != DASHBOARD else [])]
    assert not any(here.allows(source, target, port) for source in others for target in here.pods)


@pytest.mark.parametrize("shape", ALL)
def test_every_pod_resolves_names(helm4: Helm, shape: str):
    here = scene(helm4, shape)
    for protocol in ("UDP", "TCP"):
        assert all(here.allows(pod, server, 53, protocol) for pod in here.pods for server in (CLUSTER_DNS, NODE_DNS))


@pytest.mark.parametrize("shape", ALL)
def test_ray_pods_reach_the_services_of_their_environment(helm4: Helm, shape: str):
    here = scene(helm4, shape)
    asked = list(here.services())
    assert all(pod in [asker for asker, _ in asked] for pod in (*here.heads, *here.workers))
    assert [(pod, url) for pod, url in asked if not here.allows(pod, *ends_at(url))] == []


@pytest.mark.parametrize("shape", ALL)
def test_the_state_of_the_head_is_kept_and_cleaned_up_where_redis_is(helm4: Helm, shape: str):
    here = scene(helm4, shape)
    asked = list(here.redis())
    assert bool(asked) == (shape == "multi-node-efa")
    for pod, url in asked:
        redis, port = ends_at(url)
        assert here.allows(pod, redis, port)
        assert not here.allows(pod, STRANGER, port)


@pytest.mark.parametrize("shape", STANDING)
@pytest.mark.parametrize("port", [HTTPS, API_SERVER_PORT])
def test_the_autoscaler_reaches_the_api_server(helm4: Helm, shape: str, port: int):
    here = scene(helm4, shape)
    (head,) = here.standing
    assert here.allows(head, API_SERVER, port)
    # On a node, as kind and kubeadm have it, where the operator names no range: none would match.
    assert here.allows(head, Machine(address=API_SERVER.address, is_node=True), port) == (shape != "air-gapped")


@pytest.mark.parametrize("shape", ALL)
def test_no_other_pod_reaches_the_api_server_but_by_a_port_of_its_own_services(helm4: Helm, shape: str):
    here = scene(helm4, shape)
    denied = {HTTPS, API_SERVER_PORT} - {ends_at(url)[1] for _, url in here.services()}
    assert API_SERVER_PORT in denied
    for pod in here.pods:
        for port in denied if pod not in here.standing else ():
            assert not here.allows(pod, API_SERVER, port)
            assert not here.allows(pod, Machine(address=API_SERVER.address, is_node=True), port)


@pytest.mark.parametrize("shape", ALL)
def test_no_pod_reaches_any_other_port(helm4: Helm, shape: str):
    here = scene(helm4, shape)
    targets = (OUTSIDE, API_SERVER, STRANGER, NEIGHBOUR)
    assert not any(here.allows(pod, target, port) for pod in here.pods for target in targets for port in (22, 25, 80, 3306, 8080))
    assert not any(here.allows(pod, OUTSIDE, HTTPS, "UDP") for pod in here.pods)


def test_a_hospital_without_a_way_out_has_none(helm4: Helm):
    here = scene(helm4, "air-gapped")
    ports = {ends_at(url)[1] for _, url in here.services()}
    assert ports == {HTTPS, 9000}
    assert not any(here.allows(pod, OUTSIDE, port) for pod in here.pods for port in (*ports, API_SERVER_PORT))


def test_without_ranges_nothing_outside_is_reached_and_services_inside_are(helm4: Helm):
    here = scene(helm4, "one-gpu-node", *settings("networkPolicy.egressCIDRs=[]"))
    store, wandb = (next(url for _, url in here.services() if part in url) for part in ("minio", "wandb"))
    for pod in (*here.heads, *here.workers):
        assert here.allows(pod, *ends_at(store))
        # The autoscaler may still go anywhere by the API server's ports, and with it the standing head.
        assert here.allows(pod, *ends_at(wandb)) == (pod in here.standing)
        assert not here.allows(pod, OUTSIDE, 9000)


@pytest.mark.parametrize("uri", ["gs://mri/a", "az://mri/a"])
@pytest.mark.parametrize("secret", ["", "keys"])
def test_a_store_of_google_or_azure_is_reached_and_who_gives_an_identity_where_one_is_needed(helm4: Helm, uri: str, secret: str):
    here = scene(helm4, "default", *settings(f'storage.uri="{uri}"', 'storage.endpoint=""', f'storage.existingSecret="{secret}"'))
    for pod in here.heads + here.workers:
        assert here.allows(pod, OUTSIDE, HTTPS)
        for address in ("169.254.169.254", "169.254.169.252"):
            assert here.allows(pod, Machine(address=address), 80) == (uri.startswith("gs") and not secret)
        assert not here.allows(pod, OUTSIDE, 80)


def test_a_wandb_server_inside_is_reached_where_it_is_and_where_addresses_are_limited(helm4: Helm):
    url = "http://wandb.curves.svc.cluster.local:8080"
    flags = settings('wandb.existingSecret="wandb"', f'wandb.url="{url}"', 'networkPolicy.egressCIDRs=["10.0.0.0/8"]')
    here = scene(helm4, "default", *flags)
    assert url in {asked for _, asked in here.services()}
    for pod, asked in here.services():
        assert here.allows(pod, *ends_at(asked))
        assert not here.allows(pod, STRANGER, ends_at(asked)[1])


def test_a_redis_outside_is_reached_within_the_ranges(helm4: Helm):
    redis = '{"address": "redis://redis.hospital.internal:6380", "existingSecret": "redis"}'
    here = scene(helm4, "air-gapped", *settings('gcs.faultTolerance="redis"', f"gcs.redis={redis}"))
    asked = list(here.redis())
    assert asked
    for pod, url in asked:
        assert here.allows(pod, *ends_at(url))
        assert not here.allows(pod, OUTSIDE, 6380)


def test_the_s3_server_of_kind_answers_the_chart_s_pods_and_nobody_else(helm4: Helm):
    chart = scene(helm4, "laptop")
    server = read_manifests((GROUND / "overlays" / "kind" / "s3.yaml").read_text())
    (store,) = [pod_of(pod) for pod in pods_of(server)]
    (service,) = [document for document in server if document["kind"] == "Service"]
    (port,) = service["spec"]["ports"]
    allows = Network([*chart.documents, *server]).allows
    assert matches({"matchLabels": service["spec"]["selector"]}, store.labels)
    for pod, url in chart.services():
        assert urlsplit(url).hostname == "s3.echotrain.svc.cluster.local"
        assert urlsplit(url).port == port["port"]
        # A policy sees the pod's port, whatever the Service's is.
        assert allows(pod, store, store.ports[port["targetPort"]])
    assert not any(allows(other, store, 9000) for other in (STRANGER, NEIGHBOUR, OPERATOR))
    assert not any(allows(store, pod, port) for pod in chart.pods for port in (GCS, DASHBOARD, METRICS))


@pytest.mark.parametrize("shape", ALL)
def test_prometheus_reaches_the_ports_that_the_monitor_names_and_no_others(helm4: Helm, shape: str):
    here = scene(helm4, shape)
    monitors = here.of("PodMonitor")
    assert bool(monitors) == (shape == "multi-node-efa")
    named = {endpoint["port"] for monitor in monitors for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    for pod in (*here.heads, *here.workers):
        read = {port for name, port in pod.ports.items() if name in named}
        expected = {METRICS} | ({44217, 44227} if pod in here.heads else set())
        assert read == (expected if monitors else set())
        assert {port for port in (*expected, GCS, DASHBOARD, CLIENT) if here.allows(PROMETHEUS, pod, port)} == read


@pytest.mark.parametrize("flags", [(), ("--set", "fullnameOverride=study"), ("--set", "commonLabels.team=mri")])
@pytest.mark.parametrize("shape", ["default", "kueue", "multi-node-efa"])
def test_the_monitor_selects_ray_s_pods_and_the_budget_the_standing_head(helm4: Helm, shape: str, flags: tuple[str, ...]):
    here = scene(helm4, shape, "--set", "monitoring.podMonitor=true", *flags)
    (monitor,) = here.of("PodMonitor")
    assert here.chosen(monitor["spec"]["selector"]) == [pod for pod in here.pods if pod not in here.submitters]
    assert "namespaceSelector" not in monitor["spec"]
    assert monitor["metadata"]["namespace"] == "echotrain"
    budgets = [here.chosen(budget["spec"]["selector"]) for budget in here.of("PodDisruptionBudget")]
    assert budgets == [[head] for head in here.standing]
    # The pod that cleans up in Redis would be a second one under the budget.
    cleaners = [labels for pod, _ in here.redis() if (labels := pod.labels)["ray.io/node-type"] == "redis-cleanup"]
    assert not any(matches(budget["spec"]["selector"], labels) for budget in here.of("PodDisruptionBudget") for labels in cleaners)


@pytest.mark.parametrize("flags", [(), ("--set", "fullnameOverride=study"), ("--set", "commonLabels.team=mri")])
@pytest.mark.parametrize("shape", ALL)
def test_kuberay_s_services_find_the_heads_and_their_ports(helm4: Helm, shape: str, flags: tuple[str, ...]):
    here = scene(helm4, shape, *flags)
    specs = [cluster["spec"] for cluster in here.of("RayCluster")]
    specs += [job["spec"]["rayClusterSpec"] for document in here.documents if (job := embedded_rayjob(document))]
    assert len(specs) == len(here.heads) == 1 + len(here.standing)
    for head, spec in zip(here.heads, specs, strict=True):
        service = head_service(head.labels["ray.io/cluster"], spec)
        assert here.chosen({"matchLabels": service["selector"]}) == [head]
        wanted = {"gcs-server": GCS, "dashboard": DASHBOARD, "client": CLIENT, "metrics": METRICS}
        assert wanted.items() <= service["ports"].items()
    for head in here.standing:
        assert head.labels["ray.io/cluster"] == ("study" if "fullnameOverride=study" in flags else "echotrain")
