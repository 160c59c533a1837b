"""Pictures of validation samples as files, each a panel's images in a row with its caption: for W&B, also after a restart."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from echotrain.tasks.task import Panel

__all__ = ["PICTURES", "Picture", "as_pictures", "decode", "encode", "picture_key"]

Picture = NDArray[np.uint8]
PICTURES = "pictures/"
_CAPTION = "Description"


def as_pictures(panels: Sequence[Panel]) -> list[tuple[str, Picture]]:
    """Return a caption and a picture of each panel, its images side by side; all of one size, as W&B shows them in one window."""
    rows = _of_one_size([_side_by_side(panel) for panel in panels])
    return [(f"{panel.caption}: {' | '.join(panel.images)}", row) for panel, row in zip(panels, rows, strict=True)]


def picture_key(step: int, number: int | str) -> str:
    """Return the name, in a run's folder, of a picture of a global step."""
    return f"{PICTURES}step-{step:09d}-{number}"


def encode(caption: str, pixels: Picture) -> bytes:
    """Return a picture as a PNG file, its caption within."""
    file, info = io.BytesIO(), PngInfo()
    info.add_itxt(_CAPTION, caption)
    Image.fromarray(pixels).save(file, format="PNG", pnginfo=info)
    return file.getvalue()


def decode(data: bytes) -> tuple[str, Picture]:
    """Return the caption and the picture of a PNG file of ours."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return str(image.info.get(_CAPTION, "")), np.asarray(image.convert("L"))


def _of_one_size(rows: list[Picture]) -> list[Picture]:
    """Add black to the right and below."""
    height, width = (max(row.shape[axis] for row in rows) for axis in (0, 1))
    return [np.pad(row, ((0, height - row.shape[0]), (0, width - row.shape[1]))) for row in rows]


def _side_by_side(panel: Panel) -> Picture:
    """Return the images of a panel in one row, white at the panel's scale."""
    images = [np.clip(image / panel.scale, 0, 1) for image in panel.images.values()]
    return (np.concatenate(images, axis=1) * 255).astype(np.uint8)
