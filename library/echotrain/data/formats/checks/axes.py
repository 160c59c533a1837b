"""Which axis of a fastMRI-layout k-space is the readout: fastMRI stores it first, files of some data sets last."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from echotrain.data.formats.checks.energy import Energy, acquired

__all__ = ["AxisClaims", "is_phase_first"]

# The mildest acceleration in use is 1.3.
_MOST_OF_THEM = 0.85


class AxisClaims(NamedTuple):
    """What a file says of its axes.

    Attributes:
        encoded: Matrix (readout, phase) of the header.
        recon: Matrix (readout, phase) of the image.
        padding: Measured lines [left, right) along the phase axis, None where the header's limits make no sense.
        target: Shape of the stored target, None where there is none.
    """

    encoded: tuple[int, int]
    recon: tuple[int, int]
    padding: tuple[int, int] | None
    target: tuple[int, int] | None


def is_phase_first(stored: tuple[int, int], claims: AxisClaims, sample: Callable[[], Energy], target_is_own: Callable[[], bool]) -> bool:
    """Say whether the phase encodes run along the first axis of the k-space as it is stored.

    Sizes tell where the matrix is not square; else which lines are empty: phase encodes are left out, readouts are not; else the shape of
    an image that belongs to the k-space as it is stored. Where nothing tells, the layout's rule holds.

    Args:
        stored: Shape of the last two axes.
        claims: What the file says.
        sample: Reads the energy (first axis, last axis) of a few slices; called only where sizes do not tell.
        target_is_own: Holds the stored image against the k-space; called only where nothing else tells.
    """
    if claims.encoded[0] != claims.encoded[1]:
        return stored == claims.encoded[::-1]
    energy = sample()
    if not energy.any():
        return False
    first, last = acquired(energy, 0), acquired(energy, 1)
    if claims.padding is not None and claims.padding != (0, claims.encoded[1]) and first.all() != last.all():
        return _fits(first, claims.padding) and not _fits(last, claims.padding)
    if _has_gaps(first) != _has_gaps(last):
        return _has_gaps(first)
    is_turned = claims.target is not None and claims.recon[0] != claims.recon[1] and claims.target == claims.recon[::-1]
    return is_turned and target_is_own()


def _fits(lines: NDArray[np.bool_], padding: tuple[int, int]) -> bool:
    """Say whether a header's padding is what these lines leave empty, to within the line that odd matrices differ by."""
    there = np.flatnonzero(lines)
    return abs(int(there[0]) - padding[0]) <= 1 and abs(int(there[-1]) + 1 - padding[1]) <= 1


def _has_gaps(lines: NDArray[np.bool_]) -> bool:
    """Say whether lines were left out to measure faster; a few that are missing are damage."""
    there = np.flatnonzero(lines)
    return float(lines[there[0] : there[-1] + 1].mean()) < _MOST_OF_THEM
