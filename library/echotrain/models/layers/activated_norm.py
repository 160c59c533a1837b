"""Instance norm and leaky ReLU as one operation that works in place and keeps one tensor.

A leaky ReLU is invertible, and the gradient of a norm needs its output alone. So the activated output, which the next
convolution keeps anyway, is all that the backward pass asks for: a third of the memory of norm and activation apart.

Source: Rota Bulò et al., In-Place Activated BatchNorm, arXiv:1712.02616; here per sample and without affine part.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from echotrain.shapes import Channels

__all__ = ["EPS", "NEGATIVE_SLOPE", "norm_leaky_relu_"]

NEGATIVE_SLOPE = 0.2
EPS = 1e-5


def norm_leaky_relu_(x: Channels) -> Channels:
    """Normalise each channel of each sample to mean 0 and variance 1 (eps 1e-5), then leaky ReLU with slope 0.2.

    ``x`` is overwritten: give what an operation returned that does not need its output again, as a convolution does.
    Statistics are of float32 at least. Under ``torch.compile`` the plain operations are left to the compiler to fuse.
    """
    if torch.compiler.is_compiling():
        return F.leaky_relu(F.instance_norm(_at_least_float32(x), eps=EPS), NEGATIVE_SLOPE).to(x.dtype)
    output: Channels = _NormLeakyReLU.apply(x)  # type: ignore[no-untyped-call]
    return output


class _NormLeakyReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        normalise = _normalise_rows_ if x.is_contiguous(memory_format=torch.channels_last) else _normalise_planes_
        inverse_std = normalise(x)
        F.leaky_relu_(x, NEGATIVE_SLOPE)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x, inverse_std)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        output, inverse_std = ctx.saved_tensors
        channels_last = output.is_contiguous(memory_format=torch.channels_last)
        dense = grad.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        gradient = _gradient_of_rows if channels_last else _gradient_of_planes
        return gradient(_at_least_float32(output), _at_least_float32(dense), inverse_std).to(grad.dtype)


def _normalise_rows_(x: Tensor) -> Tensor:
    """Normalise channels-last ``x`` in place; return the inverse standard deviations (batch, channel)."""
    precise, width = _at_least_float32(x), x.shape[-1]
    rows = _rows(precise)
    rows.sub_(_along_row(_channel_means(rows, width), width))
    inverse_std = _channel_means(rows.square(), width).add_(EPS).rsqrt_()
    rows.mul_(_along_row(inverse_std, width))
    if precise is not x:
        x.copy_(precise)
    return inverse_std


def _gradient_of_rows(output: Tensor, grad: Tensor, inverse_std: Tensor) -> Tensor:
    """Return ``inverse_std (h - mean(h) - n mean(n h))`` with n the normalised values and h their gradient."""
    width = output.shape[-1]
    rows, grad_rows = _rows(output), _rows(grad)
    # y = leaky(n) and h = leaky'(n) g, so n h = y g: neither n nor h is needed for it.
    scratch = rows * grad_rows
    correlation = _channel_means(scratch, width)
    gradient: Tensor = torch.ops.aten.leaky_relu_backward(grad_rows, rows, NEGATIVE_SLOPE, True)
    mean = _channel_means(gradient, width)
    normalised = torch.ops.aten.leaky_relu.out(rows, 1 / NEGATIVE_SLOPE, out=scratch)
    gradient.mul_(_along_row(inverse_std, width)).sub_(_along_row(inverse_std * mean, width))
    gradient.addcmul_(normalised, _along_row(inverse_std * correlation, width), value=-1)
    return gradient.view(output.shape[0], output.shape[2], width, -1).permute(0, 3, 1, 2)


def _rows(x: Tensor) -> Tensor:
    """See channels-last (batch, channel, y, x) as (batch, y, x * channel): long runs of memory, which vectorise."""
    return x.permute(0, 2, 3, 1).flatten(2)


def _channel_means(rows: Tensor, width: int) -> Tensor:
    return rows.sum(1).view(rows.shape[0], width, -1).sum(1).div_(rows.shape[1] * width)


def _along_row(per_channel: Tensor, width: int) -> Tensor:
    return per_channel.repeat(1, width).unsqueeze(1)


def _normalise_planes_(x: Tensor) -> Tensor:
    """The same as ``_normalise_rows_`` by the library's fused batch norm, which takes contiguous planes as channels."""
    normalised, _, inverse_std = torch.native_batch_norm(_planes(x), None, None, None, None, True, 0.0, EPS)
    x.copy_(normalised.view_as(x))
    return inverse_std


def _gradient_of_planes(output: Tensor, grad: Tensor, inverse_std: Tensor) -> Tensor:
    """The same as ``_gradient_of_rows``: batch norm's gradient at values already normalised, scaled as by a weight."""
    gradient = torch.ops.aten.leaky_relu_backward(grad, output, NEGATIVE_SLOPE, True)
    normalised, zero, one = F.leaky_relu(output, 1 / NEGATIVE_SLOPE), torch.zeros_like(inverse_std), torch.ones_like(inverse_std)
    planes: Tensor = torch.ops.aten.native_batch_norm_backward(
        _planes(gradient), _planes(normalised), inverse_std, None, None, zero, one, True, EPS, [True, False, False]
    )[0]
    return planes.view_as(output)


def _planes(x: Tensor) -> Tensor:
    return _at_least_float32(x).reshape(1, -1, *x.shape[2:])


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
