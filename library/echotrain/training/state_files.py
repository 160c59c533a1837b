"""A checkpoint's file on a disk: written tensor by tensor and read back by mapping, so that no process holds the whole of it besides.

A file of latent bridge matching's has 29 GB with its optimiser: what is held twice does not fit.
"""

import hashlib
import pickle
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from echotrain.errors import CheckpointError, StorageFullError

__all__ = ["file_checks", "map_state", "num_bytes", "require_space", "tensors", "write_state"]

# Descriptions beside the tensors, and what a disk rounds up.
_ROOM = 64 << 20


def tensors(state: Any) -> Iterator[Tensor]:
    """Yield every tensor of nested mappings and sequences, in their order."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from tensors(value)


def num_bytes(state: Any) -> int:
    """Return the bytes of all tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors(state))


def require_space(folder: Path, nbytes: int) -> None:
    """Refuse to begin what a disk has no room for.

    Raises:
        StorageFullError: It has not.
    """
    free = shutil.disk_usage(folder).free
    if free < nbytes + _ROOM:
        limit = f"has {free / 1e9:.1f} GB free, and a checkpoint of {nbytes / 1e9:.1f} GB passes through it"
        raise StorageFullError(str(folder), limit, "Free space, or set TMPDIR to a larger disk.")


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a state to a file; tensors of a GPU come down one at a time."""
    # Into an open file, because the path's name would be in the archive.
    with path.open("wb") as file:
        torch.save(dict(state), file)


def file_checks(path: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file."""
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def map_state(path: Path, where: str, remedy: str) -> dict[str, Any]:
    """Return a state whose tensors are the file's own bytes, read when they are used; the file may go, but must not change.

    Args:
        path: The file.
        where: What to call it.
        remedy: What to do where it is not one.

    Raises:
        CheckpointError: It holds more than plain tensors and values, or is packed.
    """
    try:
        _check_stored(path)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(where, "holds more than tensors and plain values, such as code to be run", remedy) from error
    except (ValueError, RuntimeError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise CheckpointError(where, f"does not hold tensors and plain values ({said})", remedy) from error
    return state


def _check_stored(path: Path) -> None:
    """Refuse an archive that unpacks to more than it has: PyTorch unpacks what its own writer never packs."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(e.file_size for e in entries) > path.stat().st_size:
        raise ValueError("its entries are packed")
