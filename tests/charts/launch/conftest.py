"""What the launcher's tests share: a researcher's desk before an API server, with a node behind it."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from echotrain.launching import jobs
from echotrain.launching.follow import Pace
from ray_jobs import launch
from tests.k8s.api_server import ApiServer
from tests.k8s.chart import CHART, Release, chart_for
from tests.k8s.cluster import Cluster
from tests.k8s.desk import Desk, Screen
from tests.k8s.helm import Helm
from tests.k8s.kubelet import Kubelet
from tests.k8s.wire import Wire

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server(api_server: Cluster) -> ApiServer:
    """Return the cluster where it is the tests' own: on a real one, a real operator would play along."""
    if not isinstance(api_server, ApiServer):
        pytest.skip("the operator is played on the tests' own API server only")
    return api_server


@pytest.fixture(scope="session")
def kubelet(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubelet]:
    with Kubelet(server, tmp_path_factory.mktemp("kubelet"), "launch-node") as kubelet:
        yield kubelet


@pytest.fixture
def wire(server: ApiServer) -> Iterator[Wire]:
    """Return a wire to the API server that can be cut."""
    with Wire(int(server.url.rpartition(":")[2])) as wire:
        yield wire


@pytest.fixture(scope="session")
def rights(helm4: Helm) -> list[dict]:
    """Return the chart's Role, and its binding to the group of researchers."""
    group = ("--set", "rbac.researchers.groups={researchers}")
    return helm4.template("echotrain", CHART, "--show-only", "templates/rbac.yaml", *group)


@pytest.fixture
def desk(server: ApiServer, kubelet: Kubelet, wire: Wire, rights: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Return the desk of a researcher, who has the chart's permissions in a namespace of this test's own."""
    namespace = f"launch-{next(_numbers)}"
    server.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    config = json.loads(server.as_user("alice", "researchers").read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{wire.port}"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    screen, output = Screen(), Screen()
    monkeypatch.setattr(launch, "console", Console(file=screen, width=200, soft_wrap=True))
    monkeypatch.setattr(launch, "PACE", Pace(starting=1, running=1, least=0.05, patience=20, drain=10))
    monkeypatch.setattr(jobs, "_EVENTS_EVERY_S", 0.0)
    return Desk(server, kubelet, namespace, rights, screen, output)


@pytest.fixture
def release(desk: Desk, helm4: Helm, kubectl: Path, tmp_path: Path) -> Iterator[Release]:
    """Return a release that is not installed yet, of the chart itself, in the desk's namespace."""
    chart = chart_for(desk.server, tmp_path)
    release = Release(helm=helm4, cluster=desk.server, kubectl=kubectl, namespace=desk.namespace, chart=chart)
    yield release
    # PriorityClasses are the whole cluster's.
    release.helm.on(release.cluster).run("uninstall", release.name, "--namespace", release.namespace, "--ignore-not-found")
