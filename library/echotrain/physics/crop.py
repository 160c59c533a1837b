"""Central crops, for tensors and arrays alike."""

from typing import TypeVar

import numpy as np
from torch import Tensor

from echotrain.errors import ConfigError

__all__ = ["center_crop", "center_crop_to_smallest"]

# A constrained variable, because a crop of a tensor is a tensor and a crop of an array an array.
T = TypeVar("T", Tensor, np.ndarray)


def center_crop(images: T, shape: tuple[int, int]) -> T:
    """Return the central ``shape`` of the last two dimensions, a view; it begins at ``(size - crop) // 2``, as in fastMRI.

    Raises:
        ConfigError: The crop is empty or larger than the image.
    """
    height, width = images.shape[-2:]
    if not (0 < shape[0] <= height and 0 < shape[1] <= width):
        raise ConfigError(
            f"crop to {shape[0]} x {shape[1]}", f"does not fit an image of {height} x {width}", "Crop to the smaller of the two sizes."
        )
    top, left = (height - shape[0]) // 2, (width - shape[1]) // 2
    return images[..., top : top + shape[0], left : left + shape[1]]


def center_crop_to_smallest(first: T, second: T) -> tuple[T, T]:
    """Crop both to the smaller height and the smaller width of the two."""
    shape = (min(first.shape[-2], second.shape[-2]), min(first.shape[-1], second.shape[-1]))
    return center_crop(first, shape), center_crop(second, shape)
