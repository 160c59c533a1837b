"""Bringing images of any matrix to one square size."""

from typing import Literal

from torch.nn import functional

from echotrain.physics.crop import center_crop
from echotrain.shapes import Channels

__all__ = ["Fit", "fit_square", "resize"]

Fit = Literal["pad", "crop", "stretch"]


def fit_square(images: Channels, side: int, fit: Fit = "pad") -> Channels:
    """Bring images to ``side`` x ``side``.

    Args:
        images: Of any matrix.
        side: Of the result.
        fit: ``pad`` adds black evenly to the shorter axis (an odd line more at the end), then resizes: nothing is lost and no shape
            changes. ``crop`` keeps the central square instead. ``stretch`` resizes each axis by its own factor, as MRI-CORE does.
    """
    height, width = images.shape[-2:]
    if fit == "pad":
        longest = max(height, width)
        rows, columns = longest - height, longest - width
        images = functional.pad(images, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    elif fit == "crop":
        shortest = min(height, width)
        images = center_crop(images, (shortest, shortest))
    return resize(images, side)


def resize(images: Channels, side: int) -> Channels:
    """Resize to ``side`` x ``side``, bilinear and antialiased; images of that size already stay as they are, bit for bit."""
    if tuple(images.shape[-2:]) == (side, side):
        return images
    return functional.interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
