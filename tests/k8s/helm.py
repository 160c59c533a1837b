"""Helm as a function of values: one process per call."""

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.k8s.cluster import Cluster
from tests.k8s.command import NO_CLUSTER, run_command
from tests.k8s.manifests import read_manifests

__all__ = ["Helm"]


@dataclass(frozen=True, kw_only=True)
class Helm:
    """Helm of one major.

    Attributes:
        executable: Its program.
        major: 3 or 4.
        folder: Its cache, configuration and data, so that nothing of the user's own Helm is met.
        kubeconfig: Of the cluster it works on, by default none.
    """

    executable: Path
    major: int
    folder: Path
    kubeconfig: Path = NO_CLUSTER

    def on(self, cluster: Cluster) -> "Helm":
        """Return the same Helm, working on a cluster."""
        return replace(self, kubeconfig=cluster.kubeconfig)

    def run(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run ``helm ARGUMENTS`` (``run_command``'s options).

        Raises:
            RuntimeError: It failed, and ``check=False`` was not said; the message has what it said.
        """
        env = {f"HELM_{name}_HOME": str(self.folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        return run_command(self.executable, *arguments, **{"kubeconfig": self.kubeconfig, "env": env, **options})

    def template(self, *arguments: str | Path, **options: Any) -> list[dict[str, Any]]:
        """Return the documents of ``helm template ARGUMENTS``, strictly read: a key that is there twice is an error.

        Raises:
            RuntimeError: helm refused.
            DuplicateKeyError: A document has one key twice.
        """
        return read_manifests(self.run("template", *arguments, **options).stdout)
