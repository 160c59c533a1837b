"""Random resized crops, one or many of each image: the views of self-supervised learning.

Source: ``RandomResizedCrop`` as torchvision defines it; global and local crops as in DINO (arXiv:2104.14294) and DINOv2 (arXiv:2304.07193).
Every draw comes from the sample's own stream, so a sample's crops do not depend on what shares its batch or its rank.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional

from echotrain.errors import ConfigError
from echotrain.shapes import Channels

__all__ = ["Box", "CropConfig", "MultiCropConfig", "MultiCrops", "draw_box", "multi_crop", "random_crops"]

_ATTEMPTS = 10


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """A kind of random crop.

    Attributes:
        side: Pixels of the result's side.
        scale: Smallest and largest share of the image's area.
        aspect: Smallest and largest width over height, drawn evenly in its logarithm.
        flip: Probability of a left-right flip.
    """

    side: int = 224
    scale: tuple[float, float] = (0.2, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ConfigError(f"crop side={self.side}", "must be at least 1", "Use the network's size, such as 224.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ConfigError(f"crop scale={list(self.scale)}", "must rise within (0, 1]", "Use [0.2, 1.0].")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ConfigError(f"crop aspect={list(self.aspect)}", "must be positive and rise", "Use [0.75, 1.3333].")
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"crop flip={self.flip}", "must lie in [0, 1]", "Use 0.5, or 0 for none.")


@dataclass(frozen=True, kw_only=True)
class MultiCropConfig:
    """Several crops of each image; the defaults are DINOv2's, with local crops of a multiple of 16 pixels.

    Attributes:
        num_global, num_local: Crops of each image.
        global_crop, local_crop: Their kinds.
    """

    num_global: int = 2
    num_local: int = 8
    global_crop: CropConfig = CropConfig(side=224, scale=(0.32, 1.0))
    local_crop: CropConfig = CropConfig(side=96, scale=(0.05, 0.32))

    def __post_init__(self) -> None:
        if self.num_global < 1 or self.num_local < 0:
            raise ConfigError(
                f"num_global={self.num_global}, num_local={self.num_local}", "must be at least 1 and 0", "DINOv2 has 2 and 8."
            )


class Box(NamedTuple):
    """Where a crop lies in its image, in pixels, and whether it is turned over left to right."""

    top: int
    left: int
    height: int
    width: int
    is_flipped: bool = False


class MultiCrops(NamedTuple):
    """Crops of a batch: of each kind a list, in which each member has one crop of every sample."""

    of_whole: list[Channels]
    of_parts: list[Channels]


def random_crops(images: Channels, generators: Sequence[torch.Generator], config: CropConfig) -> Channels:
    """Return one random resized crop of each image, (batch, channel, side, side); bicubic and antialiased, within the image's range.

    Args:
        images: Of any matrix.
        generators: One per image; each is advanced by the same number of draws, whatever the image is.
        config: The kind of crop.
    """
    boxes = [draw_box(generator, (images.shape[-2], images.shape[-1]), config) for generator in generators]
    return torch.cat([_cut(image[None], box, config.side) for image, box in zip(images, boxes, strict=True)])


def multi_crop(images: Channels, generators: Sequence[torch.Generator], config: MultiCropConfig) -> MultiCrops:
    """Return global and local crops of each image; arguments as of ``random_crops``."""
    return MultiCrops(
        of_whole=[random_crops(images, generators, config.global_crop) for _ in range(config.num_global)],
        of_parts=[random_crops(images, generators, config.local_crop) for _ in range(config.num_local)],
    )


def draw_box(generator: torch.Generator, shape: tuple[int, int], config: CropConfig) -> Box:
    """Draw where a crop lies in an image of this shape.

    Of ten draws of area and aspect the first counts that fits; where none does, the largest central crop of an allowed aspect.
    """
    height, width = shape
    draws = torch.rand(_ATTEMPTS, 4, generator=generator, dtype=torch.float64).tolist()
    is_flipped = float(torch.rand((), generator=generator)) < config.flip
    low, high = (math.log(aspect) for aspect in config.aspect)
    for area, aspect, down, across in draws:
        share = config.scale[0] + area * (config.scale[1] - config.scale[0])
        ratio = math.exp(low + aspect * (high - low))
        rows = round(math.sqrt(share * height * width / ratio))
        columns = round(math.sqrt(share * height * width * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            return Box(int(down * (height - rows + 1)), int(across * (width - columns + 1)), rows, columns, is_flipped)
    return _central(shape, config, is_flipped)


def _central(shape: tuple[int, int], config: CropConfig, is_flipped: bool) -> Box:
    height, width = shape
    ratio = min(max(width / height, config.aspect[0]), config.aspect[1])
    rows, columns = min(height, max(1, round(width / ratio))), min(width, max(1, round(height * ratio)))
    return Box((height - rows) // 2, (width - columns) // 2, rows, columns, is_flipped)


def _cut(image: Channels, box: Box, side: int) -> Channels:
    part = image[..., box.top : box.top + box.height, box.left : box.left + box.width]
    resized = functional.interpolate(part, size=(side, side), mode="bicubic", align_corners=False, antialias=True)
    # Bicubic overshoots at edges; what was black is to stay black.
    clipped = resized.clamp(part.amin(), part.amax())
    return clipped.flip(-1) if box.is_flipped else clipped
