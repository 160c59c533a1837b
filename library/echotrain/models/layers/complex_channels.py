"""The two functions through which complex images enter and leave a real-valued network."""

import torch

from echotrain.shapes import Channels, Image

__all__ = ["channels_to_complex", "complex_to_channels"]


def complex_to_channels(image: Image) -> Channels:
    """Split complex images into two channels: real part, imaginary part."""
    return torch.stack((image.real, image.imag), dim=1)


def channels_to_complex(channels: Channels) -> Image:
    """Join two channels to complex images; a precision below float32 (autocast) ends here."""
    real, imag = channels.to(torch.promote_types(channels.dtype, torch.float32)).unbind(dim=1)
    return torch.complex(real, imag)
