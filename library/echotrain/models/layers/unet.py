"""The U-Net of fastMRI: instance norms without affine part, leaky ReLUs, no biases but the last.

Source: Ronneberger et al. 2015, as changed in Zbontar et al., arXiv:1811.08839, section 5.2.
"""

import torch.nn.functional as F
from torch import nn

from echotrain.models.layers.activated_norm import norm_leaky_relu_
from echotrain.models.layers.channels_last import conv1x1, conv3x3, upsample2x2
from echotrain.models.layers.dropout import Dropout2d
from echotrain.shapes import Channels

__all__ = ["ConvBlock", "Unet", "UpBlock"]


class ConvBlock(nn.Module):
    """Two times: 3x3 convolution, instance norm, leaky ReLU, dropout of channels."""

    def __init__(self, in_chans: int, out_chans: int, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.dropout = Dropout2d(drop_prob)
        self.conv1 = nn.Conv2d(in_chans, out_chans, kernel_size=3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_chans, out_chans, kernel_size=3, padding=1, bias=False)

    def forward(self, *inputs: Channels) -> Channels:
        """Map inputs, ``in_chans`` channels together, to ``out_chans`` channels of the same size."""
        x = self.dropout(norm_leaky_relu_(conv3x3(self.conv1.weight, *inputs)))
        output: Channels = self.dropout(norm_leaky_relu_(conv3x3(self.conv2.weight, x)))
        return output


class UpBlock(nn.Module):
    """Double the size by a strided transposed convolution, then instance norm and leaky ReLU."""

    def __init__(self, in_chans: int, out_chans: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_chans, out_chans, kernel_size=2, stride=2, bias=False)

    def forward(self, x: Channels) -> Channels:
        """Map ``in_chans`` to ``out_chans`` channels of twice the size."""
        return norm_leaky_relu_(upsample2x2(self.conv.weight, x))


class Unet(nn.Module):
    """U-Net over real channels.

    Args:
        in_chans, out_chans: Channels of input and output.
        chans: Channels of the first level; each pooling doubles them.
        pools: Number of poolings.
        drop_prob: Of a block's channels in training, as in the public implementation.
    """

    def __init__(self, in_chans: int, out_chans: int, chans: int, pools: int, drop_prob: float = 0.0) -> None:
        super().__init__()
        widths = [chans * 2**level for level in range(pools + 1)]
        self.encoder = nn.ModuleList(ConvBlock(a, b, drop_prob) for a, b in zip([in_chans, *widths], widths[:-1], strict=False))
        self.bottleneck = ConvBlock(widths[-2], widths[-1], drop_prob)
        self.up = nn.ModuleList(UpBlock(2 * width, width) for width in reversed(widths[:-1]))
        self.decoder = nn.ModuleList(ConvBlock(2 * width, width, drop_prob) for width in reversed(widths[:-1]))
        self.head = nn.Conv2d(chans, out_chans, kernel_size=1)

    def forward(self, x: Channels) -> Channels:
        """Map ``in_chans`` to ``out_chans`` channels of the same size."""
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = F.avg_pool2d(x, kernel_size=2)
        x = self.bottleneck(x)
        for up, block, skip in zip(self.up, self.decoder, reversed(skips), strict=True):
            x = block(_fit(up(x), skip), skip)
        return conv1x1(self.head.weight, self.head.bias, x)


def _fit(x: Channels, skip: Channels) -> Channels:
    """Reflect one row or column at the far end where pooling dropped one of an odd size."""
    rows, columns = skip.shape[-2] - x.shape[-2], skip.shape[-1] - x.shape[-1]
    return F.pad(x, (0, columns, 0, rows), mode="reflect") if rows or columns else x
