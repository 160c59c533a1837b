"""Whether a stored image belongs to the k-space that it lies beside."""

import numpy as np
from numpy.typing import NDArray

from echotrain.data.target import rss_target

__all__ = ["is_of", "scale_of"]

# Root-mean-square difference, relative to the target. Transforms in single and half precision differ by 1e-6 and 5e-4; a flip, a
# transposition, a neighbouring slice or a shift by one pixel by 0.05 and more. Whoever is refused only has the target computed.
_LARGEST_DIFFERENCE = 0.02


def scale_of(target: NDArray[np.float32], kspace: NDArray[np.complex64]) -> float | None:
    """Return the factor between a stored target and the root sum of squares of its k-space, None where they show different things.

    Args:
        target: (y, x).
        kspace: (coils, height, width), fully sampled.
    """
    ours = rss_target(kspace, (target.shape[0], target.shape[1])).astype(np.float64)
    energy = float(np.square(ours).sum())
    if not np.isfinite(target).all() or not target.max() > 0 or not energy > 0:
        return None
    scale = float((target * ours).sum()) / energy
    return scale if scale > 0 and _difference(target, scale * ours) < _LARGEST_DIFFERENCE else None


def is_of(target: NDArray[np.float32], image: NDArray[np.float32]) -> bool:
    """Say whether a stored target (y, x) shows an image that was computed from its k-space, factor included."""
    return bool(np.isfinite(target).all() and target.max() > 0 and _difference(target, image) < _LARGEST_DIFFERENCE)


def _difference(target: NDArray[np.float32], image: NDArray[np.float64] | NDArray[np.float32]) -> float:
    return float(np.linalg.norm((target - image).astype(np.float64)) / np.linalg.norm(target.astype(np.float64)))
