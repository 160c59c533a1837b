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

from echotrain.physics.fft import FftNorm
from echotrain.shapes import CoilImages, Kspace, SensMaps

__all__ = ["Hybrid", "HybridSpace"]

# k-space after an inverse FFT along ky alone: what a mask of phase-encode lines (the last axis) still acts on directly.
Hybrid = Complex[Tensor, "batch coil y kx"]


@dataclass(frozen=True)
class HybridSpace:
    """The space an unrolled loop over line masks works in: (y, kx), free of shifts.

    A mask of phase-encode lines is constant along ky, so it commutes with the transform along ky. That transform is
    therefore done once, at the entrance, and each iteration needs only 1-D transforms of the contiguous last axis.
    What leaves ``enter`` is modulated: ``ifft`` of it is the centred coil image times a unit phase (``image_phase``).

    Attributes:
        height, width: Matrix of the k-space.
        norm: Of the FFT, as in ``torch.fft``.
        dtype, device: Of the k-space.
    """

    height: int
    width: int
    norm: FftNorm
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, kspace: Kspace, norm: FftNorm) -> "HybridSpace":
        """Return the space that fits ``kspace``."""
        return cls(kspace.shape[-2], kspace.shape[-1], norm, kspace.dtype, kspace.device)

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
        hybrid: Hybrid = torch.fft.ifft(kspace * self.kspace_phase.conj(), dim=-2, norm=self.norm)
        return hybrid

    def leave(self, hybrid: Hybrid) -> Kspace:
        """Take the hybrid space back to centred k-space; the inverse of ``enter``."""
        kspace: Kspace = torch.fft.fft(hybrid, dim=-2, norm=self.norm) * self.kspace_phase
        return kspace

    def fft(self, modulated: CoilImages) -> Hybrid:
        """Transform modulated images along x."""
        hybrid: Hybrid = torch.fft.fft(modulated, dim=-1, norm=self.norm)
        return hybrid

    def ifft(self, hybrid: Hybrid) -> CoilImages:
        """Transform back along kx; what comes out is modulated."""
        modulated: CoilImages = torch.fft.ifft(hybrid, dim=-1, norm=self.norm)
        return modulated

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
