"""On a cluster whose KubeRay CRDs are older than what the chart uses: refused or left out, never silently dropped."""

from collections.abc import Iterator

import pytest

from tests.k8s.api_server import ApiServer
from tests.k8s.chart import NAIVE, MakeRelease, Release
from tests.k8s.cluster import Cluster
from tests.k8s.crds import NEWEST, OLDEST, crd_files

pytestmark = [pytest.mark.cluster, pytest.mark.helm, pytest.mark.usefixtures("old_crds")]


@pytest.fixture(scope="module")
def old_crds(api_server: Cluster) -> Iterator[None]:
    """Let the cluster have the CRDs of the oldest KubeRay, for this file."""
    if not isinstance(api_server, ApiServer):
        pytest.skip("only the tests' own API server may have its CRDs changed")
    used = ("ray.io_rayclusters.yaml", "ray.io_rayjobs.yaml")
    api_server.install_crds(path for path in crd_files(OLDEST) if path.name in used)
    yield
    api_server.install_crds(path for path in crd_files(NEWEST) if path.name in used)


def assert_never_without_authentication(release: Release, *flags: str) -> None:
    """Bug B: on CRDs older than the field, a cluster that was to ask for a token asks for none."""
    try:
        release.install(*flags)
    except RuntimeError:
        return
    assert "authOptions" in release.raycluster()["spec"]


def test_authentication_is_never_silently_absent(make: MakeRelease):
    release = make()
    assert_never_without_authentication(release)
    assert "auth.mode=token: the installed KubeRay CRDs do not know it, they are older than 1.5.1" in release.install(check=False)


def test_authentication_lost_to_old_crds_would_be_seen(make: MakeRelease):
    release = make(NAIVE)
    flags = ("--set", "authOptions.mode=token", "--set", "autoscaler=null")
    if release.helm.major == 3:
        with pytest.raises(AssertionError):
            assert_never_without_authentication(release, *flags)
    else:
        assert "authOptions: field not declared in schema" in release.install(*flags, check=False)


def test_old_crds_take_what_they_know(make: MakeRelease):
    release = make()
    release.install("--set", "auth.mode=disabled")
    refused = release.upgrade("--set", "auth.mode=disabled", "--set", "cluster.upgradeStrategy=Recreate", check=False)
    assert "cluster.upgradeStrategy=Recreate: the installed KubeRay CRDs do not know it, they are older than 1.6.0" in refused
