"""Signatures of k-space that a constant factor does not change: they tell scans that were exported twice, never what is kept.

A hash of rounded values would not do: multiplied by 1.01, some of a million values fall on the other side of a rounding boundary.
Instead the phases of some thousand samples of every slice are projected onto fixed random units. The same samples times a constant give
the same magnitudes of the projections up to rounding errors, other samples give others, and two signatures are compared with a tolerance.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_PROJECTIONS", "alike", "signature_of", "slice_projections"]

_NUM_PROJECTIONS = 16
_NUM_SAMPLES = 4096
# Projections of random phases have a standard deviation of 1; a copy in halves of float16 moves them by about 1e-3.
_STEP = 1e-3
_TOLERANCE = 8
_DIGITS = 4
_UNITS = np.array([1, 1j, -1, -1j])
_LARGEST = 16**_DIGITS - 1

# Of no slice at all; slices' projections are added to it.
NO_PROJECTIONS: NDArray[np.complex128] = np.zeros(_NUM_PROJECTIONS, np.complex128)


def slice_projections(kspace: NDArray[np.complex64], index: int) -> NDArray[np.complex128]:
    """Return a slice's part of its volume's signature; parts are added.

    Args:
        kspace: complex64 (coils, height, width), finite.
        index: Of the slice, which is given its own units.
    """
    rng = np.random.default_rng((index, *kspace.shape))
    samples = kspace.reshape(-1)[rng.integers(0, kspace.size, _NUM_SAMPLES)].astype(np.complex128)
    magnitudes = np.abs(samples)
    phases = np.divide(samples, magnitudes, out=np.zeros_like(samples), where=magnitudes > 0)
    # Not +1 and -1 alone: the conjugate, which is the image turned by 180 degrees, is another scan.
    units = _UNITS[rng.integers(0, len(_UNITS), (_NUM_PROJECTIONS, _NUM_SAMPLES))]
    return np.asarray(units @ phases)


def signature_of(projections: NDArray[np.complex128], num_slices: int) -> str:
    """Return the signature of a volume as text, "" where its k-space is all zero.

    Args:
        projections: Sum of what ``slice_projections`` gave for its slices.
        num_slices: How many they were.
    """
    if not projections.any():
        return ""
    magnitudes = np.abs(projections) / np.sqrt(num_slices * _NUM_SAMPLES)
    return "".join(f"{value:0{_DIGITS}x}" for value in np.minimum(np.round(magnitudes / _STEP), _LARGEST).astype(int))


def alike(signatures: Sequence[str]) -> list[list[int]]:
    """Return the groups of two and more signatures that are of one k-space up to a constant, as positions, in order.

    Empty signatures, and those of another length, are like none.
    """
    usable = [i for i, text in enumerate(signatures) if len(text) == _NUM_PROJECTIONS * _DIGITS]
    if not usable:
        return []
    values = np.array([[int(signatures[i][at : at + _DIGITS], 16) for at in range(0, len(signatures[i]), _DIGITS)] for i in usable])
    order = np.lexsort(values.T[::-1])
    parents = list(range(len(usable)))
    for rank, position in enumerate(order):
        # Sorted by the first projection: whatever may be alike follows within the tolerance.
        end = rank + 1 + int(np.searchsorted(values[order[rank + 1 :], 0], values[position, 0] + _TOLERANCE, side="right"))
        others = order[rank + 1 : end]
        for other in others[(np.abs(values[others] - values[position]) <= _TOLERANCE).all(axis=1)]:
            parents[_root(parents, int(other))] = _root(parents, int(position))
    groups: dict[int, list[int]] = {}
    for position, index in enumerate(usable):
        groups.setdefault(_root(parents, position), []).append(index)
    return sorted(group for group in groups.values() if len(group) > 1)


def _root(parents: list[int], position: int) -> int:
    while parents[position] != position:
        parents[position] = parents[parents[position]]
        position = parents[position]
    return position
