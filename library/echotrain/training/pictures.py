"""Pictures of validation samples as files: each panel a row of images, which W&B shows and a restart reads back."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from echotrain.tasks.task import Panel

__all__ = ["as_pictures", "decode", "encode"]

Pixels = NDArray[np.uint8]


def as_pictures(panels: Sequence[Panel]) -> list[tuple[str, Pixels]]:
    """Return a caption and a picture of each panel, its images side by side; all of one size, as W&B shows them in one window."""
    rows = _of_one_size([_side_by_side(panel) for panel in panels])
    return [(f"{panel.caption}: {' | '.join(panel.images)}", row) for panel, row in zip(panels, rows, strict=True)]


def encode(pixels: Pixels) -> bytes:
    """Return a picture as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def decode(data: bytes) -> Pixels:
    """Return the picture of a PNG file of ours."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("L"))


def _of_one_size(rows: list[Pixels]) -> list[Pixels]:
    """Add black to the right and below."""
    height, width = (max(row.shape[axis] for row in rows) for axis in (0, 1))
    return [np.pad(row, ((0, height - row.shape[0]), (0, width - row.shape[1]))) for row in rows]


def _side_by_side(panel: Panel) -> Pixels:
    """Return the images of a panel in one row, white at the panel's scale."""
    images = [np.clip(image / panel.scale, 0, 1) for image in panel.images.values()]
    return (np.concatenate(images, axis=1) * 255).astype(np.uint8)
