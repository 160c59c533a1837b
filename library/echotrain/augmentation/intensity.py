"""Random changes of brightness: what colour jitter, blur and solarisation are on images of one channel.

Source: the augmentations of DINOv2 (arXiv:2304.07193). Hue, saturation and the change to grey do nothing to a grey image and are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from echotrain.errors import ConfigError
from echotrain.shapes import Channels

__all__ = ["IntensityConfig", "blur", "vary_intensity"]


@dataclass(frozen=True, kw_only=True)
class IntensityConfig:
    """How the brightness of an image varies; the defaults are those of DINOv2's first global crop.

    Attributes:
        jitter: Probability of a change of brightness and contrast, in an order that is drawn too.
        brightness, contrast: Factors are drawn from 1 minus to 1 plus these.
        blur: Probability of a Gaussian blur.
        blur_sigma: Its smallest and largest standard deviation, pixels.
        blur_kernel: Its side, pixels, odd.
        solarize: Probability of turning over what is at least ``threshold``.
        threshold: In [0, 1].
    """

    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    blur: float = 1.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_kernel: int = 9
    solarize: float = 0.0
    threshold: float = 0.5

    def __post_init__(self) -> None:
        for name in ("jitter", "brightness", "contrast", "blur", "solarize", "threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"intensity {name}={getattr(self, name)}", "must lie in [0, 1]", "Leave it out for DINOv2's.")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ConfigError(f"blur_sigma={list(self.blur_sigma)}", "must be positive and rise", "DINOv2's is [0.1, 2.0].")
        if self.blur_kernel < 1 or self.blur_kernel % 2 == 0:
            raise ConfigError(f"blur_kernel={self.blur_kernel}", "must be odd", "DINOv2's is 9.")


def vary_intensity(images: Channels, generators: Sequence[torch.Generator], config: IntensityConfig) -> Channels:
    """Return images with their brightness varied, within [0, 1].

    Args:
        images: Within [0, 1].
        generators: One per image; each is advanced by the same number of draws, whatever comes of them.
        config: What varies.
    """
    return torch.stack([_vary(image, generator, config) for image, generator in zip(images, generators, strict=True)])


def blur(images: Channels, sigma: float, kernel: int) -> Channels:
    """Convolve with a Gaussian of this standard deviation, cut off to ``kernel`` pixels; edges are mirrored, a single line repeated."""
    places = torch.arange(kernel, dtype=images.dtype, device=images.device) - kernel // 2
    weights = torch.exp(-0.5 * (places / sigma).square())
    weights = (weights / weights.sum()).expand(images.shape[-3], 1, 1, kernel)
    for axis in (-1, -2):
        margin = kernel // 2
        sides = (margin, margin, 0, 0) if axis == -1 else (0, 0, margin, margin)
        mode = "reflect" if images.shape[axis] > margin else "replicate"
        turned = weights if axis == -1 else weights.transpose(-1, -2)
        images = functional.conv2d(functional.pad(images, sides, mode=mode), turned, groups=images.shape[-3])
    return images


def _vary(image: torch.Tensor, generator: torch.Generator, config: IntensityConfig) -> torch.Tensor:
    draws = torch.rand(7, generator=generator, dtype=torch.float64).tolist()
    does_jitter, contrast_first, brighter, sharper, does_blur, width, does_solarize = draws
    if does_jitter < config.jitter:
        brightness, contrast = 1 + config.brightness * (2 * brighter - 1), 1 + config.contrast * (2 * sharper - 1)
        if contrast_first < 0.5:
            image = _brighten(_sharpen(image, contrast), brightness)
        else:
            image = _sharpen(_brighten(image, brightness), contrast)
    if does_blur < config.blur:
        low, high = config.blur_sigma
        image = blur(image[None], low + width * (high - low), config.blur_kernel)[0]
    if does_solarize < config.solarize:
        image = torch.where(image >= config.threshold, 1 - image, image)
    return image.clamp(0, 1)


def _brighten(image: torch.Tensor, factor: float) -> torch.Tensor:
    return (factor * image).clamp(0, 1)


def _sharpen(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Move an image away from its mean, or towards it."""
    return (factor * image + (1 - factor) * image.mean()).clamp(0, 1)
