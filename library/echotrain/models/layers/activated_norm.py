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
_PLANE = (2, 3)


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
        normalise = _normalise_channels_last_ if x.is_contiguous(memory_format=torch.channels_last) else _normalise_
        inverse_std = normalise(x)
        F.leaky_relu_(x, NEGATIVE_SLOPE)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x, inverse_std)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        output, inverse_std = ctx.saved_tensors
        output, grad_output = _at_least_float32(output), _at_least_float32(grad)
        # With y = leaky(n): n dn' = (y / s) (s g) = y g, so the second mean needs neither n nor the slope s.
        correlation = (output * grad_output).mean(_PLANE, keepdim=True)
        gradient: Tensor = torch.ops.aten.leaky_relu_backward(grad_output, output, NEGATIVE_SLOPE, True)
        gradient -= gradient.mean(_PLANE, keepdim=True)
        normalised = F.leaky_relu(output, 1 / NEGATIVE_SLOPE)
        return gradient.sub_(normalised.mul_(correlation)).mul_(inverse_std).to(grad.dtype)


def _normalise_channels_last_(x: Tensor) -> Tensor:
    """Normalise in place; return the inverse standard deviations (batch, channel, 1, 1)."""
    precise = _at_least_float32(x)
    precise = precise.sub_(precise.mean(_PLANE, keepdim=True))
    inverse_std = precise.square().mean(_PLANE, keepdim=True).add_(EPS).rsqrt_()
    precise.mul_(inverse_std)
    if precise is not x:
        x.copy_(precise)
    return inverse_std


def _normalise_(x: Tensor) -> Tensor:
    """The same by the library's fused batch norm, which takes samples as channels when planes are contiguous."""
    planes = _at_least_float32(x).reshape(1, -1, *x.shape[2:])
    normalised, _, inverse_std = torch.native_batch_norm(planes, None, None, None, None, True, 0.0, EPS)
    x.copy_(normalised.view_as(x))
    return inverse_std.view(*x.shape[:2], 1, 1)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
