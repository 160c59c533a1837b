"""What the charts' tests share: both Helms, kubectl, and an API server with the CRDs of the prerequisites."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from echotrain.errors import ResourceError
from tests.k8s.api_server import ApiServer, find_api_server
from tests.k8s.chart import CHART, MakeRelease, Release, chart_for, make_namespace
from tests.k8s.cluster import KUBECONFIG_VARIABLE, Cluster, GivenCluster
from tests.k8s.crds import crd_files
from tests.k8s.helm import Helm
from tests.k8s.tools import find_tool

# KubeRay's largest CRDs, of kinds that nothing of ours makes: each costs a server about a second.
_UNUSED = ("ray.io_rayservices", "ray.io_raycronjobs")


@pytest.fixture(scope="session")
def kubectl() -> Path:
    """Return kubectl, or skip. Tests that ask for it are marked ``helm``."""
    return _tool("kubectl")


@pytest.fixture(params=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Return each Helm in turn, or skip. Tests that ask for it are marked ``helm``."""
    return Helm(executable=_tool(request.param), major=int(request.param[-1]), folder=tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def helm4(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Return the newer Helm alone: for renders, where both say the same (which ``helm`` tests)."""
    return Helm(executable=_tool("helm4"), major=4, folder=tmp_path_factory.mktemp("helm4"))


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return one API server with the newest CRDs for the session, or skip. Tests that ask for it are marked ``cluster``.

    It is shared: a test uses a namespace of its own, and who installs other CRDs puts the newest back. Where
    ``ECHOTRAIN_TEST_KUBECONFIG`` names a cluster, it is that one.
    """
    crds = [path for path in crd_files() if not path.name.startswith(_UNUSED)]
    named = os.environ.get(KUBECONFIG_VARIABLE, "")
    if named:
        given = GivenCluster(Path(named), _tool("kubectl"), tmp_path_factory.mktemp("given"))
        given.install_crds(crds)
        yield given
        return
    try:
        binaries = find_api_server()
    except ResourceError as error:
        pytest.skip(str(error))
    with ApiServer(binaries) as server:
        server.install_crds(crds)
        yield server


@pytest.fixture
def make(helm: Helm, api_server: Cluster, kubectl: Path, tmp_path: Path) -> MakeRelease:
    """Return a maker of releases, with each Helm in turn."""

    def make_release(chart: Path = CHART) -> Release:
        namespace = make_namespace(api_server, kubectl)
        copy = chart_for(api_server, tmp_path / namespace, chart)
        return Release(helm=helm, cluster=api_server, kubectl=kubectl, namespace=namespace, chart=copy)

    return make_release


def _tool(name: str) -> Path:
    try:
        return find_tool(name)
    except ResourceError as error:
        pytest.skip(str(error))
