"""Choose the reader of a scanner file by its content, never by its name."""

from pathlib import Path

from echotrain.data.formats.deidentify import Deidentifier
from echotrain.data.formats.fastmri import FastmriVolume
from echotrain.data.formats.hdf5 import is_hdf5
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.volume import Volume
from echotrain.errors import ScanError

__all__ = ["open_volume"]


def open_volume(
    path: Path,
    *,
    dataset: str = "",
    deidentifier: Deidentifier | None = None,
    limits: ReadLimits | None = None,
) -> Volume:
    """Open a scanner file; no k-space is read yet.

    Args:
        path: fastMRI- or MosaicMRI-layout HDF5.
        dataset: Collection the volume belongs to; "" takes what the file says, else ``"scans"``.
        deidentifier: Makes pseudonyms; the default one uses the public salt.
        limits: Memory limits.

    Raises:
        ScanError: The file is missing, of no known format, truncated, hostile, or contradicts itself.
    """
    deidentifier, limits = deidentifier or Deidentifier(), limits or ReadLimits()
    if is_hdf5(path):
        return FastmriVolume(path, path.name, dataset=dataset, deidentifier=deidentifier, limits=limits)
    raise ScanError(f"{path.name}", "is no format that can be read", "Give fastMRI-layout HDF5, ISMRMRD or Siemens twix files.")
