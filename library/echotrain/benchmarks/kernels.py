"""Which kernels the U-Net runs on: our own, or the library's in their place; a benchmark measures what each of ours brings."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from echotrain.models.layers import norm_unet, unet
from echotrain.models.layers.activated_norm import EPS, NEGATIVE_SLOPE
from echotrain.models.layers.complex_channels import complex_to_channels

__all__ = ["OWN", "PLAIN", "Kernels", "kernels"]


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """What is ours; where all is, nothing is replaced.

    Attributes:
        convolutions: ``models/layers/channels_last.py``, which a GPU, a compiler and autocast pass by.
        norm: ``models/layers/activated_norm.py``, which a compiler passes by.
        innermost: Activations have their channels innermost in memory.
    """

    convolutions: bool = True
    norm: bool = True
    innermost: bool = True


OWN = Kernels()
PLAIN = Kernels(convolutions=False, norm=False, innermost=False)


@contextlib.contextmanager
def kernels(which: Kernels) -> Iterator[None]:
    """Let every U-Net that runs within the block run on these."""
    with contextlib.ExitStack() as stack:
        if not which.convolutions:
            for function in (conv3x3, upsample2x2, conv1x1):
                stack.enter_context(mock.patch.object(unet, function.__name__, function))
        if not which.norm:
            stack.enter_context(mock.patch.object(unet, "norm_leaky_relu_", norm_leaky_relu))
        if not which.innermost:
            stack.enter_context(mock.patch.object(norm_unet, "complex_to_channels", complex_to_planes))
        yield


def conv3x3(weight: Tensor, *inputs: Tensor) -> Tensor:
    """The library's 3x3 convolution of the concatenated inputs."""
    return F.conv2d(torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0], weight, padding=1)


def upsample2x2(weight: Tensor, x: Tensor) -> Tensor:
    """The library's transposed convolution."""
    return F.conv_transpose2d(x, weight, stride=2)


def conv1x1(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """The library's 1x1 convolution."""
    return F.conv2d(x, weight, bias)


def norm_leaky_relu(x: Tensor) -> Tensor:
    """Norm and activation as fastMRI has them, the second in place."""
    return F.leaky_relu(F.instance_norm(x, eps=EPS), NEGATIVE_SLOPE, inplace=True)


def complex_to_planes(image: Tensor, num_images: int = 1) -> Tensor:
    """``complex_to_channels`` with its channels outermost."""
    return complex_to_channels(image, num_images).contiguous()
