"""Curation: what cannot be reconstructed slice by slice is left out, and every time it is said why."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from echotrain.data.formats.protocol_kinds import PROTOCOL_KINDS
from echotrain.data.formats.volume import Volume
from echotrain.data.header import VolumeHeader
from echotrain.errors import ConfigError

__all__ = ["CurationConfig", "Rejection", "acquired_lines", "slice_defect", "volume_defect"]


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
    """

    slice: int | None
    reason: str


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
    mask = volume.mask()
    if mask is not None and not mask[header.padding_left : header.padding_right].all():
        return f"undersampled already: {int(mask.sum())} of {header.padding_right - header.padding_left} lines were acquired"
    return None


def slice_defect(kspace: np.ndarray, header: VolumeHeader) -> str | None:
    """Return why a slice is of no use, or None.

    Args:
        kspace: complex64 (coils, height, width).
        header: Of its volume.
    """
    if not np.isfinite(kspace).all():
        return "k-space holds NaN or infinity"
    lines = acquired_lines(kspace)[header.padding_left : header.padding_right]
    if not lines.any():
        return "k-space is all zero"
    # Empty lines at the edges are partial Fourier that the header does not mention; between measured lines they are missing data.
    first, last = np.flatnonzero(lines)[[0, -1]]
    missing = int((~lines[first : last + 1]).sum())
    if missing:
        return f"undersampled already: {missing} of {int(last - first) + 1} phase-encode lines are empty"
    return None


def acquired_lines(kspace: np.ndarray) -> np.ndarray:
    """Return which phase-encode lines hold anything, bool (width,)."""
    return np.asarray(kspace.any(axis=(0, 1)))
