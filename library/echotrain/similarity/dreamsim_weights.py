"""DreamSim's weights: the files of its ensemble in a folder or a bucket, checked, fetched and read without running what is in them."""

import contextlib
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from echotrain.errors import CheckpointError, ConfigError
from echotrain.storage.open import local_path, open_store

__all__ = ["ADAPTER", "ADAPTER_CONFIG", "CLIP", "DINO", "OPEN_CLIP", "check_files", "damaged", "fetched", "read_tensors"]

DINO = "checkpoints/dino_vitbase16_pretrain.pth"
CLIP = "clip_vitb16_pretrain.pth.tar"
OPEN_CLIP = "open_clip_vitb16_pretrain.pth.tar"
ADAPTER_CONFIG = "ensemble_lora/adapter_config.json"
ADAPTER = "ensemble_lora/adapter_model.safetensors"

# A ViT-B/16 in float32 is 343 MB, the adapters of three are 7 MB.
_LIMITS = {DINO: 512 << 20, CLIP: 512 << 20, OPEN_CLIP: 512 << 20, ADAPTER_CONFIG: 64 << 10, ADAPTER: 64 << 20}
_HOW = "Give the folder that dreamsim(cache_dir=...) of the package fills at its first call, or a copy of it in a bucket."


def check_files(uri: str) -> None:
    """Make sure that every file is there and of a size that it can have; nothing is read yet.

    Raises:
        ConfigError: No URI is given, or a file is missing there.
        CheckpointError: A file is larger than it can be.
    """
    if not uri:
        raise ConfigError("embedder='dreamsim'", "needs --weights, since nothing is ever downloaded for it", _HOW)
    store = open_store(uri)
    sizes = {name: store.size(name) for name in _LIMITS}
    missing = [name for name, size in sizes.items() if size is None]
    if missing:
        raise ConfigError(f"weights={uri}", f"lacks {', '.join(missing)}", _HOW)
    for name, size in sizes.items():
        _check_size(f"{store.uri}/{name}", size or 0, _LIMITS[name])


@contextlib.contextmanager
def fetched(uri: str) -> Iterator[Path]:
    """Yield a folder with the files: the given one, or a private copy of those in a bucket, which is removed again.

    Raises:
        ConfigError: As ``check_files``.
        CheckpointError: Likewise.
        StorageError: A file cannot be fetched.
    """
    check_files(uri)
    here = local_path(uri)
    if here is not None:
        yield here.expanduser()
        return
    store = open_store(uri)
    with tempfile.TemporaryDirectory(prefix="echotrain-dreamsim-") as scratch:
        for name in _LIMITS:
            store.download(name, Path(scratch) / name)
        try:
            yield Path(scratch)
        except CheckpointError as error:  # It is about a file that will be gone; the one in the bucket is meant.
            raise CheckpointError(error.value.replace(scratch, store.uri), error.limit, error.remedy) from error


def read_tensors(folder: Path, name: str) -> dict[str, Any]:
    """Read a file of ``torch.save``: tensors and plain values, of which ``state_dict`` counts where there is one.

    Raises:
        CheckpointError: The file holds something else, such as code to be run, or unpacks to more than it can hold.
    """
    path = folder / name
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _check_size(str(path), sum(entry.file_size for entry in archive.infolist()), _LIMITS[name])
    with damaged(path):
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        state: dict[str, Any] = loaded.get("state_dict", loaded)
        strange = [key for key, value in state.items() if not isinstance(value, Tensor)]
        if strange:
            raise TypeError(f"{strange[0]} is no tensor")
    return state


@contextlib.contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Turn whatever the content of a file has caused into a ``CheckpointError`` that names the file."""
    try:
        yield
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        raise CheckpointError(
            str(path), f"does not hold DreamSim's tensors ({type(error).__name__}: {said})", "Fetch it again from DreamSim's release."
        ) from error


def _check_size(where: str, size: int, limit: int) -> None:
    if size > limit:
        raise CheckpointError(where, f"has {size} bytes where DreamSim's has fewer than {limit}", "Fetch it again from DreamSim's release.")
