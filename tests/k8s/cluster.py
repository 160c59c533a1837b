"""A Kubernetes API that tests talk to: one of their own (``ApiServer``), or the one that a user names on purpose."""

import abc
import functools
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from echotrain.errors import ResourceError
from tests.k8s.command import run_command

__all__ = ["KUBECONFIG_VARIABLE", "Cluster", "GivenCluster", "read_documents"]

# Not KUBECONFIG itself: a test that installs and removes things must never meet a cluster that merely happens to be configured.
KUBECONFIG_VARIABLE = "ECHOTRAIN_TEST_KUBECONFIG"

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Cluster(abc.ABC):
    """Where ``kubectl``, ``helm`` and the Kubernetes client of a test go.

    Attributes:
        kubeconfig: Its file, of an administrator.
        is_own: Whether the tests started it: only then may they change its CRDs, and nothing ever runs on it.
    """

    kubeconfig: Path
    is_own: bool = False

    def run(self, *command: str | Path, kubeconfig: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on the cluster (``run_command``), by default as its administrator."""
        return run_command(*command, kubeconfig=kubeconfig or self.kubeconfig, **options)

    @abc.abstractmethod
    def as_user(self, name: str, *groups: str) -> Path:
        """Return a kubeconfig with which one is the user ``name``, in ``groups``."""

    @abc.abstractmethod
    def as_service_account(self, namespace: str, name: str) -> Path:
        """Return a kubeconfig with a token of a ServiceAccount that exists."""

    @abc.abstractmethod
    def install_crds(self, paths: Iterable[Path]) -> None:
        """Install CRDs or replace them, and wait until they are served."""


class GivenCluster(Cluster):
    """A cluster that a user lends to the tests, with the prerequisites of the chart installed."""

    def __init__(self, kubeconfig: Path, kubectl: Path, folder: Path) -> None:
        if not kubeconfig.is_file():
            raise ResourceError(f"{KUBECONFIG_VARIABLE}={kubeconfig}", "is no file", "Let it name a kubeconfig, or unset it.")
        self.kubeconfig = kubeconfig
        self._kubectl = kubectl
        self._folder = folder

    def as_user(self, name: str, *groups: str) -> Path:
        """Impersonate: the given kubeconfig's user must be allowed to."""
        return self._changed(name, {"as": name, "as-groups": list(groups)}, keep=True)

    def as_service_account(self, namespace: str, name: str) -> Path:
        """Ask for a token."""
        token = self.run(self._kubectl, "create", "token", name, "--namespace", namespace).stdout.strip()
        return self._changed(f"{namespace}-{name}", {"token": token}, keep=False)

    def install_crds(self, paths: Iterable[Path]) -> None:
        """Install nothing: what an administrator installed is what the tests are to pass on.

        Raises:
            ResourceError: One is missing.
        """
        wanted = {document["metadata"]["name"] for path in paths for document in read_documents(path)}
        there = {line.partition("/")[2] for line in self.run(self._kubectl, "get", "crd", "--output=name").stdout.split()}
        if wanted - there:
            raise ResourceError(
                f"the cluster of {KUBECONFIG_VARIABLE}",
                f"lacks the CRDs {', '.join(sorted(wanted - there))}",
                "Install the chart's prerequisites there first (k8s/README.md).",
            )

    def _changed(self, name: str, user: dict[str, Any], *, keep: bool) -> Path:
        """Write the given kubeconfig with its current user changed."""
        shown = self.run(self._kubectl, "config", "view", "--raw", "--minify", "--flatten", "--output=json").stdout
        config = json.loads(shown)
        entry = config["users"][0]
        entry["user"] = {**(entry["user"] if keep else {}), **user}
        path = self._folder / f"kubeconfig-{name.replace(':', '-')}"
        path.write_text(json.dumps(config))
        path.chmod(0o600)
        return path


@functools.cache
def read_documents(path: Path) -> list[dict[str, Any]]:
    """Return the non-empty documents of a YAML file; read once, for CRDs take seconds: not to be changed by who asks."""
    with path.open(encoding="utf-8") as file:
        return [document for document in yaml.load_all(file, Loader=_LOADER) if document]
