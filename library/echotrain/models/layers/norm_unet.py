"""A U-Net between a normalisation of complex images and its inverse."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from echotrain.models.layers.complex_channels import channels_to_complex, complex_to_channels
from echotrain.models.layers.unet import Unet
from echotrain.shapes import Channels, Image

__all__ = ["Margins", "NormUnet"]


class NormUnet(nn.Module):
    """Complex images -> complex images by a U-Net on normalised real and imaginary parts.

    ``R(x) = sigma * U((x - mu) / sigma) + mu`` with mean and (unbiased) standard deviation of each sample's real and
    imaginary part, over all images of the sample. A sample of zeros, such as a padded coil's, stays one (the public implementation
    divides 0 by 0).

    Source: Sriram et al., arXiv:2004.06688, section 3.1.

    Args:
        chans: Channels of the U-Net's first level.
        pools: Number of poolings. Images are zero-padded to a multiple of 16, as public checkpoints expect.
        drop_prob: Of the U-Net's channels in training.
        num_images: Images of a sample, one after the other in the batch, that the U-Net sees as 2 * num_images channels.
    """

    def __init__(self, chans: int, pools: int, drop_prob: float = 0.0, *, num_images: int = 1) -> None:
        super().__init__()
        self.unet = Unet(2 * num_images, 2 * num_images, chans, pools, drop_prob)
        self.num_images = num_images

    def forward(self, image: Image) -> Image:
        """Return an image of the same shape."""
        channels = complex_to_channels(image, self.num_images)
        std, mean = _std_mean(channels, self.num_images)
        # The smallest normal number only stands in for 0: no other deviation is changed.
        normalised = (channels - mean) / std.clamp_min(torch.finfo(std.dtype).tiny)
        margins = Margins.of(normalised)
        refined = margins.remove(self.unet(margins.add(normalised))).to(std.dtype)
        return channels_to_complex(refined * std + mean, self.num_images)


def _std_mean(channels: Channels, num_images: int) -> tuple[Channels, Channels]:
    """Return deviation and mean of each sample's real and imaginary part, one for each channel."""
    if num_images == 1:
        return torch.std_mean(channels, dim=(2, 3), keepdim=True)
    std, mean = torch.std_mean(channels.reshape(len(channels), 2, num_images, *channels.shape[2:]), dim=(2, 3, 4))
    return std.repeat_interleave(num_images, 1)[..., None, None], mean.repeat_interleave(num_images, 1)[..., None, None]


class Margins(NamedTuple):
    """Rows and columns that take an image to a multiple of some size, the odd one at the far end."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def of(cls, x: Tensor, multiple: int = 16) -> "Margins":
        """Return the margins that ``x`` needs."""
        rows, columns = -x.shape[-2] % multiple, -x.shape[-1] % multiple
        return cls(rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)

    def add(self, x: Channels, mode: Literal["constant", "replicate"] = "constant") -> Channels:
        """Pad, by default with zeros."""
        return F.pad(x, (self.left, self.right, self.top, self.bottom), mode=mode) if any(self) else x

    def remove(self, x: Channels) -> Channels:
        """Crop what ``add`` padded."""
        return x[..., self.top : x.shape[-2] - self.bottom, self.left : x.shape[-1] - self.right]
