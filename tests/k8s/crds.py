"""CRDs of the projects that charts build on (see crds/README.md), unpacked once per process."""

import atexit
import functools
import shutil
import tarfile
import tempfile
from pathlib import Path

__all__ = ["KUBERAY_GENERATIONS", "KUEUE", "NEWEST", "OLDEST", "PROMETHEUS", "crd_files"]

OLDEST, NEWEST = KUBERAY_GENERATIONS = ("kuberay-1.4.2", "kuberay-1.7.0")
KUEUE = "kueue-0.19.2"
PROMETHEUS = "prometheus-operator"

_ARCHIVES = Path(__file__).parent / "crds"


@functools.cache
def crd_files(*names: str) -> tuple[Path, ...]:
    """Return the files of the named archives, by default of the newest of each project."""
    return tuple(path for name in names or (NEWEST, KUEUE, PROMETHEUS) for path in _unpack(name))


@functools.cache
def _unpack(name: str) -> tuple[Path, ...]:
    folder = _folder() / name
    with tarfile.open(_ARCHIVES / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return tuple(sorted(folder.glob("*.yaml")))


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="crds-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
