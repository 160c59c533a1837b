"""Curation: what cannot be reconstructed slice by slice is left out, and every time it is said why."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from echotrain.data.formats.checks.energy import Energy, acquired, energy_of, find_holes, find_peak, is_off_center
from echotrain.data.formats.checks.examined import measured_range
from echotrain.data.formats.header import VolumeHeader
from echotrain.data.formats.protocol_kinds import PROTOCOL_KINDS
from echotrain.data.formats.volume import Volume
from echotrain.errors import ConfigError

__all__ = ["CurationConfig", "Judgement", "Rejection", "acquired_lines", "judge_slice", "slice_defect", "volume_defect"]


@dataclass(frozen=True, kw_only=True)
class CurationConfig:
    """Which volumes are kept.

    Attributes:
        min_slices: Fewest slices per volume.
        min_coils: Fewest receive coils; 2 leaves out single-coil data.
        leave_out: Kinds of protocols, of ``PROTOCOL_KINDS``, that are left out by what the protocol's name says.
    """

    min_slices: int = 1
    min_coils: int = 1
    leave_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("min_slices", "min_coils"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}", "must be at least 1", "1 keeps every volume.")
        unknown = [kind for kind in self.leave_out if kind not in PROTOCOL_KINDS]
        if unknown:
            raise ConfigError(f"leave_out={','.join(unknown)}", "is no kind of protocol", f"There are: {', '.join(PROTOCOL_KINDS)}.")


class Rejection(NamedTuple):
    """Why something was left out.

    Attributes:
        slice: Index of the slice, or None for the whole volume.
        reason: One phrase, free of file names and identifiers.
        frame: Of the slice, None where all of it is meant.
    """

    slice: int | None
    reason: str
    frame: int | None = None


class Judgement(NamedTuple):
    """What a slice's samples show.

    Attributes:
        defect: Why it is of no use, None where it is.
        measured: Its measured phase-encode lines [left, right).
    """

    defect: str | None
    measured: tuple[int, int]


def volume_defect(volume: Volume, config: CurationConfig) -> str | None:
    """Return why a volume is of no use, judged by its header alone, or None."""
    header = volume.header
    if volume.num_partitions > 1:
        return f"3D encode of {volume.num_partitions} partitions: slices are not independent"
    if "semac" in header.protocol_kinds:
        return "SEMAC by its protocol's name: it encodes every slice in 3D, so slices are not independent"
    named = [kind for kind in header.protocol_kinds if kind in config.leave_out]
    if named:
        return f"of a kind that is left out by the protocol's name: {', '.join(named)}"
    if header.num_slices < config.min_slices:
        return f"{header.num_slices} slices, fewer than {config.min_slices}"
    if header.num_coils < config.min_coils:
        return f"{header.num_coils} coils, fewer than {config.min_coils}"
    left, right = header.padding_left, header.padding_right
    masks = [volume.mask(index) for index in range(header.num_images)]
    acquired_of = [int(mask[left:right].sum()) for mask in masks if mask is not None]
    if len(acquired_of) == header.num_images and max(acquired_of) < right - left:
        low, high = min(acquired_of), max(acquired_of)
        count = str(low) if low == high else f"{low} to {high}"
        apart = volume.calibration
        told = "" if apart is None else f", {apart.num_lines} more in a calibration apart from the image"
        return f"undersampled already: {count} of {right - left} lines were acquired{told}"
    return None


def slice_defect(kspace: np.ndarray, header: VolumeHeader, energy: Energy | None = None) -> str | None:
    """Return why a slice is of no use, or None; arguments as of ``judge_slice``."""
    return judge_slice(kspace, header, energy).defect


def judge_slice(kspace: np.ndarray, header: VolumeHeader, energy: Energy | None = None) -> Judgement:
    """Judge a slice by its samples.

    Args:
        kspace: complex64 (coils, height, width).
        header: Of its volume.
        energy: ``energy_of`` the k-space, where it is known already.
    """
    energy = energy_of(kspace) if energy is None else energy
    if not np.isfinite(energy).all():
        return Judgement("k-space holds NaN or infinity", (0, 0))
    lines = acquired(energy)
    if not lines.any():
        return Judgement("k-space is all zero", (0, 0))
    measured = measured_range(lines, (header.padding_left, header.padding_right))
    return Judgement(_defect(energy, lines, measured), measured)


def _defect(energy: NDArray[np.float64], lines: NDArray[np.bool_], measured: tuple[int, int]) -> str | None:
    """Return why a slice of this energy (height, width) and these lines is of no use, or None."""
    # Empty lines at the edges are partial Fourier that the header does not mention; between measured lines they are missing data.
    inside = lines[measured[0] : measured[1]]
    first, last = np.flatnonzero(inside)[[0, -1]]
    missing = int((~inside[first : last + 1]).sum())
    if missing:
        return f"undersampled already: {missing} of {int(last - first) + 1} phase-encode lines are empty"
    holes = find_holes(energy)
    if holes.lines:
        return f"undersampled already: {holes.lines} phase-encode lines have holes, {holes.share:.0%} of the samples are empty"
    row, column = find_peak(energy, 0), find_peak(energy, 1)
    height, width = energy.shape
    if is_off_center(row, height) or is_off_center(column, width):
        return f"its zero frequency lies at row {row.line}, column {column.line} of {height} x {width}"
    return None


def acquired_lines(kspace: np.ndarray) -> np.ndarray:
    """Return which phase-encode lines hold more than the dust of rounding, bool (width,), of k-space (coils, height, width)."""
    return acquired(energy_of(kspace))
