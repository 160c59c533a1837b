"""CMRxRecon 2023 to 2025: MATLAB files of one examination of the heart with all its slices and frames, v7.3 or version 5.

To MATLAB k-space is [nx, ny, nc, nz, nt], nx along the readout and ny along the phase encodes; on disk the axes are reversed. MATLAB drops
axes of one at the end, so that a single frame has four of them and a single slice of it three; k-space of a single coil, which 2023 has,
lacks nc by its name.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import NamedTuple, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from echotrain.data.formats.cmrxrecon_places import BadParts, Place, bad_parts, place_of
from echotrain.data.formats.deidentify import Deidentifier, Identity
from echotrain.data.formats.hdf5 import Hdf5File
from echotrain.data.formats.header import VolumeHeader
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.matlab_files import SAVE_AGAIN, ComplexArray, is_struct, open_matlab, variables_of
from echotrain.data.formats.public_names import acquisition_code
from echotrain.errors import ScanError

__all__ = ["IN_PLACE", "CmrxreconVolume", "holds_cmrxrecon"]

# Why such a file cannot serve as a shard itself.
IN_PLACE = "MATLAB's real and imaginary parts, axes reversed, are no k-space that can be read in place"

_FULL = {"kspace_full": False, "kspace": False, "kspace_single_full": True, "kspace_single": True}
_UNDERSAMPLED = re.compile(r"kus|kspace(?:_single)?_sub(?:_?full|\d\d)?", re.ASCII)
_MASK = re.compile(r"mask(?:\d\d)?", re.ASCII)
_CONTRASTS = {"T1w": "T1", "T2w": "T2"}


class _Axes(NamedTuple):
    """Sizes of a k-space; the first two are 1 where the array lacks these axes."""

    frames: int
    slices: int
    coils: int
    phase: int
    readout: int


class CmrxreconVolume:
    """A file of CMRxRecon, opened; images are read one at a time."""

    # As MATLAB sees them the axes are (readout, phase), which is how the challenge wants its images back.
    is_phase_first = False
    num_partitions = 1

    def __init__(self, path: Path, *, dataset: str, deidentifier: Deidentifier, limits: ReadLimits, location: str = "") -> None:
        """Open a file and check all that it declares; none of its k-space is read.

        Args:
            path: The file.
            dataset: Collection the volume belongs to; "" takes what its folders say.
            deidentifier: Makes the pseudonyms.
            limits: Memory limits.
            location: Where the file lies for everybody; its folders say centre, vendor and patient.

        Raises:
            ScanError: The file is not what it says it is, holds no fully sampled k-space, or is known to be bad.
        """
        self._name = path.name
        self._file = open_matlab(path)
        self._told: list[str] = []
        try:
            place = place_of(location or str(path), dataset)
            bad = self._known_bad(place)
            self._kspace, is_single = self._open_kspace(limits)
            self._axes = _axes_of(self._kspace.shape, is_single, self._name)
            self._frames, self._slices = self._kept(bad)
            self._mask = self._read_mask(limits)
            self.header = self._build_header(place, dataset, deidentifier)
            self.stated_recon = (self.header.recon_height, self.header.recon_width)
            self.is_location_safe = deidentifier.is_safe_location(location, Identity())
        except BaseException:
            self._file.close()
            raise

    @property
    def findings(self) -> tuple[str, ...]:
        """What of the file was left out or taken on trust."""
        return tuple(self._told)

    @property
    def in_place_defect(self) -> str:
        """Why the file's own bytes cannot be read by others."""
        return IN_PLACE

    @property
    def calibration(self) -> None:
        """None: these files keep no calibration lines apart."""

    def read_slice(self, index: int) -> np.ndarray:
        """Return k-space of one image: complex64 (coils, height, width)."""
        where = self._where(index)
        # Behind frames and slices an array has its other axes, whatever it lacks of them.
        kspace = self._kspace.read(where[len(where) - self._num_leading :]).reshape(self._axes.coils, self._axes.phase, self._axes.readout)
        return np.ascontiguousarray(kspace.swapaxes(-1, -2))

    def read_target(self, index: int) -> np.ndarray | None:
        """Return None: these files have no images."""
        return None

    def raw_slice_range(self, index: int) -> None:
        """Return None: see ``in_place_defect``."""

    def raw_target_range(self, index: int) -> None:
        """Return None: these files have no images."""

    def mask(self, index: int) -> NDArray[np.bool_] | None:
        """Return the phase-encode lines of an image that a mask beside the k-space names, bool (width,), or None."""
        if self._mask is None:
            return None
        frame, _ = self._where(index)
        lines: NDArray[np.bool_] = self._mask[frame if len(self._mask) > 1 else 0]
        return lines

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def _num_leading(self) -> int:
        """Return how many axes of the array count frames and slices."""
        return max(0, len(self._kspace.shape) - (3 if self._has_coil_axis else 2))

    def _where(self, index: int) -> tuple[int, int]:
        """Return frame and slice of an image in the file's own order."""
        slice_, frame = divmod(index, len(self._frames))
        return self._frames[frame], self._slices[slice_]

    def _known_bad(self, place: Place) -> BadParts:
        bad = bad_parts(place) or BadParts()
        if bad.is_whole:
            raise ScanError(
                self._name, "is known to hold only background, or to be of very bad quality (CMRxRecon 2024)", "Leave it out, as others do."
            )
        return bad

    def _open_kspace(self, limits: ReadLimits) -> tuple[ComplexArray, bool]:
        for key, is_single in _FULL.items():
            kspace = self._file.complex_array(key, limits, slice_axes=2 if is_single else 3)
            if kspace is not None:
                self._has_coil_axis = not is_single
                if kspace.is_double:
                    self._told.append("stored in double precision: read in single")
                return kspace, is_single
        raise _no_kspace(self._name, self._file.names)

    def _kept(self, bad: BadParts) -> tuple[list[int], list[int]]:
        """Return the frames and slices that are not known to be bad, and tell of those that are."""
        left_out = {slice_ % self._axes.slices for slice_ in bad.slices}
        frames = list(range(self._axes.frames - bad.last_frames))
        slices = [slice_ for slice_ in range(self._axes.slices) if slice_ not in left_out]
        if not frames or not slices:
            raise ScanError(
                f"{self._name}: {self._axes.frames} frames of {self._axes.slices} slices",
                "are fewer than are known to be bad of the file of this name (CMRxRecon 2024)",
                "Rename it, if it is another one.",
            )
        told = [f"the last {bad.last_frames} frames"] if bad.last_frames else []
        told += [f"slice {slice_}" for slice_ in sorted(left_out)]
        if told:
            self._told.append(
                f"left out {' and '.join(told)}: known to hold only background, or to be of very bad quality (CMRxRecon 2024)"
            )
        return frames, slices

    def _read_mask(self, limits: ReadLimits) -> NDArray[np.bool_] | None:
        """Return the lines that a mask beside the k-space names, bool (frames or 1, width); None where there is none."""
        mask = self._file.numbers("mask", limits)
        if mask is None:
            return None
        frames, _, _, phase, readout = self._axes
        if mask.shape not in ((phase, readout), (1, phase, readout), (frames, phase, readout)):
            raise ScanError(
                f"{self._name}: a mask of shape {mask.shape[::-1]}",
                f"beside {frames} frames of {readout} x {phase}, must be [nx, ny, nt]",
                SAVE_AGAIN,
            )
        # A line counts where all of it was acquired: a pattern in two dimensions is none of lines.
        return np.asarray((mask.reshape(-1, phase, readout) != 0).all(axis=-1))

    def _build_header(self, place: Place, dataset: str, deidentifier: Deidentifier) -> VolumeHeader:
        stem, axes = PurePosixPath(self._name).stem, self._axes
        return VolumeHeader(
            dataset=dataset or f"cmrxrecon{place.year or ''}",
            volume=deidentifier.volume(stem, Identity()),
            patient=deidentifier.patient(Identity(), stem),
            anatomy="heart",
            contrast=_CONTRASTS.get(place.modality, ""),
            acquisition=acquisition_code(place.modality),
            modality=place.modality,
            vendor=place.vendor,
            field_strength=place.field_strength,
            center=place.center,
            num_slices=len(self._slices),
            num_frames=len(self._frames) if len(self._frames) > 1 else None,
            num_coils=axes.coils,
            height=axes.readout,
            width=axes.phase,
            recon_height=axes.readout,
            recon_width=axes.phase,
            padding_right=axes.phase,
        )


def holds_cmrxrecon(file: Hdf5File) -> bool:
    """Say whether an HDF5 file has CMRxRecon's variables: by their names, and of ``kspace``, which others have too, by its numbers."""
    names = variables_of(file)
    if any(name in names for name in _FULL if name != "kspace") or any(_UNDERSAMPLED.fullmatch(name) for name in names):
        return True
    if "kspace" not in names:
        return False
    node = file.root["kspace"]
    return isinstance(node, h5py.Dataset) and is_struct(node.dtype)


def _no_kspace(name: str, names: Sequence[str]) -> ScanError:
    if any(_UNDERSAMPLED.fullmatch(found) for found in names):
        return ScanError(
            f"{name}: k-space that is undersampled already", "only fully sampled k-space is read", "Take the files of FullSample folders."
        )
    if any(_MASK.fullmatch(found) for found in names):
        return ScanError(f"{name}: a sampling mask", "holds no k-space", "Take the files of FullSample folders.")
    return ScanError(f"{name}: {len(names)} variables", f"none is {', '.join(_FULL)}", SAVE_AGAIN)


def _axes_of(shape: tuple[int, ...], is_single: bool, name: str) -> _Axes:
    """Return the sizes of a k-space.

    Raises:
        ScanError: It has too few or too many axes, or more frames or slices than pixels: its axes lie otherwise.
    """
    most = 4 if is_single else 5
    if not 2 <= len(shape) <= most or math.prod(shape) == 0:
        raise ScanError(f"{name}: k-space of shape {shape[::-1]}", f"must have 2 to {most} axes, none of them empty", SAVE_AGAIN)
    if is_single:
        shape = (*shape[:-2], 1, *shape[-2:])
    axes = _Axes(*(1,) * (5 - len(shape)), *shape)
    if max(axes.readout, axes.phase) < max(axes.frames, axes.slices):
        raise ScanError(
            f"{name}: k-space of {axes.readout} x {axes.phase} with {axes.slices} slices and {axes.frames} frames",
            "has more of these than pixels: its axes are not [nx, ny, nc, nz, nt] to MATLAB",
            SAVE_AGAIN,
        )
    return axes
