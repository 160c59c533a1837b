"""An exponential moving average of the weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Ema"]


class Ema:
    """Keeps ``average = decay * average + (1 - decay) * weights``, begun at the first weights; buffers are copied.

    Args:
        model: The network whose state is averaged.
        decay: In (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        # Tied weights have several names, all of which are parameters.
        self._averaged = frozenset(name for name, _ in model.named_parameters(remove_duplicate=False))
        self._average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights, and take over its buffers."""
        for name, value in model.state_dict().items():
            if name in self._averaged:
                self._average[name].lerp_(value.detach(), 1 - self._decay)
            else:
                self._average[name].copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights and the buffers under the model's own names."""
        return dict(self._average)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over averaged weights."""
        for name, average in self._average.items():
            average.copy_(state[name])

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Lend the averaged weights to ``model``; its own return at the end."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self._average)
        try:
            yield
        finally:
            model.load_state_dict(own)
