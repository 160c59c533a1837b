"""The ground in k8s/ as kubectl builds it, offline."""

import functools
from pathlib import Path
from typing import Any

from tests.k8s.command import run_command
from tests.k8s.manifests import read_manifests
from tests.k8s.tools import find_tool

__all__ = ["GROUND", "OVERLAYS", "build", "named"]

GROUND = Path(__file__).resolve().parents[2] / "k8s"
# What an operator applies: the base by itself, or one of its overlays.
OVERLAYS = ("base", "overlays/kind", "overlays/eks", "overlays/gke")


@functools.cache
def build(overlay: str) -> list[dict[str, Any]]:
    """Return the documents of an overlay; callers must not change them."""
    return read_manifests(run_command(find_tool("kubectl"), "kustomize", GROUND / overlay).stdout)


def named(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """Return the one document of this kind and name."""
    (found,) = (each for each in documents if each["kind"] == kind and each["metadata"]["name"] == name)
    return found
