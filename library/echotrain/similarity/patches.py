"""Slices cut into patches, and which patches count: neither blank ones nor near-duplicates within a volume.

Source: Lin et al., "Improving Deep Learning for Accelerated MRI With Data Filtering" (arXiv:2508.13822), whom MosaicMRI (arXiv:2604.11762,
5.6) follows, and the public code of it (MLI-lab/data_filtering_for_accelerated_mri).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from echotrain.errors import ConfigError

__all__ = ["PatchConfig", "are_blank", "are_duplicates", "cut_patches", "num_patches"]

_GRAIN = 16


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """How slices are cut, and which patches count.

    Attributes:
        side: Pixels of a square patch.
        blank_cosine: A patch is blank from this cosine on to the vector that the embedder gives an all-zero patch.
        duplicate_cosine: A patch is a near-duplicate above this cosine to an earlier patch of its volume that is none.
    """

    side: int = 128
    blank_cosine: float = 0.6
    duplicate_cosine: float = 0.9

    def __post_init__(self) -> None:
        if self.side < 2 * _GRAIN or self.side % _GRAIN:
            raise ConfigError(f"patch side={self.side}", f"must be a multiple of {_GRAIN} from {2 * _GRAIN} on", "The authors' is 128.")
        for name, value, usual in (("blank", self.blank_cosine, 0.6), ("duplicate", self.duplicate_cosine, 0.9)):
            if not 0 < value <= 1:
                raise ConfigError(f"{name}_cosine={value}", "must lie in (0, 1]", f"The authors' is {usual}.")


def cut_patches(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Cut an image into the patches of a grid without overlap, row by row.

    An image whose sides are no multiples of the patch's is framed by zeros first, as in the authors' code: evenly on both sides, an odd
    line more at the end. So no pixel is lost or seen twice, and an image smaller than a patch is one patch.

    Args:
        image: (y, x), of any size.
        side: Pixels of a patch.

    Returns:
        (patches, side, side).
    """
    rows, columns = (-size % side for size in image.shape)
    framed = np.pad(image, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)))
    grid = framed.reshape(framed.shape[0] // side, side, framed.shape[1] // side, side)
    return np.ascontiguousarray(grid.swapaxes(1, 2).reshape(-1, side, side))


def num_patches(shape: tuple[int, int], side: int) -> int:
    """Return how many patches ``cut_patches`` makes of an image of this shape."""
    return math.prod(-(-size // side) for size in shape)


def are_blank(vectors: NDArray[np.float32], blank: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Return which patches look like nothing: those whose cosine to the vector of an all-zero patch is ``threshold`` or more.

    Args:
        vectors: (patches, features), of any length but zero.
        blank: The same embedder's vector of an all-zero patch, (features,).
        threshold: The least cosine of a blank patch.
    """
    return np.asarray(_unit(vectors) @ _unit(blank[None])[0] >= threshold)


def are_duplicates(vectors: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Return which patches are near-duplicates of one before them; the first of several that are alike is none.

    A patch is compared with those before it that are no duplicates themselves, so that a chain of small changes is not dropped whole.

    Args:
        vectors: Patches of one volume, slice by slice, (patches, features), of any length but zero.
        threshold: Cosines above it are of duplicates.
    """
    unit = _unit(vectors)
    found = np.zeros(len(unit), bool)
    for first in range(len(unit)):
        if not found[first]:
            found[first + 1 :] |= unit[first + 1 :] @ unit[first] > threshold
    return found


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
