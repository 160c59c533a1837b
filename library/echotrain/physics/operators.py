"""Linear forward operators of MRI, each with its adjoint."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from echotrain.physics.coils import sens_expand, sens_reduce
from echotrain.physics.fft import FftNorm, adjoint_norm, fft2c, ifft2c
from echotrain.shapes import CoilImages, Image, Kspace, LineMask, SensMaps

__all__ = ["CartesianOperator", "LinearOperator", "SenseOperator"]


class LinearOperator(Protocol):
    """A linear map ``A`` with ``<A x, y> == <x, A^H y>`` for every x and y."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Apply ``A``."""

    def adjoint(self, y: Tensor, /) -> Tensor:
        """Apply ``A^H``."""


@dataclass(frozen=True)
class CartesianOperator:
    """Coil images to acquired k-space, ``A = M F``: Fourier transform, then the lines that the mask keeps."""

    mask: LineMask
    norm: FftNorm = "ortho"

    def __call__(self, coil_images: CoilImages, /) -> Kspace:
        """Return k-space that is zero outside the mask."""
        return fft2c(coil_images, self.norm) * self.mask

    def adjoint(self, kspace: Kspace, /) -> CoilImages:
        """Return the zero-filled coil images (scaled by the FFT's adjoint where the norm is not ``ortho``)."""
        return ifft2c(kspace * self.mask, adjoint_norm(self.norm))


@dataclass(frozen=True)
class SenseOperator:
    """Image to acquired multi-coil k-space, ``A = M F S`` (Pruessmann et al., MRM 42:952, 1999)."""

    maps: SensMaps
    mask: LineMask
    norm: FftNorm = "ortho"

    def __call__(self, image: Image, /) -> Kspace:
        """Return what the coils would have acquired of ``image``."""
        return CartesianOperator(self.mask, self.norm)(sens_expand(image, self.maps))

    def adjoint(self, kspace: Kspace, /) -> Image:
        """Return the coil-combined, zero-filled image."""
        return sens_reduce(CartesianOperator(self.mask, self.norm).adjoint(kspace), self.maps)
