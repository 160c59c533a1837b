"""The two operations of an unrolled loop around its regularizer, each with a gradient that keeps no coil image.

Written as plain tensor operations, one iteration keeps about ten tensors of the size of the k-space for its backward
pass. Both gradients can be had from the iterate alone, at the price of one more transform. Which axes are transformed, and of
what shape a mask may be, the space knows.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from echotrain.physics.coils import sens_expand, sens_reduce
from echotrain.physics.modulation import Hybrid, HybridSpace
from echotrain.shapes import Image, SamplingMask, SensMaps

__all__ = ["combine", "consistency_step"]


def combine(current: Hybrid, maps: SensMaps, space: HybridSpace) -> Image:
    """Combine the coils of an iterate: ``S^H F^-1 k``; ``maps`` are modulated to ``space``."""
    image: Image = _Combine.apply(current, maps, space)  # type: ignore[no-untyped-call]
    return image


def consistency_step(
    current: Hybrid, measured: Hybrid, mask: SamplingMask, weight: Tensor, image: Image, maps: SensMaps, space: HybridSpace
) -> Hybrid:
    """Take one step: ``k - weight M (k - k0) - F S image``.

    Source: Sriram et al., arXiv:2004.06688, equation 8.

    Args:
        current: ``k``.
        measured: ``k0``.
        mask: ``M``, what was measured; of whole lines where ``space`` is by lines.
        weight: One real number, shape (1,).
        image: What the regularizer made of ``combine(current)``.
        maps: ``S``, modulated to ``space``.
        space: Where the iterates live.
    """
    assert mask.shape[-2] == 1 or -2 in space.axes, "a mask that is not of whole lines acts on k-space alone"
    following: Hybrid = _Step.apply(current, measured, mask, weight, image, maps, space)  # type: ignore[no-untyped-call]
    return following


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, maps: Tensor, space: HybridSpace) -> Tensor:
        ctx.save_for_backward(current, maps)
        ctx.space = space
        return sens_reduce(space.ifft(current), maps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        current, maps = ctx.saved_tensors
        grad_current = ctx.space.ifft_adjoint(sens_expand(grad, maps)) if ctx.needs_input_grad[0] else None
        grad_maps = ctx.space.ifft(current).mul_(grad.conj().unsqueeze(1)) if ctx.needs_input_grad[1] else None
        return grad_current, grad_maps, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, current: Tensor, measured: Tensor, mask: Tensor, weight: Tensor, image: Tensor, maps: Tensor, space: HybridSpace
    ) -> Tensor:
        ctx.save_for_backward(current, measured, mask, weight, image, maps)
        ctx.space = space
        following = space.fft(sens_expand(image, maps)).neg_().add_(current)
        return following.sub_((current - measured).mul_(mask * weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        current, measured, mask, weight, image, maps = ctx.saved_tensors
        needs = ctx.needs_input_grad
        masked = grad * mask
        grad_weight = _real_dot(masked, current - measured).neg_().view_as(weight) if needs[3] else None
        grad_measured = masked * weight if needs[1] else None
        grad_current = masked.mul_(-weight).add_(grad) if needs[0] else None
        grad_images = ctx.space.fft_adjoint(grad)
        grad_image = sens_reduce(grad_images, maps).neg_() if needs[4] else None
        grad_maps = grad_images.mul_(-image.conj().unsqueeze(1)) if needs[5] else None
        return grad_current, grad_measured, None, grad_weight, grad_image, grad_maps, None


def _real_dot(a: Tensor, b: Tensor) -> Tensor:
    """``Re <a, b>`` over everything."""
    return (torch.view_as_real(a) * torch.view_as_real(b)).sum()
