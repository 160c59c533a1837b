"""Centred Fourier transforms without shifts: plain FFTs between two modulations.

With ``c = n // 2``, ``a_j = exp(2 pi i c j / n)`` and ``b_k = exp(2 pi i c (k - c) / n)``, the centred transform of
length ``n`` is ``fftc(x) = b * FFT(a * x)`` and its inverse ``ifftc(k) = conj(a) * IFFT(conj(b) * k)``, for odd and
even ``n`` alike. A loop that goes back and forth between the two domains therefore modulates once at its entrance.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Complex
from torch import Tensor

from echotrain.physics.fft import FftNorm, adjoint_norm
from echotrain.shapes import CoilImages, Kspace, SensMaps

__all__ = ["Hybrid", "HybridSpace"]

# What a mask still acts on directly: for one of phase-encode lines (the last axis) k-space after an inverse FFT along ky alone, for any
# other k-space itself.
Hybrid = Complex[Tensor, "batch coil ky_or_y kx"]


@dataclass(frozen=True)
class HybridSpace:
    """The space an unrolled loop works in, free of shifts: (y, kx) for line masks, (ky, kx) for masks of any other shape.

    A mask of phase-encode lines is constant along ky, so it commutes with the transform along ky. That transform is
    therefore done once, at the entrance, and each iteration needs only 1-D transforms of the contiguous last axis.
    Any other mask acts on k-space alone: nothing is transformed at the entrance, and each iteration transforms both axes.
    What leaves ``enter`` is modulated: ``ifft`` of it is the centred coil image times a unit phase (``image_phase``).

    Attributes:
        height, width: Matrix of the k-space.
        norm: Of the FFT, as in ``torch.fft``.
        dtype, device: Of the k-space.
        axes: Along which each iteration transforms: (-1,) or (-2, -1).
    """

    height: int
    width: int
    norm: FftNorm
    dtype: torch.dtype
    device: torch.device
    axes: tuple[int, ...] = (-1,)

    @classmethod
    def of(cls, kspace: Kspace, norm: FftNorm, *, by_lines: bool = True) -> "HybridSpace":
        """Return the space that fits ``kspace`` and what is multiplied with it: by lines what is constant along ky, else anything."""
        return cls(kspace.shape[-2], kspace.shape[-1], norm, kspace.dtype, kspace.device, (-1,) if by_lines else (-2, -1))

    @cached_property
    def image_phase(self) -> Complex[Tensor, "y x"]:
        """Modulation ``a`` of images, along both axes."""
        return self._outer(lambda index, center: index * center)

    @cached_property
    def kspace_phase(self) -> Complex[Tensor, "ky kx"]:
        """Modulation ``b`` of k-space, along both axes."""
        return self._outer(lambda index, center: (index - center) * center)

    def enter(self, kspace: Kspace) -> Hybrid:
        """Take centred k-space to the hybrid space."""
        modulated = kspace * self.kspace_phase.conj()
        hybrid: Hybrid = modulated if -2 in self.axes else torch.fft.ifft(modulated, dim=-2, norm=self.norm)
        return hybrid

    def leave(self, hybrid: Hybrid) -> Kspace:
        """Take the hybrid space back to centred k-space; the inverse of ``enter``."""
        kspace: Kspace = hybrid if -2 in self.axes else torch.fft.fft(hybrid, dim=-2, norm=self.norm)
        return kspace * self.kspace_phase

    def fft(self, modulated: CoilImages) -> Hybrid:
        """Transform modulated images to where the masks act."""
        hybrid: Hybrid = torch.fft.fftn(modulated, dim=self.axes, norm=self.norm)
        return hybrid

    def ifft(self, hybrid: Hybrid) -> CoilImages:
        """Transform back; what comes out is modulated."""
        modulated: CoilImages = torch.fft.ifftn(hybrid, dim=self.axes, norm=self.norm)
        return modulated

    def fft_adjoint(self, hybrid: Hybrid) -> CoilImages:
        """Apply the adjoint of ``fft``."""
        modulated: CoilImages = torch.fft.ifftn(hybrid, dim=self.axes, norm=adjoint_norm(self.norm))
        return modulated

    def ifft_adjoint(self, modulated: CoilImages) -> Hybrid:
        """Apply the adjoint of ``ifft``."""
        hybrid: Hybrid = torch.fft.fftn(modulated, dim=self.axes, norm=adjoint_norm(self.norm))
        return hybrid

    def images(self, hybrid: Hybrid) -> CoilImages:
        """Return the centred coil images, their modulation removed."""
        return self.ifft(hybrid) * self.image_phase.conj()

    def modulate(self, maps: SensMaps) -> SensMaps:
        """Put the modulation into the sensitivity maps, so that combined images are free of it."""
        return maps * self.image_phase

    def _outer(self, numerator: Callable[[Tensor, int], Tensor]) -> Complex[Tensor, "rows columns"]:
        """Return ``exp(2 pi i numerator(index, n // 2) / n)`` of both axes, multiplied."""
        rows, columns = (self._unit(numerator(torch.arange(n, device=self.device), n // 2), n) for n in (self.height, self.width))
        return rows[:, None] * columns

    def _unit(self, numerator: Tensor, n: int) -> Complex[Tensor, " n"]:
        """Return ``exp(2 pi i numerator / n)``, reduced modulo n as integers so that no precision is lost."""
        turns = torch.remainder(numerator, n).double() / n
        return torch.polar(torch.ones_like(turns), 2 * torch.pi * turns).to(self.dtype)
