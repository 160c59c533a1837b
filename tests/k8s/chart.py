"""The chart as tests install it: a release in a namespace of its own."""

import itertools
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.k8s.cluster import Cluster
from tests.k8s.helm import Helm

__all__ = ["CHART", "NAIVE", "SHAPES", "MakeRelease", "Release", "chart_for", "make_namespace"]

CHART = Path(__file__).parents[2] / "helm" / "echotrain"
# A chart as one writes it first; each known bug of such charts is shown on it.
NAIVE = Path(__file__).parents[1] / "charts" / "naive"
# Values of each supported shape, by name.
SHAPES = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}

_numbers = itertools.count()


def chart_for(cluster: Cluster, folder: Path, chart: Path = CHART) -> Path:
    """Return a chart as a cluster takes it: the tests' own is served by a front that is older than the chart's ``kubeVersion``."""
    if not cluster.is_own:
        return chart
    copy = folder / chart.name
    shutil.copytree(chart, copy)
    description = copy / "Chart.yaml"
    description.write_text("".join(line for line in description.open() if not line.startswith("kubeVersion:")))
    return copy


def make_namespace(cluster: Cluster, kubectl: Path) -> str:
    """Make a namespace and return its name; with the ServiceAccount that a controller would make, where there is none."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    cluster.run(kubectl, "create", "namespace", name)
    if cluster.is_own:
        cluster.run(kubectl, "create", "serviceaccount", "default", "--namespace", name)
    return name


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release of a chart.

    Attributes:
        helm: Which Helm, on which cluster.
        cluster, kubectl, namespace: Where.
        chart: Folder or archive.
        name: Of the release and its RayCluster.
    """

    helm: Helm
    cluster: Cluster
    kubectl: Path
    namespace: str
    chart: Path
    name: str = "echotrain"

    def install(self, *flags: str | Path, **options: Any) -> str:
        """Install and return what Helm said."""
        return self._run("install", *self._common(flags), **options)

    def upgrade(self, *flags: str | Path, chart: Path | None = None, **options: Any) -> str:
        """Upgrade as UPGRADING says it, and return what Helm said; with another chart, say a later one."""
        return self._run("upgrade", *self._common(flags, chart), *self.forced, **options)

    def rollback(self, revision: int) -> str:
        """Go back to a revision."""
        return self._run("rollback", self.name, str(revision), *self.forced)

    def uninstall(self) -> str:
        """Remove it."""
        return self._run("uninstall", self.name)

    @property
    def forced(self) -> list[str]:
        """What Helm 4 must be told where the autoscaler owns a part of the RayCluster."""
        return ["--force-conflicts"] if self.helm.major > 3 else []

    def raycluster(self) -> dict[str, Any]:
        """Return the RayCluster as it stands."""
        return self.get("raycluster", self.name)

    def get(self, *what: str) -> dict[str, Any]:
        """Return what ``kubectl get`` finds in the namespace."""
        return json.loads(self.cluster.run(self.kubectl, "get", *what, "--namespace", self.namespace, "--output=json").stdout)

    def scale(self, group: int, replicas: int, marked: tuple[str, ...] = ()) -> None:
        """Do as the autoscaler does: write a group's number of pods, and which of them are to go."""
        path = f"/spec/workerGroupSpecs/{group}"
        patch = [
            {"op": "add", "path": f"{path}/replicas", "value": replicas},
            {"op": "add", "path": f"{path}/scaleStrategy", "value": {"workersToDelete": list(marked)}},
        ]
        flags = ("--namespace", self.namespace, "--type=json", "--field-manager=autoscaler", f"--patch={json.dumps(patch)}")
        self.cluster.run(self.kubectl, "patch", "raycluster", self.name, *flags)

    def _common(self, flags: tuple[str | Path, ...], chart: Path | None = None) -> list[str | Path]:
        # The tests' own front has no PodDisruptionBudgets of today.
        unknown = ["--set", "podDisruptionBudget.enabled=false"] if self.cluster.is_own else []
        return [self.name, chart or self.chart, *unknown, *flags]

    def _run(self, verb: str, *arguments: str | Path, **options: Any) -> str:
        done = self.helm.on(self.cluster).run(verb, *arguments, "--namespace", self.namespace, **options)
        return done.stdout + done.stderr


# A release of a chart, by default of the project's, in a namespace of its own.
MakeRelease = Callable[..., Release]
