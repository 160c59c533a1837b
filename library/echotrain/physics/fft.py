"""The centred two-dimensional Fourier transform between k-space and image."""

from typing import Literal

import torch
from jaxtyping import Complex
from torch import Tensor

__all__ = ["FftNorm", "adjoint_norm", "fft2c", "ifft2c"]

FftNorm = Literal["ortho", "backward", "forward"]

_AXES = (-2, -1)
_ADJOINT_NORMS: dict[FftNorm, FftNorm] = {"ortho": "ortho", "backward": "forward", "forward": "backward"}


def fft2c(image: Complex[Tensor, "*batch y x"], norm: FftNorm = "ortho") -> Complex[Tensor, "*batch ky kx"]:
    """Transform images to k-space; in both, the origin lies at index ``n // 2``, for odd sizes too.

    Args:
        image: Any number of leading dimensions.
        norm: ``ortho`` is unitary; ``backward`` leaves the forward transform unscaled (Moero's checkpoints).
    """
    kspace: Tensor = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image, dim=_AXES), norm=norm), dim=_AXES)
    return kspace


def ifft2c(kspace: Complex[Tensor, "*batch ky kx"], norm: FftNorm = "ortho") -> Complex[Tensor, "*batch y x"]:
    """Transform k-space to images: the inverse of ``fft2c`` of the same ``norm``."""
    image: Tensor = torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(kspace, dim=_AXES), norm=norm), dim=_AXES)
    return image


def adjoint_norm(norm: FftNorm) -> FftNorm:
    """Return the norm with which ``ifft2c`` is the adjoint, and not only the inverse, of ``fft2c(..., norm)``."""
    return _ADJOINT_NORMS[norm]
