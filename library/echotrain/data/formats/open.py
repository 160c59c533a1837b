"""Choose the reader of a scanner file by its content, never by its name."""

import contextlib
import os
from pathlib import Path
from typing import BinaryIO, Literal

from echotrain.data.formats.checks import ExaminedVolume, examine
from echotrain.data.formats.cmrxrecon import IN_PLACE, CmrxreconVolume, holds_cmrxrecon
from echotrain.data.formats.deidentify import Deidentifier
from echotrain.data.formats.fastmri import FastmriVolume
from echotrain.data.formats.hdf5 import Hdf5File, is_hdf5, reading
from echotrain.data.formats.ismrmrd import find_groups, open_ismrmrd
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.matlab_files import is_matlab_5, is_matlab_73
from echotrain.data.formats.volume import Volume
from echotrain.errors import ConfigError, ScanError
from echotrain.storage.ranged_file import RangedFile

__all__ = ["open_volume"]

# Twix VD and VE begin with a small id and the number of measurements, then one entry of 152 bytes for each; VB begins with
# the length of its header and the number of its parts.
_MAX_VD_ID, _MAX_MEASUREMENTS, _ENTRY_BYTES = 10_000, 64, 152
_MAX_PARTS = 32
# Messages that a stream begins with: the name of a configuration, its text, or the header.
_CONFIG_FILE, _CONFIG_TEXT, _HEADER = 1, 2, 3
_STREAM_BEGIN = 256


def open_volume(
    path: Path | RangedFile,
    *,
    dataset: str = "",
    deidentifier: Deidentifier | None = None,
    limits: ReadLimits | None = None,
    location: str = "",
    assume_full: bool = False,
    num_samples: int = 3,
) -> ExaminedVolume:
    """Open a scanner file and hold what it claims against a few of its slices (``checks.examine``).

    Args:
        path: fastMRI- or MosaicMRI-layout HDF5, CMRxRecon's MATLAB files, raw ISMRMRD, or Siemens twix. A fastMRI-layout file may also be
            an object in a store, of which only what is asked for is fetched.
        dataset: Collection the volume belongs to; "" takes what the file says, else ``"scans"``.
        deidentifier: Makes pseudonyms; the default one uses the public salt.
        limits: Memory limits.
        location: URI of the file as a catalog would hold it; ``Volume.is_location_safe`` says whether it may. Of CMRxRecon's files its
            folders say centre, vendor and modality.
        assume_full: Take a fastMRI-layout file that has neither a header nor a mask as fully sampled.
        num_samples: Slices to hold the claims against.

    Raises:
        ScanError: The file is missing, of no known format, truncated, hostile, contradicts itself, or is not a Cartesian scan line by line.
    """
    deidentifier, limits = deidentifier or Deidentifier(), limits or ReadLimits()
    with reading(path.name):
        volume = _open(path, dataset, deidentifier, limits, location, assume_full)
        try:
            return examine(volume, path.name, num_samples)
        except BaseException:
            volume.close()
            raise


def _open(
    path: Path | RangedFile, dataset: str, deidentifier: Deidentifier, limits: ReadLimits, location: str, assume_full: bool
) -> Volume:
    kind = _kind(path)
    if kind == "fastmri":
        return FastmriVolume(path, dataset=dataset, deidentifier=deidentifier, limits=limits, location=location, assume_full=assume_full)
    if isinstance(path, RangedFile) and kind == "cmrxrecon":
        raise ScanError(path.name, IN_PLACE, "Prepare it without index-only.")
    if isinstance(path, RangedFile):
        what = "is no format that can be read" if kind is None else "holds single readouts, which only a copy on this machine can sort"
        raise ScanError(path.name, what, "Prepare it without index-only.")
    if kind == "cmrxrecon":
        return CmrxreconVolume(path, dataset=dataset, deidentifier=deidentifier, limits=limits, location=location)
    if kind == "stream":
        raise ScanError(
            f"{path.name}: an MRD stream",
            "is what a scanner sends, not a file whose readouts can be looked up",
            "Convert it: ismrmrd_stream_to_hdf5, or mrd-stream-to-hdf5 of MRD 2.",
        )
    if kind == "ismrmrd":
        return open_ismrmrd(path, dataset=dataset, deidentifier=deidentifier, limits=limits)
    if kind == "twix":
        try:
            from echotrain.data.formats.twix import open_twix
        except ImportError as error:
            raise ConfigError(f"{path.name} is a twix file", "reading it needs twixtools", "Install echotrain[formats].") from error
        return open_twix(path, dataset=dataset, deidentifier=deidentifier, limits=limits)
    raise ScanError(
        f"{path.name}",
        "is no format that can be read",
        "Give fastMRI-layout HDF5, CMRxRecon's MATLAB files, ISMRMRD or Siemens twix files.",
    )


def _kind(path: Path | RangedFile) -> Literal["fastmri", "cmrxrecon", "ismrmrd", "twix", "stream"] | None:
    with contextlib.nullcontext(path) if isinstance(path, RangedFile) else path.open("rb") as content:
        size = content.seek(0, os.SEEK_END)
        begins_as_hdf5, begins_as_twix = is_hdf5(content, size), _looks_like_twix(content, size)
        begins_as_stream = _looks_like_stream(content, size)
        content.seek(0)
        begin = content.read(_STREAM_BEGIN)
    if begins_as_hdf5:
        with Hdf5File(path) as file:
            if is_matlab_73(begin) or holds_cmrxrecon(file):
                return "cmrxrecon"
            return "fastmri" if "kspace" in file.root or not find_groups(file.root) else "ismrmrd"
    if is_matlab_5(begin) or is_matlab_73(begin):  # The latter cut off in front of its HDF5, as its reader says.
        return "cmrxrecon"
    return "stream" if begins_as_stream else "twix" if begins_as_twix else None


def _looks_like_stream(file: BinaryIO | RangedFile, size: int) -> bool:
    """Say whether a file begins with a message of ISMRMRD's protocol (number, length, XML or a configuration's name), or as MRD 2."""
    file.seek(0)
    begin = file.read(_STREAM_BEGIN)
    if begin.startswith(b"yardl"):
        return True
    kind, length = int.from_bytes(begin[:2], "little"), int.from_bytes(begin[2:6], "little")
    if kind == _CONFIG_FILE:
        name, _, rest = begin[2:].partition(b"\x00")
        return _is_text(name) and bool(rest) and not rest.strip(b"\x00")
    text = begin[6 : 6 + length]
    return 0 < length < size and (kind == _CONFIG_TEXT or (kind == _HEADER and text.lstrip().startswith(b"<"))) and _is_text(text)


def _is_text(begin: bytes) -> bool:
    return bool(begin) and all(byte >= 32 or byte in b"\t\r\n" for byte in begin)


def _looks_like_twix(file: BinaryIO | RangedFile, size: int) -> bool:
    file.seek(0)
    begin = file.read(8)
    if len(begin) < 8:
        return False
    first, second = int.from_bytes(begin[:4], "little"), int.from_bytes(begin[4:], "little")
    if first < _MAX_VD_ID:
        return 0 < second <= _MAX_MEASUREMENTS and size > 8 + second * _ENTRY_BYTES
    return first < size and 0 < second <= _MAX_PARTS
