"""Readouts that run to and fro without saying so: an echo-planar scan that is read as lines becomes a ghost.

A readout's Fourier transform is a projection of the object, weighted by each coil. Lines near the centre of k-space have much the same
projections, and lines that were read backwards have them mirrored.
"""

import numpy as np
from numpy.typing import NDArray

from echotrain.data.formats.checks.energy import Lines

__all__ = ["alternates"]

_LINES = 24
_MIN_LINES = 12
# Lines of one direction that follow each other: as many as an interleaved echo-planar scan has shots.
_MOST_SHOTS = 8
# Half the summed difference of normalised projections of the two directions. As they are: 0.03 to 0.3 in scans of heads, knees, spines and
# phantoms, mirrored 0.1 to 0.9 and always more; of every second line turned over it is the other way round, by 1.3 to 15.
_MIN_DIFFERENCE = 0.12
_CLEARLY = 2.0


def alternates(kspace: NDArray[np.complex64], acquired: Lines, center: int) -> bool:
    """Say whether lines, or groups of lines, show the object mirrored in turn.

    Args:
        kspace: (coils, height, width).
        acquired: Which phase-encode lines hold anything, (width,).
        center: Column of the strongest line.
    """
    columns = np.flatnonzero(acquired)
    near = np.sort(columns[np.argsort(np.abs(columns - center), kind="stable")[:_LINES]])
    if len(near) < _MIN_LINES:
        return False
    projections = np.square(np.abs(np.fft.ifft(np.fft.ifftshift(kspace[..., near], axes=1), axis=1)))
    projections /= np.maximum(projections.sum(axis=(0, 1), keepdims=True), np.finfo(np.float32).tiny)
    # About position 0, which an unshifted transform has first: the mirror of a readout that was turned over.
    mirrored = np.roll(projections[:, ::-1], 1, axis=1)
    for shots in range(1, _MOST_SHOTS + 1):
        for offset in range(shots):
            is_first = ((np.arange(len(near)) + offset) // shots) % 2 == 0
            if is_first.all() or not is_first.any():
                continue
            one, other = projections[..., is_first].mean(axis=-1), projections[..., ~is_first].mean(axis=-1)
            as_is, turned = np.abs(one - other).sum() / 2, np.abs(one - mirrored[..., ~is_first].mean(axis=-1)).sum() / 2
            if as_is > _MIN_DIFFERENCE and as_is > _CLEARLY * turned:
                return True
    return False
