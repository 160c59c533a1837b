"""The unrolled loop: data consistency and a learned regularizer, in turn."""

from collections.abc import Iterable

import torch
from torch import nn

from echotrain.models.unrolled.checkpointing import run
from echotrain.physics.coils import rss
from echotrain.physics.consistency import combine, consistency_step
from echotrain.physics.fft import FftNorm
from echotrain.physics.modulation import Hybrid, HybridSpace
from echotrain.shapes import CoilMask, Counts, Kspace, LineMask, Magnitude, SensMaps

__all__ = ["Cascade", "UnrolledNetwork"]


class Cascade(nn.Module):
    """One iteration: ``k <- k - eta M (k - k0) - F S R(S^H F^-1 k)``.

    Source: Sriram et al., arXiv:2004.06688, equations 8 and 9. ``R`` is any module that maps complex images
    (batch, y, x) to complex images of that shape.
    """

    def __init__(self, regularizer: nn.Module) -> None:
        super().__init__()
        self.regularizer = regularizer
        self.dc_weight = nn.Parameter(torch.ones(1))

    def forward(self, current: Hybrid, measured: Hybrid, mask: LineMask, maps: SensMaps, space: HybridSpace) -> Hybrid:
        """Return the next iterate; ``maps`` are modulated to ``space``."""
        refined = self.regularizer(combine(current, maps, space))
        return consistency_step(current, measured, mask, self.dc_weight, refined, maps, space)


class UnrolledNetwork(nn.Module):
    """Sensitivity estimation, then cascades, then the root of the sum of squares over coils.

    ``k_0 = M k``, ``S = sens_net(k_0)``, ``k_{t+1} = k_t - eta_t M (k_t - k_0) - F S R_t(S^H F^-1 k_t)``,
    ``output = rss(F^-1 k_T)``.

    The loop runs in ``HybridSpace``: the same iterates, without shifts and with 1-D transforms only.

    Args:
        sens_net: Called as a ``SensitivityModel``; any module that returns sensitivity maps.
        regularizers: One per cascade: complex image (batch, y, x) -> complex image.
        norm: Of the FFT; checkpoints are tied to it.
        activation_checkpointing: Keep only the iterates for the backward pass and compute each cascade twice.
    """

    def __init__(
        self, sens_net: nn.Module, regularizers: Iterable[nn.Module], *, norm: FftNorm = "ortho", activation_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.sens_net = sens_net
        self.cascades = nn.ModuleList(Cascade(regularizer) for regularizer in regularizers)
        self.norm = norm
        self.activation_checkpointing = activation_checkpointing

    def forward(
        self, masked_kspace: Kspace, mask: LineMask, num_low_frequencies: Counts | None = None, coil_mask: CoilMask | None = None
    ) -> Magnitude:
        """Reconstruct the full matrix.

        Args:
            masked_kspace: Measured lines, zero elsewhere.
            mask: Which lines those are.
            num_low_frequencies: Fully sampled centre lines per sample; None or 0 counts them in ``mask``.
            coil_mask: False where a coil is padding; such coils must be zero and change nothing.
        """
        space = HybridSpace.of(masked_kspace, self.norm)
        measured = space.enter(masked_kspace)
        checkpointed = self.activation_checkpointing
        maps = self.sens_net(measured, mask, num_low_frequencies, coil_mask, space, activation_checkpointing=checkpointed)
        maps = space.modulate(maps)
        current = measured
        for cascade in self.cascades:
            current = run(cascade, current, measured, mask, maps, space, checkpointed=checkpointed)
        return rss(space.ifft(current))
