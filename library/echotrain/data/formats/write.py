"""Write fastMRI-layout HDF5: contiguous datasets, so that the file itself can serve as a shard."""

import os
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from echotrain.errors import StorageError, StorageFullError

__all__ = ["write_fastmri"]

_NO_SPACE = 28


def write_fastmri(
    path: Path,
    *,
    header: bytes,
    kspace: np.ndarray | None = None,
    target: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    attributes: Mapping[str, str | float | bool] | None = None,
) -> None:
    """Write one volume; the file appears whole or not at all.

    Args:
        path: Destination; its folder is made where needed.
        header: ISMRMRD header XML.
        kspace: Complex (slices, coils, height, width).
        target: Float (slices, height, width), stored as ``reconstruction_rss``.
        mask: Acquired lines (width,) of an undersampled file.
        attributes: File attributes: ``acquisition``, ``patient_id``, ``max``, ``norm``, …

    Raises:
        StorageFullError: No space is left.
        StorageError: The file cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(partial, "w") as file:
            file.create_dataset("ismrmrd_header", data=header)
            if kspace is not None:
                file.create_dataset("kspace", data=kspace.astype(np.complex64, copy=False))
            if target is not None:
                file.create_dataset("reconstruction_rss", data=target.astype(np.float32, copy=False))
            if mask is not None:
                file.create_dataset("mask", data=mask.astype(bool))
            file.attrs.update(dict(attributes or {}))
        partial.replace(path)
    except OSError as error:
        if error.errno == _NO_SPACE or "No space left" in str(error):
            raise StorageFullError(str(path), "no space is left where it was to be written", "Free space or write elsewhere.") from error
        raise StorageError(f"{path}: {str(error).splitlines()[0]}", "must be writable", "Check the folder and its permissions.") from error
    finally:
        partial.unlink(missing_ok=True)
