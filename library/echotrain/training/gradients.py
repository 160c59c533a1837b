"""Gradients of a step, out of those of its pieces and of all ranks.

A step's batches are run piece by piece, and each adds to the gradients; only what the last one leaves is shared with other ranks. How it
is shared is known here alone: another way, such as that of experts of which few are used, is another ``GradientSync``.
"""

import contextlib
from contextlib import AbstractContextManager
from typing import Protocol

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from echotrain.ranks import Ranks

__all__ = ["AloneSync", "DataParallelSync", "GradientSync", "gradient_sync"]


class GradientSync(Protocol):
    """Makes every rank's gradients the sum over the pieces of all ranks."""

    @property
    def network(self) -> nn.Module:
        """The network that a task runs, in whatever wraps it."""

    @property
    def scale(self) -> float:
        """What each piece's loss is multiplied by, so that the gradients come out as the sum over ranks."""

    def piece(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Return what forward and backward of a piece are done within."""

    def finish(self) -> None:
        """Return when each ``grad`` is complete, on every rank the same; called once a step, after the last piece."""


class AloneSync:
    """Of one rank: nothing is shared."""

    scale = 1.0

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def piece(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Gradients add up by themselves."""
        return contextlib.nullcontext()

    def finish(self) -> None:
        """They are complete."""


class DataParallelSync:
    """PyTorch's DDP, for networks whose parameters all get a gradient; buffers are left to the task."""

    def __init__(self, network: nn.Module, ranks: Ranks) -> None:
        devices = [ranks.device] if ranks.device.type == "cuda" else None
        self.network = DistributedDataParallel(network, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True)
        self.scale = float(ranks.world)  # DDP divides the sum over ranks by their number.

    def piece(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Only the last piece's backward pass synchronises, while it goes on."""
        return contextlib.nullcontext() if is_last else self.network.no_sync()

    def finish(self) -> None:
        """The last backward pass has waited for all of them."""


def gradient_sync(network: nn.Module, ranks: Ranks) -> GradientSync:
    """Return how the gradients of a network are shared among ranks."""
    return AloneSync(network) if ranks.world == 1 else DataParallelSync(network, ranks)
