"""Write fastMRI-layout HDF5: contiguous datasets, so that the file itself can serve as a shard."""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from echotrain.storage.local import atomic_file

__all__ = ["write_fastmri"]


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
