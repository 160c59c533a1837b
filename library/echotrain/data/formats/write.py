"""Write fastMRI-layout HDF5, contiguous so that the file itself can serve as a shard, and MATLAB v7.3 as CMRxRecon has it."""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from echotrain.storage.local import atomic_file

__all__ = ["write_fastmri", "write_matlab"]

# In front of MATLAB's HDF5 lies a block that begins as its older files do: 116 letters, 8 bytes of nothing, version 2.0, byte order.
# MATLAB writes when and on what; these files are the same whenever they are written.
_MATLAB_TEXT = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Thu Jan  1 00:00:00 1970 HDF5 schema 1.00 ."
_MATLAB_BLOCK = _MATLAB_TEXT.ljust(116) + bytes(8) + b"\x00\x02IM"
_USER_BLOCK = 512
_CLASSES = {"c8": "single", "c16": "double", "f4": "single", "f8": "double", "u1": "uint8", "b1": "logical"}


def write_fastmri(
    path: Path,
    *,
    header: bytes,
    kspace: np.ndarray | None = None,
    target: np.ndarray | None = None,
    reconstruction: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    attributes: Mapping[str, str | float | bool] | None = None,
) -> None:
    """Write one volume; the file appears whole or not at all.

    Args:
        path: Destination; its folder is made where needed.
        header: ISMRMRD header XML.
        kspace: Complex (slices, coils, height, width).
        target: Float (slices, height, width), stored as ``reconstruction_rss``.
        reconstruction: Float (slices, height, width), stored as ``reconstruction``, as fastMRI's submissions are.
        mask: Acquired lines (width,) of an undersampled file.
        attributes: File attributes: ``acquisition``, ``patient_id``, ``max``, ``norm``, …

    Raises:
        StorageFullError: No space is left.
        StorageError: The file cannot be written.
    """
    with atomic_file(path) as partial, h5py.File(partial, "w") as file:
        file.create_dataset("ismrmrd_header", data=header)
        if kspace is not None:
            file.create_dataset("kspace", data=kspace.astype(np.complex64, copy=False))
        if target is not None:
            file.create_dataset("reconstruction_rss", data=target.astype(np.float32, copy=False))
        if reconstruction is not None:
            file.create_dataset("reconstruction", data=reconstruction.astype(np.float32, copy=False))
        if mask is not None:
            file.create_dataset("mask", data=mask.astype(bool))
        file.attrs.update(dict(attributes or {}))


def write_matlab(path: Path, variables: Mapping[str, np.ndarray], *, compression: int | None = 3) -> None:
    """Write arrays as ``save -v7.3`` does; the file appears whole or not at all.

    Args:
        path: Destination; its folder is made where needed.
        variables: By name, with axes as MATLAB has them; complex ones become structs of ``real`` and ``imag``. Axes of one are dropped
            at the end, down to two.
        compression: Level of deflate, None for contiguous data, as ``-nocompression`` has it.

    Raises:
        StorageFullError: No space is left.
        StorageError: The file cannot be written.
    """
    with atomic_file(path) as partial:
        with h5py.File(partial, "w", userblock_size=_USER_BLOCK) as file:
            for name, array in variables.items():
                stored = _as_stored(array)
                chunks = None if compression is None else (*(1,) * (stored.ndim - 2), *stored.shape[-2:])
                dataset = file.create_dataset(name, data=stored, chunks=chunks, compression=compression)
                dataset.attrs["MATLAB_class"] = np.bytes_(_CLASSES[array.dtype.str[1:]])
                if array.dtype.kind == "b":
                    dataset.attrs["MATLAB_int_decode"] = np.int32(1)
        with partial.open("r+b") as file:
            file.write(_MATLAB_BLOCK)


def _as_stored(array: np.ndarray) -> np.ndarray:
    """Return an array as HDF5 holds MATLAB's: axes reversed, complex numbers as structs."""
    shape = array.shape
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    reversed_ = np.ascontiguousarray(array.reshape(shape).T)
    if reversed_.dtype.kind == "b":
        return reversed_.astype(np.uint8)
    if reversed_.dtype.kind != "c":
        return reversed_
    part = np.dtype(f"<f{reversed_.dtype.itemsize // 2}")
    return reversed_.view(np.dtype([("real", part), ("imag", part)]))
