"""Where k-space holds anything, and where its energy lies.

What was not acquired is rarely zero to the bit: a Fourier transform there and back in single precision leaves about 3e-8 of the
largest sample. So "empty" is relative to the largest sample, and far below any receiver's noise: an analogue-to-digital converter
of 16 bits leaves noise of 1e-5 of it at the least.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = [
    "Energy",
    "Holes",
    "Peak",
    "acquired",
    "energy_of",
    "find_holes",
    "find_peak",
    "finite_energy",
    "is_off_center",
    "peak_of",
    "tolerance",
]

Energy = NDArray[np.float64]
Lines = NDArray[np.bool_]

# Energies, so squares of the amplitudes 1e-6 and 1e-4.
_DUST = 1e-12
_SUSPECT = 1e-8
# Between dust and the weakest measured line lies at least this factor (100 in amplitude); measured lines fall off gradually.
_GAP = 1e4
# A readout that begins or ends a sample early is whole; one that lacks a twentieth of its samples is not.
_ALLOWED_HOLES = 0.05
_DISTINCT = 1.6
# What is done at once stays in the processor's cache; less would be calls more than sums.
_FLOATS_AT_ONCE = 96 << 10


class Peak(NamedTuple):
    """Where most of the energy lies along one axis.

    Attributes:
        line: The strongest one, of three neighbours' mean.
        contrast: Its amplitude over the median line's: 4 to 33 in scans of heads, knees, spines and phantoms, 1.2 at most in pure noise.
        num_lines: How many lines it was judged over.
        rivals: Further peaks of half its height and more, each beyond a valley.
    """

    line: int
    contrast: float
    num_lines: int = 0
    rivals: int = 0

    @property
    def is_distinct(self) -> bool:
        """Whether it stands out; noise has no peak."""
        return self.contrast > _DISTINCT


class Holes(NamedTuple):
    """Samples that are missing inside the measured region.

    Attributes:
        lines: Phase-encode lines that lack more than a twentieth of their samples.
        share: Part of the region's samples that is missing.
    """

    lines: int
    share: float


def energy_of(kspace: NDArray[np.complex64]) -> Energy:
    """Return the energy of each sample over all coils, float64 (height, width), of k-space (coils, height, width)."""
    pairs = torch.from_numpy(np.ascontiguousarray(kspace)).view(torch.float32).reshape(*kspace.shape, 2)
    lowest, highest = torch.aminmax(pairs) if pairs.numel() else (torch.zeros(()), torch.zeros(()))
    largest = float(torch.maximum(highest, -lowest))
    if not np.isfinite(largest) or largest == 0:
        return np.full(kspace.shape[1:], 0.0 if largest == 0 else np.nan)
    energy = torch.empty(pairs.shape[1:3])
    rows = max(1, _FLOATS_AT_ONCE // (2 * pairs.shape[2]))
    for start in range(0, len(energy), rows):
        block = pairs[:, start : start + rows]
        squares, scaled = torch.zeros(block.shape[1:]), torch.empty(block.shape[1:])
        # Relative to the largest, so that squares of the weakest stay within single precision.
        for coil in block:
            torch.div(coil, largest, out=scaled)
            squares.addcmul_(scaled, scaled)
        torch.add(squares[..., 0], squares[..., 1], out=energy[start : start + rows])
    return np.asarray(energy.numpy(), np.float64) * largest**2


def finite_energy(kspace: NDArray[np.complex64]) -> Energy:
    """Return ``energy_of``, all zero where k-space holds NaN or infinity: such a slice tells nothing."""
    energy = energy_of(kspace)
    return energy if np.isfinite(energy).all() else np.zeros_like(energy)


def acquired(energy: Energy, axis: int = 1) -> Lines:
    """Return which lines along an axis hold more than the dust of rounding.

    Args:
        energy: (height, width), finite.
        axis: 1 asks for phase-encode columns, 0 for readout rows.
    """
    peaks = energy.max(axis=1 - axis)
    largest = float(peaks.max())
    if largest <= 0:
        return np.zeros(len(peaks), bool)
    return np.asarray(peaks > max(_DUST * largest, _dust_ceiling(peaks, largest)))


def _dust_ceiling(peaks: Energy, largest: float) -> float:
    """Return the strongest line of those that a wide gap separates from all others, 0 where there is no such gap."""
    ordered = np.sort(peaks[peaks > 0])
    weak = ordered[:-1] < _SUSPECT * largest
    gaps = np.flatnonzero(weak & (ordered[1:] > _GAP * ordered[:-1]))
    return float(ordered[gaps[-1]]) if len(gaps) else 0.0


def find_holes(energy: Energy) -> Holes:
    """Look for missing samples between the first and the last measured row and column: 2-D patterns, cut corners, half readouts."""
    columns, rows = np.flatnonzero(acquired(energy, 1)), np.flatnonzero(acquired(energy, 0))
    if not len(columns):
        return Holes(0, 0.0)
    region = energy[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    is_empty = region <= _DUST * energy.max()
    per_line = is_empty[:, acquired(region, 1)].sum(axis=0)
    allowed = max(2, _ALLOWED_HOLES * len(region))
    return Holes(int((per_line > allowed).sum()), float(is_empty.mean()))


def find_peak(energy: Energy, axis: int = 1) -> Peak:
    """Find the line with most signal along an axis. Amplitudes are summed, so that one spike of interference does not decide."""
    return peak_of(np.sqrt(energy).sum(axis=1 - axis), acquired(energy, axis))


def peak_of(amplitudes: Energy, measured: Lines) -> Peak:
    """Find the peak of a profile of amplitudes, judged over its measured lines."""
    positions = np.flatnonzero(measured)
    if len(positions) < 4:
        return Peak(int(np.argmax(amplitudes)) if len(amplitudes) else 0, 1.0, len(positions))
    profile = amplitudes[positions]
    smooth = (np.roll(profile, 1) + profile + np.roll(profile, -1)) / 3
    strongest = int(np.argmax(smooth))
    contrast = float(smooth[strongest] / np.median(smooth))
    return Peak(int(positions[strongest]), contrast, len(positions), _count_rivals(smooth))


def _count_rivals(profile: Energy) -> int:
    """Count the peaks of half the largest and more that a valley of a quarter of it separates, but for the largest."""
    largest, count, is_high = float(profile.max()), 0, False
    for value in profile:
        if value > largest / 2 and not is_high:
            count, is_high = count + 1, True
        elif value < largest / 4:
            is_high = False
    return count - 1


def tolerance(size: int) -> int:
    """Return how many lines the peak may lie beside the centre: gradient delays, field offsets and coil phases move it a little."""
    return max(4, size // 32)


def is_off_center(peak: Peak, size: int) -> bool:
    """Say whether a distinct peak contradicts a zero frequency at ``size // 2``."""
    return peak.is_distinct and abs(peak.line - size // 2) > tolerance(size)
