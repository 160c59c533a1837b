"""State that every rank has: what rank 0 reads is given to all, and that it stayed the same is looked after.

A store sends a checkpoint once, however many ranks resume from it.
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from echotrain.errors import EchotrainError, TrainingError
from echotrain.ranks import Ranks
from echotrain.training.state import TrainState
from echotrain.training.state_files import tensors

__all__ = ["check_buffers", "restore_everywhere"]


class _TensorShape(NamedTuple):
    """In a tensor's place, where the tensor itself is sent after it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    is_on_cpu: bool


def restore_everywhere(state: TrainState, ranks: Ranks, restore: Callable[[TrainState], None]) -> None:
    """Let rank 0 restore its state, and all others take it over.

    Args:
        state: Of this rank, as it is before the first step.
        ranks: This process among the others.
        restore: Called on rank 0 alone.

    Raises:
        EchotrainError: What ``restore`` raised, on every rank.
    """
    failure: EchotrainError | None = None
    if ranks.is_first:
        try:
            restore(state)
        except EchotrainError as error:
            failure = error
    failure = ranks.share(failure)
    if failure is not None:
        raise failure
    if ranks.world == 1:
        return
    optimizer = ranks.share(_outline(state.optimizer.state_dict()) if ranks.is_first else None)
    if not ranks.is_first:
        state.optimizer.load_state_dict(_allocated(optimizer, ranks.device))
    average = state.ema.state_dict() if state.ema is not None else {}
    for tensor in tensors([state.network.state_dict(), average, state.optimizer.state_dict()]):
        _broadcast(tensor, ranks)
    state.position, state.scores = ranks.share((state.position, state.scores))


def check_buffers(network: nn.Module, ranks: Ranks) -> None:
    """Make sure that a network's buffers are the same on every rank: gradients look after parameters, nothing looks after these.

    Raises:
        TrainingError: One is not, on every rank.
    """
    own = {name: _digest(buffer) for name, buffer in network.named_buffers()} if ranks.world > 1 else {}
    everywhere = ranks.gather(own)
    differing = ranks.share(sorted({name for others in everywhere for name in own if others.get(name) != own[name]}))
    if differing:
        raise TrainingError(
            f"the buffer {differing[0]}" + (f" and {len(differing) - 1} more" if len(differing) > 1 else ""),
            "is not the same on every rank, and only that of rank 0 would be saved",
            "Change it in Task.after_step alone, by what ranks.add_up gives.",
        )


def _digest(tensor: Tensor) -> bytes:
    return hashlib.blake2b(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data).digest()


def _outline(state: Any) -> Any:
    if isinstance(state, Tensor):
        return _TensorShape(tuple(state.shape), state.dtype, state.device.type == "cpu")
    if isinstance(state, dict):
        return {key: _outline(value) for key, value in state.items()}
    return [_outline(value) for value in state] if isinstance(state, list) else state


def _allocated(outline: Any, device: torch.device) -> Any:
    if isinstance(outline, _TensorShape):
        return torch.empty(outline.shape, dtype=outline.dtype, device="cpu" if outline.is_on_cpu else device)
    if isinstance(outline, dict):
        return {key: _allocated(value, device) for key, value in outline.items()}
    return [_allocated(value, device) for value in outline] if isinstance(outline, list) else outline


def _broadcast(tensor: Tensor, ranks: Ranks) -> None:
    """Overwrite a tensor, in place and as bytes, with rank 0's."""
    if not tensor.numel():
        return
    dense = tensor.detach().contiguous()
    dist.broadcast(dense.reshape(-1).view(torch.uint8), src=0, group=ranks.group if tensor.device.type == "cpu" else None)
    if not ranks.is_first and dense.data_ptr() != tensor.data_ptr():
        tensor.detach().copy_(dense)
