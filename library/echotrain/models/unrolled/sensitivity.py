"""Coil sensitivities estimated from the fully sampled centre of k-space."""

import functools

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from echotrain.errors import ConfigError
from echotrain.models.layers.draws import regrouped
from echotrain.models.unrolled.checkpointing import run
from echotrain.physics.coils import rss
from echotrain.physics.modulation import Hybrid, HybridSpace
from echotrain.shapes import Calibration, CoilMask, Counts, Image, LineMask, SamplingMask, SensMaps

__all__ = ["SensitivityModel", "center_lines", "center_of", "count_center_lines"]

# Two coils of 320 x 320: more leave the CPU's cache, and fewer pay for each call what they gain.
_PIXELS_AT_ONCE = 2 * 320 * 320


class SensitivityModel(nn.Module):
    """``S = R(F^-1 M_center k) / rss(R(F^-1 M_center k))``, with R applied to each coil on its own.

    Source: Sriram et al., arXiv:2004.06688, section 3.2.

    Args:
        refiner: Complex images (batch, y, x) -> complex images; zero images stay zero.
        mask_center: Estimate from the fully sampled centre alone rather than from all that was measured.
    """

    def __init__(self, refiner: nn.Module, *, mask_center: bool = True) -> None:
        super().__init__()
        self.norm_unet = refiner
        self.mask_center = mask_center

    def forward(
        self,
        measured: Hybrid,
        mask: SamplingMask,
        calibration: Calibration | None,
        coil_mask: CoilMask | None,
        space: HybridSpace,
        *,
        activation_checkpointing: bool = False,
    ) -> SensMaps:
        """Return maps whose squared magnitudes sum to 1 over coils; those of padded coils are 0."""
        center = measured * center_of(mask, calibration, measured.shape[-2]) if self.mask_center else measured
        images = space.images(center)
        if coil_mask is None or not _leaves_out_padding(images.device) or bool(coil_mask.all()):
            # Padding is zero, and stays so.
            everyone = torch.ones(images.shape[:2], dtype=torch.bool)
            maps = self._refine(images.flatten(0, 1), everyone, activation_checkpointing).view(images.shape)
        else:
            maps = torch.zeros_like(images)
            maps[coil_mask] = self._refine(images[coil_mask], coil_mask, activation_checkpointing)
        return maps / rss(maps).unsqueeze(1)

    def _refine(self, images: Image, is_real: CoilMask, activation_checkpointing: bool) -> Image:
        """Refine coil by coil, those that are real; a few at a time where that keeps them in the CPU's cache or saves memory."""
        few = activation_checkpointing or images.device.type == "cpu"
        at_once = max(1, _PIXELS_AT_ONCE // images[0].numel()) if few else len(images)
        coils = functools.cache(lambda: is_real.nonzero().tolist())
        refined = []
        for index, group in enumerate(torch.split(images, at_once)):
            part = slice(index * at_once, (index + 1) * at_once)
            with regrouped(lambda part=part: coils()[part]):  # type: ignore[misc]
                refined.append(run(self.norm_unet, group, checkpointed=activation_checkpointing))
        return torch.cat(refined)


def _leaves_out_padding(device: torch.device) -> bool:
    """Whether it is worth asking which coils are padding: a GPU would be waited for in the middle of a step."""
    return device.type == "cpu"


def center_of(mask: SamplingMask, calibration: Calibration | None, height: int) -> SamplingMask:
    """Return the mask of the fully sampled centre, as what describes ``mask`` says it: lines, or a rectangle.

    Args:
        mask: Of whole lines, or of any points.
        calibration: Lines (batch,), or rows and columns (batch, 2); None or 0 lines counts them in a mask of whole lines.
        height: Of the k-space.

    Raises:
        ConfigError: Nothing says it, and the mask has no lines to count.
    """
    if calibration is not None and calibration.dim() == 2:
        rows, columns = calibration.unbind(-1)
        return (_is_central(rows, height)[:, :, None] & _is_central(columns, mask.shape[-1])[:, None, :])[:, None]
    if mask.shape[-2] == 1:
        return center_lines(mask, calibration)
    if calibration is None:
        raise ConfigError("a mask without its centre", "has no whole lines to count", "Say which part is fully sampled.")
    return _is_central(calibration, mask.shape[-1])[:, None, None]


def center_lines(mask: LineMask, num_low_frequencies: Counts | None) -> LineMask:
    """Return the mask of the fully sampled centre: ``num`` lines from ``(width - num + 1) // 2`` on."""
    counted = count_center_lines(mask)
    num = counted if num_low_frequencies is None else torch.where(num_low_frequencies > 0, num_low_frequencies, counted)
    return _is_central(num, mask.shape[-1])[:, None, None]


def count_center_lines(mask: LineMask) -> Int[Tensor, " batch"]:
    """Count the run of measured lines around the centre, symmetric, at least 1.

    As in the public implementation, whose checkpoints depend on it, a side without any gap counts as 0; fully
    sampled data should come with its number of centre lines.
    """
    lines = mask[:, 0, 0].to(torch.int8)
    center = lines.shape[-1] // 2
    # argmin returns the first 0: the length of the run before it.
    left = lines[:, :center].flip(-1).argmin(-1)
    right = lines[:, center:].argmin(-1)
    return torch.clamp_min(2 * torch.minimum(left, right), 1)


def _is_central(num: Counts, size: int) -> Bool[Tensor, "batch size"]:
    """Tell of each place along an axis whether it is one of the ``num`` central ones."""
    first = (size - num + 1) // 2
    place = torch.arange(size, device=num.device)
    return (place >= first[:, None]) & (place < (first + num)[:, None])
