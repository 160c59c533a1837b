"""HDF5 files of strangers: opened without following links, and measured before a byte is read.

A dataset is accepted when it is a hard link, holds its own bytes, declares a shape that its file can
contain and the memory limit allows, and uses no filter beyond those that ship with HDF5.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from types import EllipsisType, TracebackType
from typing import BinaryIO, Self

import h5py
import numpy as np

from echotrain.data.formats.limits import ReadLimits
from echotrain.errors import EchotrainError, ScanError
from echotrain.storage.ranged_file import RangedFile
from echotrain.units import human_bytes

__all__ = ["Hdf5File", "contiguous_offset", "is_hdf5", "reading"]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# deflate, shuffle, fletcher32, szip, nbit, scale-offset, and h5py's own lzf.
_KNOWN_FILTERS = {1, 2, 3, 4, 5, 6, 32000}
# Deflate cannot expand by more than about 1032; a constant-filled chunk comes near it.
_MAX_EXPANSION = 1100
_MAX_ATTRIBUTE_BYTES = 64 << 10
# A prime, far more than chunks in the cache, so that two rarely want one slot.
_CACHE_SLOTS = 10_007
_EXPORT_AGAIN = "Export the scan again."


@contextlib.contextmanager
def reading(name: str, what: str = "the file") -> Iterator[None]:
    """Turn whatever a library raises over a damaged file into a ``ScanError``; one flipped byte can make it anything.

    Args:
        name: The file's name.
        what: What is being read.
    """
    try:
        yield
    except EchotrainError:
        raise
    except Exception as error:
        raise ScanError(f"{name}: {_first_line(error)}", f"{what} must be readable", "Copy or download the file again.") from error


class Hdf5File:
    """A stranger's file, opened for reading; a context manager that closes it.

    Args:
        source: A path, or an object in a store.
        cache_bytes: Keep so many bytes of inflated chunks of a dataset, for arrays that are read across their chunks; 0 leaves it to HDF5,
            which keeps a megabyte.

    Attributes:
        name: The file's name, for messages.
        size: Bytes that are there, whatever the file itself claims.
        root: The file as h5py sees it.

    Raises:
        ScanError: It is truncated or not HDF5.
    """

    def __init__(self, source: Path | RangedFile, *, cache_bytes: int = 0) -> None:
        self.name = source.name
        self.size = source.size if isinstance(source, RangedFile) else source.stat().st_size
        try:
            # Locks are refused by read-only network mounts, and unknown to a store.
            options = {} if isinstance(source, RangedFile) else {"locking": "best-effort"}
            cache = {"rdcc_nbytes": cache_bytes, "rdcc_nslots": _CACHE_SLOTS} if cache_bytes else {}
            self.root = h5py.File(source, "r", **options, **cache)
        except EchotrainError:
            raise
        except (OSError, RuntimeError, ValueError) as error:
            raise ScanError(f"{self.name}: {_first_line(error)}", "must be a complete HDF5 file", "Copy or download it again.") from error

    def dataset(self, path: str, limits: ReadLimits, *, slice_axes: int | None = None) -> h5py.Dataset | None:
        """Return a dataset after checking where its bytes are and how many it claims; None where there is none.

        Args:
            path: Path of the dataset, ``group/name``; every part has to be a hard link.
            limits: Memory limits.
            slice_axes: How many last axes make one slice; None for a small dataset, held to ``limits.header_bytes``.

        Raises:
            ScanError: It is a soft or external link, stored outside the file, larger than a limit or than its file.
        """
        node: h5py.Group = self.root
        with reading(self.name, path):
            for part in path.split("/"):
                link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
                if link is None:
                    return None
                if not isinstance(link, h5py.HardLink):
                    raise ScanError(
                        f"{self.name}: {path} is a {type(link).__name__}",
                        "only data inside the file are read",
                        "Copy the data into the file.",
                    )
                node = node[part]
        if not isinstance(node, h5py.Dataset):
            raise ScanError(f"{self.name}: {path} is a {type(node).__name__}", "must be a dataset", _EXPORT_AGAIN)
        _check_storage(node, f"{self.name}: {path}", self.size, limits, slice_axes)
        return node

    def read(self, dataset: h5py.Dataset, index: int | slice | EllipsisType | np.ndarray | tuple[int, ...]) -> np.ndarray:
        """Read part of a dataset; a damaged chunk becomes a ``ScanError``."""
        with reading(self.name, "the data"):
            return np.asarray(dataset[index])

    def text(self, dataset: h5py.Dataset, limits: ReadLimits) -> bytes:
        """Return a dataset of one string, such as an ISMRMRD header, as bytes.

        Raises:
            ScanError: It is not one string, or longer than ``limits.header_bytes``.
        """
        # Strings only: reading a variable-length sequence of something else from a damaged file can crash the HDF5 library.
        if math.prod(dataset.shape) != 1 or h5py.check_string_dtype(dataset.dtype) is None:
            raise ScanError(f"{self.name}: header of shape {dataset.shape}, {dataset.dtype}", "must be one string", _EXPORT_AGAIN)
        value = self.read(dataset, ...).reshape(-1)[0]
        text = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value)
        if len(text) > limits.header_bytes:
            raise ScanError(
                f"{self.name}: header of {human_bytes(len(text))}", f"at most {human_bytes(limits.header_bytes)} are read", _EXPORT_AGAIN
            )
        return text

    def attribute(self, key: str) -> str | float | None:
        """Return a scalar attribute as text or number; None where it is absent, an array, or not of either kind."""
        value = self._scalar(key)
        return float(value) if isinstance(value, (int, float, np.number, np.bool_)) else value

    def identifier(self, key: str) -> str:
        """Return a scalar attribute as the text of an identifier, a whole number by its digits; "" where there is none."""
        value = self._scalar(key)
        if isinstance(value, (float, np.floating)) and float(value).is_integer():
            value = int(value)
        return "" if value is None else str(value)

    def _scalar(self, key: str) -> str | float | np.number | np.bool_ | None:
        try:
            if not h5py.h5a.exists(self.root.id, key.encode()):
                return None
            attribute = h5py.h5a.open(self.root.id, key.encode())
            if math.prod(attribute.shape or ()) != 1 or attribute.get_storage_size() > _MAX_ATTRIBUTE_BYTES:
                return None
            if attribute.dtype.kind not in "biuf" and h5py.check_string_dtype(attribute.dtype) is None:
                return None
            value = self.root.attrs[key]
        except (OSError, RuntimeError, KeyError, TypeError, ValueError):
            return None
        if isinstance(value, np.ndarray):
            value = value.reshape(-1)[0]
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return value if isinstance(value, (str, int, float, np.number, np.bool_)) else None

    def close(self) -> None:
        """Close the file."""
        self.root.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def is_hdf5(file: BinaryIO | RangedFile, size: int) -> bool:
    """Say whether a file begins as HDF5, at offset 0 or after a user block of 512 · 2^n bytes."""
    offset = 0
    while offset + len(_SIGNATURE) <= size:
        file.seek(offset)
        if file.read(len(_SIGNATURE)) == _SIGNATURE:
            return True
        offset = max(512, offset * 2)
    return False


def contiguous_offset(dataset: h5py.Dataset) -> int | None:
    """Return the byte offset of a contiguous, unfiltered dataset in its file, or None."""
    if dataset.chunks is not None or dataset.id.get_create_plist().get_nfilters():
        return None
    offset = dataset.id.get_offset()
    return None if offset is None else int(offset)


def _check_storage(dataset: h5py.Dataset, name: str, file_bytes: int, limits: ReadLimits, slice_axes: int | None) -> None:
    plist = dataset.id.get_create_plist()
    if dataset.is_virtual or plist.get_external_count():
        raise ScanError(f"{name} is stored in other files", "only data inside the file are read", "Copy the data into the file.")
    unknown = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())} - _KNOWN_FILTERS
    if unknown:
        raise ScanError(f"{name} uses HDF5 filter {min(unknown)}", "only HDF5's own filters are read", "Repack with h5repack -f NONE.")
    if dataset.shape is None or dataset.dtype.itemsize == 0:
        raise ScanError(f"{name} is empty", "must hold data", _EXPORT_AGAIN)
    nbytes = math.prod(dataset.shape) * dataset.dtype.itemsize
    if slice_axes is None:
        if nbytes > limits.header_bytes:
            raise ScanError(
                f"{name}: declares {human_bytes(nbytes)}", f"at most {human_bytes(limits.header_bytes)} are read", _EXPORT_AGAIN
            )
    else:
        limits.check_array(name, dataset.shape, dataset.dtype.itemsize, slice_axes=min(slice_axes, len(dataset.shape)))
    _check_stored_size(dataset, name, nbytes, file_bytes, limits)


def _check_stored_size(dataset: h5py.Dataset, name: str, nbytes: int, file_bytes: int, limits: ReadLimits) -> None:
    """Compare what a dataset declares with what its file holds."""
    stored = int(dataset.id.get_storage_size())
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        end = stored if offset is None else offset + nbytes
        is_complete = stored >= nbytes and end <= file_bytes
    else:
        chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
        if chunk_bytes > limits.slice_bytes:
            raise ScanError(
                f"{name}: chunks of {human_bytes(chunk_bytes)}", f"at most {human_bytes(limits.slice_bytes)}", "Repack with smaller chunks."
            )
        expected = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        # A chunk that was never written reads as zeros: that is how a short file can declare a terabyte.
        is_complete = stored <= file_bytes and stored * _MAX_EXPANSION >= nbytes and dataset.id.get_num_chunks() == expected
    if not is_complete:
        raise ScanError(
            f"{name}: declares {dataset.shape}, {human_bytes(nbytes)}",
            f"but the file of {human_bytes(file_bytes)} holds {human_bytes(min(stored, file_bytes))} of it",
            "Copy or download the file again.",
        )


def _first_line(error: BaseException) -> str:
    """Return the first line of HDF5's message, which may name the file's full path, without that path."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return text.split(", name = ")[0][:200]
