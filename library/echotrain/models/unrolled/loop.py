"""The unrolled loop: data consistency and a learned regularizer, in turn."""

import contextlib
from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
from torch import nn

from echotrain.errors import ConfigError
from echotrain.models.layers.draws import regrouped
from echotrain.models.unrolled.checkpointing import run
from echotrain.physics.coils import rss
from echotrain.physics.consistency import combine, consistency_step
from echotrain.physics.fft import FftNorm
from echotrain.physics.modulation import Hybrid, HybridSpace
from echotrain.shapes import Calibration, CoilMask, Kspace, KtKspace, KtMask, Magnitude, SamplingMask, SensMaps

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

    def forward(self, current: Hybrid, measured: Hybrid, mask: SamplingMask, maps: SensMaps, space: HybridSpace) -> Hybrid:
        """Return the next iterate; ``maps`` are modulated to ``space``."""
        refined = self.regularizer(combine(current, maps, space))
        return consistency_step(current, measured, mask, self.dc_weight, refined, maps, space)


class UnrolledNetwork(nn.Module):
    """Sensitivity estimation, then cascades, then the root of the sum of squares over coils.

    ``k_0 = M k``, ``S = sens_net(k_0)``, ``k_{t+1} = k_t - eta_t M (k_t - k_0) - F S R_t(S^H F^-1 k_t)``,
    ``output = rss(F^-1 k_T)``.

    The loop runs in ``HybridSpace``: the same iterates, without shifts, and for masks of whole lines with 1-D transforms only.

    With adjacent frames each sample is a window of them. Every frame is held to what was measured of it by its own mask and maps, as if
    it were a sample; the regularizer alone sees the frames of a window together. The centre frame is what comes out (as PromptMR does,
    Xin et al., arXiv:2309.13839).

    Args:
        sens_net: Called as a ``SensitivityModel``; any module that returns sensitivity maps.
        regularizers: One per cascade: complex images (batch * frame, y, x), those of a window one after the other -> the same.
        norm: Of the FFT; checkpoints are tied to it.
        activation_checkpointing: Keep only the iterates for the backward pass and compute each cascade twice.
        num_adjacent: Frames of a window, odd.
    """

    def __init__(
        self,
        sens_net: nn.Module,
        regularizers: Iterable[nn.Module],
        *,
        norm: FftNorm = "ortho",
        activation_checkpointing: bool = False,
        num_adjacent: int = 1,
    ) -> None:
        super().__init__()
        self.sens_net = sens_net
        self.cascades = nn.ModuleList(Cascade(regularizer) for regularizer in regularizers)
        self.norm = norm
        self.activation_checkpointing = activation_checkpointing
        self.num_adjacent = num_adjacent

    def forward(
        self,
        masked_kspace: Kspace | KtKspace,
        mask: SamplingMask | KtMask,
        calibration: Calibration | None = None,
        coil_mask: CoilMask | None = None,
    ) -> Magnitude:
        """Reconstruct the full matrix.

        Args:
            masked_kspace: What was measured, zero elsewhere: (batch, coil, ky, kx), or windows (batch, frame, coil, ky, kx), and all else
                likewise.
            mask: What that is: whole lines, or any points.
            calibration: Fully sampled centre of each: lines (batch,), or rows and columns (batch, 2). None or 0 lines counts them in
                ``mask``.
            coil_mask: False where a coil is padding; such coils must be zero and change nothing.

        Raises:
            ConfigError: A window has not as many frames as this network takes.
        """
        self._check_frames(masked_kspace)
        if masked_kspace.dim() == 5:
            masked_kspace, mask = masked_kspace.flatten(0, 1), mask.flatten(0, 1)
            calibration, coil_mask = (None if each is None else each.flatten(0, 1) for each in (calibration, coil_mask))
        by_lines = mask.shape[-2] == 1 and (calibration is None or calibration.dim() == 1)
        space = HybridSpace.of(masked_kspace, self.norm, by_lines=by_lines)
        measured = space.enter(masked_kspace)
        checkpointed = self.activation_checkpointing
        with self._frames_drawn_for(len(measured)):
            maps = self.sens_net(measured, mask, calibration, coil_mask, space, activation_checkpointing=checkpointed)
        maps = space.modulate(maps)
        current = measured
        for cascade in self.cascades:
            current = run(cascade, current, measured, mask, maps, space, checkpointed=checkpointed)
        return rss(space.ifft(current[self.num_adjacent // 2 :: self.num_adjacent]))

    def _frames_drawn_for(self, count: int) -> AbstractContextManager[None]:
        """Return within which layers draw for every frame of a window on its own."""
        frames = self.num_adjacent
        return contextlib.nullcontext() if frames == 1 else regrouped(lambda: [divmod(row, frames) for row in range(count)])

    def _check_frames(self, kspace: Kspace | KtKspace) -> None:
        frames = kspace.shape[1] if kspace.dim() == 5 else 1
        if frames != self.num_adjacent:
            raise ConfigError(
                f"samples of {frames} frame{'s' * (frames > 1)}",
                f"are not what a network with model.num_adjacent={self.num_adjacent} takes",
                "Give data.num_adjacent and model.num_adjacent the same number.",
            )
