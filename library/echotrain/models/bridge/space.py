"""The space that a bridge lies in: pixels, or the latents of a frozen autoencoder."""

from typing import Any, Protocol

import torch

from echotrain.models.layers.norm_unet import Margins
from echotrain.physics.crop import center_crop
from echotrain.shapes import Channels

__all__ = ["Latents", "Pixels", "Space"]


class Space(Protocol):
    """Images to codes and back; images have one channel and lie about in [-1, 1]."""

    def encode(self, images: Channels) -> Channels:
        """Return the codes of images, without a graph."""

    def decode(self, codes: Channels, shape: tuple[int, int]) -> Channels:
        """Return the images of codes; ``shape`` is theirs."""


class Pixels:
    """Images are their own codes."""

    def encode(self, images: Channels) -> Channels:
        """Return the images."""
        return images

    def decode(self, codes: Channels, shape: tuple[int, int]) -> Channels:
        """Return the codes."""
        return codes


class Latents:
    """The latents of an ``AutoencoderKL`` for colours: a magnitude is repeated to three channels, and comes back as their mean.

    Codes are the means of the posteriors, not draws from them, shifted and scaled as the autoencoder's configuration says, so that they
    have about unit variance. Images are padded to whole latent pixels by repeating their edges.

    Args:
        autoencoder: diffusers' ``AutoencoderKL``, frozen.
    """

    def __init__(self, autoencoder: Any) -> None:
        self._autoencoder = autoencoder
        config = autoencoder.config
        self._shrinks_by = 2 ** (len(config.block_out_channels) - 1)
        self._scale, self._shift = config.scaling_factor, config.shift_factor or 0.0

    @torch.no_grad()
    def encode(self, images: Channels) -> Channels:
        """Return the latents of images."""
        padded = Margins.of(images, self._shrinks_by).add(images, "replicate")
        codes: Channels = self._autoencoder.encode(padded.expand(-1, 3, -1, -1)).latent_dist.mode()
        scaled: Channels = (codes.float() - self._shift) * self._scale
        return scaled

    def decode(self, codes: Channels, shape: tuple[int, int]) -> Channels:
        """Return the images of latents; a graph goes through."""
        colours: Channels = self._autoencoder.decode(codes / self._scale + self._shift).sample
        return center_crop(colours.float().mean(dim=1, keepdim=True), shape)
