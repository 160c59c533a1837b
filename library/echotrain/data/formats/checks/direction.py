"""Readouts that run to and fro without saying so: an echo-planar scan that is read as lines becomes a ghost."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["alternates"]

_LINES = 12
_LAGS = 8
_MIN_PAIRS = 6
# Neighbouring lines are alike (0.55 to 0.96 in scans of all kinds); turned over they are less so, by 1.02 to 2.4. In echo-planar
# scans, and in any scan with every second line turned over, it is the other way round by 1.3 to 2.4.
_CLEARLY = 1.2
_MOST = 0.7


def alternates(kspace: NDArray[np.complex64], center: int) -> bool:
    """Say whether each line near the centre resembles its neighbour turned over rather than as it is.

    Args:
        kspace: (coils, height, width).
        center: Column of the strongest line.
    """
    first, last = max(center - _LINES, 0), min(center + _LINES, kspace.shape[-1] - 1)
    pairs = [(kspace[..., column], kspace[..., column + 1]) for column in range(first, last)]
    pairs = [(one, other) for one, other in pairs if one.any() and other.any()]
    if len(pairs) < _MIN_PAIRS:
        return False
    as_is = np.array([_likeness(one, other) for one, other in pairs])
    turned = np.array([_likeness(one, other[:, ::-1]) for one, other in pairs])
    return bool(np.median(turned) > _CLEARLY * np.median(as_is) and np.mean(turned > as_is) >= _MOST)


def _likeness(one: NDArray[np.complex64], other: NDArray[np.complex64]) -> float:
    """Return the largest normalised correlation of two lines (coils, height), allowed to lie a few samples apart."""
    length = 2 * one.shape[-1]
    product = np.fft.fft(one, length).conj() * np.fft.fft(other, length)
    correlation = np.abs(np.fft.ifft(product.sum(axis=0)))
    near = np.concatenate([correlation[: _LAGS + 1], correlation[-_LAGS:]])
    return float(near.max() / (np.linalg.norm(one) * np.linalg.norm(other)))
