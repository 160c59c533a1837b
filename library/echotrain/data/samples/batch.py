"""What a training step receives: slices of one shape, as tensors."""

from dataclasses import dataclass, fields, replace

import torch

from echotrain.data.catalog.identity import SampleId
from echotrain.seeding import torch_generator
from echotrain.shapes import CoilMask, Counts, Kspace, LineMask, Magnitude, PerSample

__all__ = ["Batch"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Slices of one (coil, ky, kx) shape; volumes with fewer coils are zero-padded.

    Attributes:
        kspace: Measured k-space. Lines outside ``mask`` may be zero (the ``lines`` layout fetches only what the mask
            acquires), so a task multiplies by ``mask`` and never reads outside it.
        mask: Acquired phase-encode lines, partial-Fourier padding already removed.
        num_low_frequencies: Fully sampled centre lines.
        coil_mask: True where a coil is real, False where it is padding.
        target: RSS image of the full k-space, cropped to the reconstruction matrix.
        max_value: Maximum of the target **volume**: SSIM's data range.
        weight: 1 for a sample that counts, 0 for a filler that keeps ranks in step.
        ids: One per sample.
        anatomies: One per sample; "" where the header names none.
        roots: One per sample, of everything that is drawn for it besides its mask; see ``SampleId.root``.
    """

    kspace: Kspace
    mask: LineMask
    num_low_frequencies: Counts
    coil_mask: CoilMask
    target: Magnitude
    max_value: PerSample
    weight: PerSample
    ids: tuple[SampleId, ...]
    anatomies: tuple[str, ...] = ()
    roots: tuple[int, ...] = ()

    def generators(self, purpose: str) -> list[torch.Generator]:
        """Return a random stream for one purpose per sample, on the CPU; a batch without roots is not of training."""
        roots = self.roots or [sample.root(0, None) for sample in self.ids]
        return [torch_generator(root, purpose) for root in roots]

    def to(self, device: torch.device, *, non_blocking: bool = True) -> "Batch":
        """Return the batch with its tensors on ``device``."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), torch.Tensor)}
        return replace(self, **{name: tensor.to(device, non_blocking=non_blocking) for name, tensor in tensors.items()})
