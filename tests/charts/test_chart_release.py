"""From the last release to the chart as it is: its version, and an upgrade under a running cluster."""

import tarfile
from pathlib import Path

import pytest
import yaml

from tests.k8s.chart import CHART, MakeRelease, chart_for
from tests.k8s.cluster import Cluster

RELEASES = Path(__file__).parent / "releases"
# Not in a package, or written into it anew.
UNPACKED = {"Chart.yaml", "README.md", "README.md.tmpl"}


def version(chart: Path) -> tuple[int, ...]:
    return tuple(map(int, yaml.safe_load((chart / "Chart.yaml").read_text())["version"].split(".")))


@pytest.fixture
def last(tmp_path: Path) -> Path:
    """Return the last released chart, unpacked."""
    newest = max(RELEASES.glob("echotrain-*.tgz"), key=lambda path: tuple(map(int, path.stem.rpartition("-")[2].split("."))))
    with tarfile.open(newest) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "echotrain"


def content(chart: Path) -> dict[str, str]:
    files = (path for path in chart.rglob("*") if path.is_file() and "ci" not in path.parts and path.name not in UNPACKED)
    return {str(path.relative_to(chart)): path.read_text() for path in files if not path.name.startswith(".")}


def test_a_chart_that_differs_from_the_last_release_has_a_higher_version(last: Path):
    assert version(CHART) >= version(last)
    if content(CHART) != content(last):
        assert version(CHART) > version(last)


@pytest.mark.cluster
@pytest.mark.helm
def test_an_upgrade_from_the_last_release_keeps_the_cluster(make: MakeRelease, api_server: Cluster, last: Path, tmp_path: Path):
    released, head = make(last), chart_for(api_server, tmp_path / "head")
    released.install("--set", "image.tag=old")
    released.scale(0, 2, marked=("pod-7",))
    before = released.raycluster()
    released.upgrade(chart=head)
    after = released.raycluster()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    group = after["spec"]["workerGroupSpecs"][0]
    assert group["replicas"] == 2
    assert group["scaleStrategy"] == {"workersToDelete": ["pod-7"]}
    labels = released.get("configmap", "echotrain-rayjob")["metadata"]["labels"]
    assert labels["helm.sh/chart"] == f"echotrain-{'.'.join(map(str, version(CHART)))}"
    released.rollback(1)
    assert released.raycluster()["metadata"]["uid"] == before["metadata"]["uid"]
