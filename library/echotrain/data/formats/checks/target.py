"""Whether a stored image belongs to the k-space that it lies beside.

A whole image costs two Fourier transforms of every coil; a few of its columns cost a product with a narrow matrix and the transform of
those columns, a tenth of that, and differ just as much where the image is another one.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["is_of", "scale_of"]

_COLUMNS = 12

# Root-mean-square difference, relative to the target. Transforms in single and half precision differ by 1e-6 and 5e-4; a flip, a
# transposition, a neighbouring slice or a shift by one pixel by 0.05 and more. Whoever is refused only has the target computed.
_LARGEST_DIFFERENCE = 0.02
# Around the limit the last digits of a sum might decide.
_NEAR = 2.0

Complex = NDArray[np.complex64]


def scale_of(target: NDArray[np.float32], kspace: NDArray[np.complex64]) -> float | None:
    """Return the factor between a stored target and the root sum of squares of its k-space, None where they show different things.

    Args:
        target: (y, x), no larger than the k-space.
        kspace: (coils, height, width), fully sampled.
    """
    stored, ours = _columns(target, kspace, np.matmul)
    energy = float(np.square(ours).sum())
    if not np.isfinite(target).all() or not stored.max() > 0 or not energy > 0:
        return None
    scale = float((stored * ours).sum()) / energy
    return scale if scale > 0 and _difference(stored, scale * ours) < _LARGEST_DIFFERENCE else None


def is_of(target: NDArray[np.float32], kspace: NDArray[np.complex64], scale: float) -> bool:
    """Say whether a stored target is the root sum of squares of its k-space times a known factor; arguments as of ``scale_of``."""
    stored, ours = _columns(target, kspace, _fast_product)
    if not np.isfinite(target).all() or not stored.max() > 0:
        return False
    difference = _difference(stored, scale * ours)
    if _LARGEST_DIFFERENCE / _NEAR < difference < _LARGEST_DIFFERENCE * _NEAR:
        difference = _difference(stored, scale * _columns(target, kspace, np.matmul)[1])
    return difference < _LARGEST_DIFFERENCE


def _columns(
    target: NDArray[np.float32], kspace: Complex, product: Callable[[Complex, Complex], Complex]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return evenly spaced columns of a target, and the same columns of the root sum of squares: (y, columns) each."""
    (height, width), (rows, columns) = kspace.shape[1:], target.shape
    chosen = np.unique(np.linspace(0, columns - 1, _COLUMNS + 2).round().astype(int))
    places = (width - columns) // 2 + chosen - width // 2
    frequencies = np.arange(width) - width // 2
    transform = np.exp(2j * np.pi * np.outer(frequencies, places) / width) / np.sqrt(width)
    hybrid = product(kspace.reshape(-1, width), transform.astype(np.complex64))
    lines = hybrid.reshape(len(kspace), height, len(chosen))
    images = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(lines, axes=1), axis=1, norm="ortho"), axes=1)
    first = (height - rows) // 2
    ours = np.sqrt(np.square(np.abs(images)).sum(axis=0, dtype=np.float64))[first : first + rows]
    return target[:, chosen].astype(np.float64), ours


def _fast_product(rows: Complex, columns: Complex) -> Complex:
    """Return the product of complex matrices by one of real ones, for which torch takes half the time, rounded a little differently."""
    pairs = np.empty((len(columns), 2, columns.shape[1], 2), np.float32)
    pairs[:, 0, :, 0] = pairs[:, 1, :, 1] = columns.real
    pairs[:, 0, :, 1], pairs[:, 1, :, 0] = columns.imag, -columns.imag
    of_rows = torch.from_numpy(np.ascontiguousarray(rows).view(np.float32))
    return (of_rows @ torch.from_numpy(pairs.reshape(2 * len(columns), -1))).numpy().view(np.complex64)


def _difference(stored: NDArray[np.float64], ours: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(stored - ours) / np.linalg.norm(stored))
