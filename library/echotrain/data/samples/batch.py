"""What every batch is, whatever its samples are: all that the trainer sees of it."""

from dataclasses import dataclass, fields, replace
from typing import Self

import torch

from echotrain.data.catalog.identity import SampleId
from echotrain.seeding import torch_generator
from echotrain.shapes import PerSample

__all__ = ["Batch"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples of one shape; what they are made of, each kind adds.

    Attributes:
        weight: 1 for a sample that counts, 0 for a filler that keeps ranks in step.
        ids: One per sample.
        roots: One per sample, of everything that is drawn for it besides its mask; see ``SampleId.root``.
    """

    weight: PerSample
    ids: tuple[SampleId, ...]
    roots: tuple[int, ...] = ()

    def generators(self, purpose: str) -> list[torch.Generator]:
        """Return a random stream for one purpose per sample, on the CPU; a batch without roots is not of training."""
        roots = self.roots or [sample.root(0, None) for sample in self.ids]
        return [torch_generator(root, purpose) for root in roots]

    def part(self, start: int, stop: int) -> Self:
        """Return the samples of a range, as views; a kind whose fields are not all one per sample says itself how they are cut."""
        cut = {}
        for name, value in ((f.name, getattr(self, f.name)) for f in fields(self)):
            is_tensor = isinstance(value, torch.Tensor)
            if is_tensor or (isinstance(value, tuple) and value):
                num = len(value) if not is_tensor or value.dim() else 0
                if num != len(self.ids) or (not is_tensor and isinstance(value[0], torch.Tensor)):
                    raise AssertionError(f"{type(self).__name__}.{name} is not one per sample, and the class has no part() of its own")
                cut[name] = value[start:stop]
        return replace(self, **cut)

    def to(self, device: torch.device, *, non_blocking: bool = True) -> Self:
        """Return the batch with its tensors on ``device``."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), torch.Tensor)}
        return replace(self, **{name: tensor.to(device, non_blocking=non_blocking) for name, tensor in tensors.items()})
