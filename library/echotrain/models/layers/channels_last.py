"""Convolutions for tensors whose channels lie innermost in memory, where a CPU is fastest, with their gradients.

What the profile showed (AVX2, oneDNN): with channels outermost, every convolution first copies its operands to an
inner block of channels, which for 18 channels takes as long as the convolution; with channels innermost there are
no copies. Of the gradients only that of the weights is slow there: a sum of matrix products takes its place. A
transposed 2x2 convolution of stride 2 overlaps nowhere, so it is one matrix product and a rearrangement.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from echotrain.shapes import Channels

__all__ = ["conv3x3", "conv_weight_gradient", "upsample2x2"]

# Up to this many channels oneDNN's own weight gradient is the faster one.
_FEW_CHANNELS = 16
# Pixels per partial matrix product: few enough products for large matrices, enough for the threads to share.
_PIXELS_PER_PRODUCT = 4096
_MOST_PRODUCTS = 8


def conv3x3(weight: Float[Tensor, "out in 3 3"], *inputs: Channels) -> Channels:
    """Convolve the inputs, concatenated along channels, with zero padding 1; the concatenation is not kept."""
    if _is_plain(*inputs):
        return F.conv2d(torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0], weight, padding=1)
    output: Channels = _Conv3x3.apply(weight, *inputs)  # type: ignore[no-untyped-call]
    return output


def upsample2x2(weight: Float[Tensor, "in out 2 2"], x: Channels) -> Channels:
    """Transposed convolution with kernel 2 and stride 2."""
    if _is_plain(x):
        return F.conv_transpose2d(x, weight, stride=2)
    output: Channels = _Upsample2x2.apply(weight, x)  # type: ignore[no-untyped-call]
    return output


def conv_weight_gradient(x: Channels, grad: Channels) -> Float[Tensor, "out in 3 3"]:
    """Return the weight gradient of a 3x3 convolution, ``sum_p grad[p] x[p + shift]``, as one product per shift.

    On a common grid, padded so that ``grad`` is zero wherever a shifted row would wrap around, a shift in two
    dimensions is one offset into flat memory: no operand is copied for it.
    """
    height, width = x.shape[-2:]
    x_flat = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    grad_flat = F.pad(grad, (0, 2, 0, 2)).permute(0, 2, 3, 1).reshape(-1, grad.shape[1])
    last_shift = 2 * (width + 2) + 2
    num_pixels = grad_flat.shape[0] - last_shift
    num_products = max(1, min(_MOST_PRODUCTS, height * width // _PIXELS_PER_PRODUCT))
    # The tail that does not divide evenly lies in the zero padding or is added by a product of its own.
    length = num_pixels // num_products
    even = length * num_products
    left = grad_flat[:even].view(num_products, length, -1).transpose(1, 2)
    shifts = []
    for offset in (row * (width + 2) + column for row in range(3) for column in range(3)):
        right = x_flat[offset : offset + even].view(num_products, length, -1)
        product = torch.bmm(left, right).sum(0)
        if even < num_pixels:
            product.addmm_(grad_flat[even:num_pixels].t(), x_flat[offset + even : offset + num_pixels])
        shifts.append(product)
    return torch.stack(shifts, dim=-1).view(grad.shape[1], x.shape[1], 3, 3)


class _Conv3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(weight, *inputs)
        return F.conv2d(_join(inputs), weight, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *inputs = ctx.saved_tensors
        x, needs_x, needs_weight = _join(inputs), any(ctx.needs_input_grad[1:]), ctx.needs_input_grad[0]
        by_products = needs_weight and min(weight.shape[:2]) > _FEW_CHANNELS
        grad_weight = conv_weight_gradient(x, grad) if by_products else None
        if needs_x or (needs_weight and not by_products):
            wanted = [needs_x, needs_weight and not by_products, False]
            grad_x, remaining, _ = torch.ops.aten.convolution_backward(
                grad, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
            )
            grad_weight = grad_weight if by_products else remaining
        grads_x = grad_x.split([part.shape[1] for part in inputs], dim=1) if needs_x else [None] * len(inputs)
        return grad_weight, *grads_x


class _Upsample2x2(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(weight, x)
        batch, _, height, width = x.shape
        taps = (x.permute(0, 2, 3, 1) @ _taps(weight)).view(batch, height, width, 2, 2, -1)
        size = (batch, taps.shape[-1], 2 * height, 2 * width)
        output = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        output.permute(0, 2, 3, 1).view(batch, height, 2, width, 2, -1).copy_(taps.transpose(2, 3))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        weight, x = ctx.saved_tensors
        in_chans, out_chans = weight.shape[:2]
        batch, _, height, width = x.shape
        gathered = grad.permute(0, 2, 3, 1).reshape(batch, height, 2, width, 2, out_chans)
        taps = gathered.transpose(2, 3).reshape(batch * height * width, 4 * out_chans)
        grad_weight = x.permute(0, 2, 3, 1).reshape(-1, in_chans).t() @ taps
        grad_x = (taps @ _taps(weight).t()).view(batch, height, width, in_chans)
        return grad_weight.view(in_chans, 2, 2, out_chans).permute(0, 3, 1, 2).contiguous(), grad_x.permute(0, 3, 1, 2)


def _is_plain(*inputs: Tensor) -> bool:
    """Whether the library's own convolution serves: for a compiler, a GPU, autocast, or channels outermost."""
    return (
        torch.compiler.is_compiling()
        or inputs[0].device.type != "cpu"
        or torch.is_autocast_enabled("cpu")
        or not all(x.is_contiguous(memory_format=torch.channels_last) for x in inputs)
    )


def _join(inputs: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    return torch.cat(tuple(inputs), dim=1) if len(inputs) > 1 else inputs[0]


def _taps(weight: Tensor) -> Tensor:
    """Arrange (in, out, 2, 2) as a matrix (in, 2 * 2 * out)."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)
