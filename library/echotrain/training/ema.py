"""An exponential moving average of the weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from echotrain.models.averaging import move_average

__all__ = ["Ema"]


class Ema:
    """Keeps ``average = decay * average + (1 - decay) * weights``, begun at the first weights; buffers are copied.

    Args:
        model: The network whose state is averaged.
        decay: In (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights, and take over its buffers."""
        move_average(self._average, model, self._decay)

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
