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

__all__ = ["conv1x1", "conv3x3", "conv_weight_gradient", "upsample2x2"]

# Up to this many input channels oneDNN's own weight gradient is the faster one (measured at 8 to 288 channels).
_FEW_CHANNELS = 24
# Pieces of a long sum: enough for the threads to share, few enough not to weigh.
_PIXELS_PER_PIECE = 4096
_MOST_PIECES = 8


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


def conv1x1(weight: Float[Tensor, "out in 1 1"], bias: Float[Tensor, " out"] | None, x: Channels) -> Channels:
    """Mix the channels of each pixel."""
    if _is_plain(x):
        return F.conv2d(x, weight, bias)
    return F.linear(x.permute(0, 2, 3, 1), weight[:, :, 0, 0], bias).permute(0, 3, 1, 2)


def conv_weight_gradient(x: Channels, grad: Channels) -> Float[Tensor, "out in 3 3"]:
    """Return the weight gradient of a 3x3 convolution, ``sum_p grad[p] x[p + shift]``, as one product per shift.

    In flat memory a shift in two dimensions is one offset, so no operand is copied. What a shift in x wraps around to
    the row before or after is a product of two columns, and is taken off again.
    """
    height, width = x.shape[-2:]
    images = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    pixels_x, pixels_grad = (image.reshape(image.shape[0], height * width, -1) for image in images)
    shifts = []
    for down, right in ((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)):
        shift = down * width + right
        first = max(0, -shift)
        last = max(height * width - max(0, shift), first)
        product = _sum_of_outer_products(pixels_grad[:, first:last], pixels_x[:, first + shift : last + shift])
        if right:
            product -= _wrapped(*images, down + right, right)
        shifts.append(product)
    return torch.stack(shifts, dim=-1).view(grad.shape[1], x.shape[1], 3, 3)


def _wrapped(x: Tensor, grad: Tensor, down: int, right: int) -> Tensor:
    """Sum the products of the edge column of ``grad`` with the other edge column of ``x``, ``down`` rows further."""
    height = x.shape[1]
    first = max(0, -down)
    last = max(height - max(0, down), first)
    grad_column, x_column = (-1, 0) if right > 0 else (0, -1)
    return torch.einsum("bro,bri->oi", grad[:, first:last, grad_column], x[:, first + down : last + down, x_column])


def _sum_of_outer_products(left: Tensor, right: Tensor) -> Tensor:
    """Return ``sum_p left[p] right[p]^T`` over (batch, pixel, channel), cut into pieces that threads can share."""
    batch, num_pixels = left.shape[:2]
    pieces = max(1, min(_MOST_PIECES, num_pixels // _PIXELS_PER_PIECE)) if batch == 1 else 1
    even = num_pixels // pieces * pieces
    if pieces == 1:
        return torch.bmm(left.transpose(1, 2), right).sum(0)
    lefts, rights = (part[0, :even].view(pieces, even // pieces, -1) for part in (left, right))
    return torch.bmm(lefts.transpose(1, 2), rights).sum(0).addmm_(left[0, even:].t(), right[0, even:])


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
        by_products = needs_weight and weight.shape[1] > _FEW_CHANNELS
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
