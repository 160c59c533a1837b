"""The two functions through which complex images enter and leave a real-valued network."""

import torch

from echotrain.shapes import Channels, Image

__all__ = ["channels_to_complex", "complex_to_channels"]


def complex_to_channels(image: Image, num_images: int = 1) -> Channels:
    """See complex images as two channels, real part and imaginary part, innermost in memory; of one image each, nothing is copied.

    Args:
        image: Those that share their channels one after the other.
        num_images: How many do: their channels are all real parts, then all imaginary parts.
    """
    parts = torch.view_as_real(image)
    if num_images == 1:
        return parts.permute(0, 3, 1, 2)
    # (sample, image, y, x, part) -> (sample, y, x, part * image), which is copied, seen with the channels first.
    return parts.reshape(-1, num_images, *parts.shape[1:]).permute(0, 2, 3, 4, 1).flatten(3).permute(0, 3, 1, 2)


def channels_to_complex(channels: Channels, num_images: int = 1) -> Image:
    """See channels as complex images, the inverse of ``complex_to_channels``; a precision below float32 (autocast) ends here."""
    precise = channels.to(torch.promote_types(channels.dtype, torch.float32))
    if num_images == 1:
        return torch.view_as_complex(precise.permute(0, 2, 3, 1).contiguous())
    apart = precise.reshape(len(precise), 2, num_images, *precise.shape[2:])
    return torch.view_as_complex(apart.permute(0, 2, 3, 4, 1).flatten(0, 1).contiguous())
