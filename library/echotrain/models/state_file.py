"""State dicts out of files of ``torch.save`` that a stranger wrote, without running anything that is in them.

Pickles are read as data (``inert_pickle``). This is stricter than ``torch.load(weights_only=True)``, which calls the functions that it
knows, and it reads what that refuses: a Lightning checkpoint for its ``argparse.Namespace``.

Sizes are what the file has, not what it claims: a storage is as long as its entry, an entry is not compressed, a view lies in its
storage, and all tensors together are no larger than the file. So what is taken of memory is bounded by the file's size.

Both layouts of PyTorch are read: the zip (1.6 and later), and the older one of pickles followed by storages.
"""

import io
import math
import mmap
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from echotrain.errors import CheckpointError
from echotrain.models.inert_pickle import InertMachine, Storage, View
from echotrain.storage.bounded_file import BoundedFile

__all__ = ["LARGEST_FILE", "read_state"]

# The published E2E-VarNets have 120 MB, with the optimiser of a Lightning checkpoint three times that.
LARGEST_FILE = 4 << 30
# A pickle names tensors, it does not hold them: a few hundred kilobytes.
_LARGEST_PICKLE = 64 << 20
_LARGEST_DIRECTORY = 64 << 20
_MOST_AXES = 8
_ZIP = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LONGEST_MAGIC = 64
_CHUNK = 1 << 20
_ENCRYPTED = 1
_REMEDY = "Give a state_dict or a checkpoint that torch.save wrote; one that is whole, from where it was published."


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Return the ``state_dict`` of a file: the entry of that name, else the dictionary that the file holds.

    Args:
        path: A file of ``torch.save`` on this machine.

    Returns:
        Tensors on the CPU, in the file's order.

    Raises:
        CheckpointError: The file is missing, damaged, too large, holds no state_dict, or claims more than it has.
    """
    where = str(path)
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise CheckpointError(where, "does not exist" if isinstance(error, FileNotFoundError) else str(error), _REMEDY) from error
    if size > LARGEST_FILE:
        raise CheckpointError(where, f"has {size} bytes, and at most {LARGEST_FILE} are read", "Save its state_dict alone and give that.")
    try:
        with Path(path).open("rb") as file:
            begin = file.read(len(_ZIP))
        return (_read_zip if begin == _ZIP else _read_legacy)(Path(path), size)
    except _MALFORMED as error:
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise CheckpointError(where, f"cannot be read as tensors and plain values ({type(error).__name__}: {said})", _REMEDY) from error


_MALFORMED = (
    OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RuntimeError, struct.error,
    zipfile.BadZipFile, pickle.UnpicklingError, NotImplementedError,
)  # fmt: skip


def _read_zip(path: Path, size: int) -> dict[str, Tensor]:
    with BoundedFile(path, _LARGEST_DIRECTORY, _too_long) as file, zipfile.ZipFile(file) as archive:
        entries: dict[str, zipfile.ZipInfo] = {}
        for entry in archive.infolist():
            if entry.filename in entries:
                raise ValueError(f"{entry.filename} is there twice")
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED or entry.file_size > size:
                raise ValueError(f"{entry.filename} is packed, and torch.save packs nothing")
            entries[entry.filename] = entry
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError(f"it holds {len(pickles)} objects of torch.save")
        folder = pickles[0].partition("/")[0]
        order = entries.get(f"{folder}/byteorder")
        if order is not None and _content(archive, order) != b"little":
            raise ValueError("its bytes are in the order of another machine")
        if entries[pickles[0]].file_size > _LARGEST_PICKLE:
            raise ValueError(f"its pickle has {entries[pickles[0]].file_size} bytes, at most {_LARGEST_PICKLE} are read")
        state = _state_of(InertMachine().run(io.BytesIO(_content(archive, entries[pickles[0]]))))

        def load(storage: Storage) -> bytearray:
            entry = entries[f"{folder}/data/{storage.key}"]
            if entry.file_size != storage.nbytes:
                raise ValueError(f"storage {storage.key} has {entry.file_size} bytes where {storage.nbytes} are claimed")
            return _content(archive, entry)

        return _tensors(state, load, size)


def _too_long(wanted: int) -> ValueError:
    return ValueError(f"its table of contents has {wanted} bytes, at most {_LARGEST_DIRECTORY} are read")


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytearray:
    """Return an entry's bytes, held against its checksum."""
    data = bytearray()
    with archive.open(entry) as file:
        while piece := file.read(_CHUNK):
            data += piece
    return data


def _read_legacy(path: Path, size: int) -> dict[str, Tensor]:
    if not size:
        raise EOFError("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if not _is_legacy(content[:_LONGEST_MAGIC]):
            raise ValueError("it is neither a zip nor begins as older files of torch.save do")
        data = io.BytesIO(content[:_LARGEST_PICKLE])
        machine = InertMachine()
        # The magic number, the version, the machine's sizes, the object, and the order of its storages.
        _, _, _, loaded, keys = (machine.run(data) for _ in range(5))
        state = _state_of(loaded)
        places: dict[str, int] = {}
        at = data.tell()
        for key in keys:
            storage = machine.storages[key]
            (numel,) = struct.unpack("<q", content[at : at + 8])
            if numel != storage.numel or at + 8 + storage.nbytes > size:
                raise ValueError(f"storage {key} has {numel} elements where {storage.numel} are claimed, or is cut off")
            places[key], at = at + 8, at + 8 + storage.nbytes

        return _tensors(state, lambda storage: bytearray(content[places[storage.key] : places[storage.key] + storage.nbytes]), size)


def _is_legacy(begin: bytes) -> bool:
    """Whether a file begins with a pickle of PyTorch's magic number, in whatever protocol."""
    try:
        return bool(InertMachine().run(io.BytesIO(begin)) == _LEGACY_MAGIC)
    except _MALFORMED:
        return False


def _state_of(loaded: Any) -> dict[str, View]:
    """Return the names and the views of a state_dict, nothing read yet."""
    found = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(found, dict) or not found:
        raise ValueError("it holds no state_dict")
    strange = [name for name, value in found.items() if not isinstance(name, str) or not isinstance(value, View)]
    if strange:
        raise ValueError(f"it holds no state_dict: {str(strange[0])[:80]!r} is no tensor")
    return found


def _tensors(state: Mapping[str, View], load: Callable[[Storage], bytearray], size: int) -> dict[str, Tensor]:
    """Return the tensors, once all their sizes are known to be in order."""
    total = 0
    for name, view in state.items():
        total += _checked_nbytes(name, view)
    if total > size:
        raise ValueError(f"its tensors would take {total} bytes, and the file has {size}")
    memory: dict[str, Tensor] = {}
    for view in state.values():
        storage = view.storage
        if storage.key not in memory:
            data = load(storage)
            memory[storage.key] = torch.frombuffer(data, dtype=storage.dtype) if data else torch.empty(0, dtype=storage.dtype)
    return {name: memory[v.storage.key].as_strided(v.size, v.stride, v.offset).contiguous() for name, v in state.items()}


def _checked_nbytes(name: str, view: View) -> int:
    """Return the bytes of a tensor that lies in its storage without one element twice, or raise ValueError."""
    storage, offset, shape, stride = view
    are_sizes = all(isinstance(part, tuple) and all(type(n) is int and n >= 0 for n in part) for part in (shape, stride))
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0 or not are_sizes:
        raise ValueError(f"{name} is no tensor of a storage")
    if len(shape) != len(stride) or len(shape) > _MOST_AXES:
        raise ValueError(f"{name} has {len(shape)} axes and {len(stride)} strides")
    numel = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if numel else -1
    if last >= storage.numel or offset > storage.numel or numel > storage.numel:
        raise ValueError(f"{name} of shape {shape} does not lie in its storage of {storage.numel} elements")
    return int(numel * storage.dtype.itemsize)
