"""This process among the ranks of a run: agreements on plain numbers, apart from the gradients."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Ranks"]


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Rank, world size, device and a gloo group for agreements.

    Agreements travel over the CPU, so that they neither wait for nor disturb the device's queue. Without a process group
    (one worker) every agreement is with oneself.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    group: Any = None

    @classmethod
    def of_process_group(cls, device: torch.device) -> "Ranks":
        """Return this process's place in torch's default process group, or alone where there is none."""
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return cls(device=device)
        return cls(rank=dist.get_rank(), world=dist.get_world_size(), device=device, group=dist.new_group(backend="gloo"))

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what is written once."""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Return each value summed over ranks, in float64."""
        if self.group is None:
            return [float(value) for value in values]
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self.group)
        return [float(value) for value in tensor]

    def add_up(self, tensor: Tensor) -> Tensor:
        """Return a tensor summed over ranks, on its device and with the same bits on each; for statistics of any size."""
        summed = tensor.detach().clone(memory_format=torch.contiguous_format)
        if self.group is not None:
            dist.all_reduce(summed, group=self.group if summed.device.type == "cpu" else None)
        return summed

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's object, in rank order, on rank 0; an empty list elsewhere."""
        if self.group is None:
            return [value]
        gathered: list[Any] | None = [None] * self.world if self.is_first else None
        dist.gather_object(value, gathered, dst=0, group=self.group)
        return gathered or []

    def share(self, value: Any) -> Any:
        """Return rank 0's object on every rank."""
        if self.group is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]
