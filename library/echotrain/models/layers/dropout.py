"""Dropout whose draws belong to samples, not to batches; with probability 0, and outside of training, nothing is drawn."""

import math

from torch import Tensor

from echotrain.errors import ConfigError
from echotrain.models.layers.draws import DrawingLayer, draw

__all__ = ["DropPath", "Dropout", "Dropout2d"]


class Dropout(DrawingLayer):
    """``y = x b / (1 - p)`` with ``b`` 0 of probability p, else 1, for each number of each sample.

    Source: Srivastava et al., JMLR 15 (2014), section 10, scaled in training.

    Args:
        probability: In [0, 1).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ConfigError(f"a probability of dropout of {probability}", "must lie in [0, 1)", "Use 0 for none.")
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (sample, ...) with some of it zeroed, and the rest as much larger."""
        if not self.training or not self.probability:
            return x
        units = self._units(x)
        is_kept = (draw(self, x, math.prod(units)) >= self.probability).view(len(x), *units)
        dropped: Tensor = x * (is_kept.to(x.dtype) / (1 - self.probability))
        return dropped

    def _units(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of a sample's draws, which broadcasts to that of the sample."""
        return x.shape[1:]

    def extra_repr(self) -> str:
        """Return what is printed of it."""
        return f"{self.probability}"


class Dropout2d(Dropout):
    """``Dropout`` of whole channels of images (sample, channel, y, x).

    Source: Tompson et al., arXiv:1411.4280, section 3.2.
    """

    def _units(self, x: Tensor) -> tuple[int, ...]:
        return (x.shape[1], *(1 for _ in x.shape[2:]))


class DropPath(Dropout):
    """``Dropout`` of whole samples, for what is added to a residual path (stochastic depth).

    Source: Huang et al., arXiv:1603.09382, section 3, scaled in training.
    """

    def _units(self, x: Tensor) -> tuple[int, ...]:
        return (1,) * (x.dim() - 1)
