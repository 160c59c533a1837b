"""Trading computation for memory."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from echotrain.models.layers.draws import repeated

__all__ = ["run"]


def run(module: nn.Module, *args: object, checkpointed: bool) -> Tensor:
    """Call ``module``; checkpointed, keep only its arguments and call it again in the backward pass, with the same draws."""
    if checkpointed and torch.is_grad_enabled():
        return checkpoint(module, *args, use_reentrant=False, context_fn=repeated)  # type: ignore[no-any-return]
    return module(*args)  # type: ignore[no-any-return]
