"""Centred Fourier transforms without shifts: plain FFTs between two modulations.

With ``c = n // 2``, ``a_j = exp(2 pi i c j / n)`` and ``b_k = exp(2 pi i c (k - c) / n)``, the centred transform of
length ``n`` is ``fftc(x) = b * FFT(a * x)`` and its inverse ``ifftc(k) = conj(a) * IFFT(conj(b) * k)``, for odd and
even ``n`` alike. A loop that goes back and forth between the two domains therefore modulates once at its entrance.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Complex
from torch import Tensor

from echotrain.shapes import CoilImages, Kspace, SensMaps

__all__ = ["FftNorm", "Hybrid", "HybridSpace", "adjoint_norm"]

FftNorm = Literal["ortho", "backward", "forward"]
# k-space after an inverse FFT along ky alone: what a mask of phase-encode lines (the last axis) still acts on directly.
Hybrid = Complex[Tensor, "batch coil y kx"]


def adjoint_norm(norm: FftNorm) -> FftNorm:
    """Return the norm with which the inverse transform is the adjoint of the transform of norm ``norm``."""
    adjoint: dict[FftNorm, FftNorm] = {"ortho": "ortho", "backward": "forward", "forward": "backward"}
    return adjoint[norm]


@dataclass(frozen=True)
class HybridSpace:
    """The space an unrolled loop over line masks works in: (y, kx), free of shifts.

    A mask of phase-encode lines is constant along ky, so it commutes with the transform along ky. That transform is
    therefore done once, at the entrance, and each iteration needs only 1-D transforms of the contiguous last axis.
    What leaves ``enter`` is modulated: ``ifft`` of it is the centred coil image times a unit phase (``image_phase``).

    Attributes:
        height, width: Matrix of the k-space.
        norm: Of the FFT, as in ``torch.fft``.
        device: Where the phases live.
    """

    height: int
    width: int
    norm: FftNorm
    device: torch.device

    @classmethod
    def of(cls, kspace: Kspace, norm: FftNorm) -> "HybridSpace":
        """Return the space that fits ``kspace``."""
        return cls(kspace.shape[-2], kspace.shape[-1], norm, kspace.device)

    @cached_property
    def image_phase(self) -> Complex[Tensor, "y x"]:
        """Modulation ``a`` of images, along both axes."""
        return _image_phase(self.height, self.device)[:, None] * _image_phase(self.width, self.device)

    @cached_property
    def kspace_phase(self) -> Complex[Tensor, "ky kx"]:
        """Modulation ``b`` of k-space, along both axes."""
        return _kspace_phase(self.height, self.device)[:, None] * _kspace_phase(self.width, self.device)

    def enter(self, kspace: Kspace) -> Hybrid:
        """Take centred k-space to the hybrid space."""
        return torch.fft.ifft(kspace * self.kspace_phase.conj(), dim=-2, norm=self.norm)

    def leave(self, hybrid: Hybrid) -> Kspace:
        """Take the hybrid space back to centred k-space; the inverse of ``enter``."""
        return torch.fft.fft(hybrid, dim=-2, norm=self.norm) * self.kspace_phase

    def fft(self, modulated: CoilImages) -> Hybrid:
        """Transform modulated images along x."""
        return torch.fft.fft(modulated, dim=-1, norm=self.norm)

    def ifft(self, hybrid: Hybrid) -> CoilImages:
        """Transform back along kx; what comes out is modulated."""
        return torch.fft.ifft(hybrid, dim=-1, norm=self.norm)

    def images(self, hybrid: Hybrid) -> CoilImages:
        """Return the centred coil images, their modulation removed."""
        return self.ifft(hybrid) * self.image_phase.conj()

    def modulate(self, maps: SensMaps) -> SensMaps:
        """Put the modulation into the sensitivity maps, so that combined images are free of it."""
        return maps * self.image_phase


def _image_phase(n: int, device: torch.device) -> Complex[Tensor, " n"]:
    center = n // 2
    return _unit(torch.arange(n, device=device) * center, n)


def _kspace_phase(n: int, device: torch.device) -> Complex[Tensor, " n"]:
    center = n // 2
    return _unit((torch.arange(n, device=device) - center) * center, n)


def _unit(numerator: Tensor, n: int) -> Complex[Tensor, " n"]:
    """``exp(2 pi i numerator / n)``, reduced modulo n as integers so that no precision is lost."""
    turns = torch.remainder(numerator, n).double() / n
    return torch.polar(torch.ones_like(turns), 2 * torch.pi * turns).to(torch.complex64)
