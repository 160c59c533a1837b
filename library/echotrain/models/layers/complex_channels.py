"""The two functions through which complex images enter and leave a real-valued network."""

import torch

from echotrain.shapes import Channels, Image

__all__ = ["channels_to_complex", "complex_to_channels"]


def complex_to_channels(image: Image) -> Channels:
    """See complex images as two channels, real part and imaginary part, innermost in memory; nothing is copied."""
    return torch.view_as_real(image).permute(0, 3, 1, 2)


def channels_to_complex(channels: Channels) -> Image:
    """See two channels as complex images; a precision below float32 (autocast) ends here."""
    precise = channels.to(torch.promote_types(channels.dtype, torch.float32))
    return torch.view_as_complex(precise.permute(0, 2, 3, 1).contiguous())
