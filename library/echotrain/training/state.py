"""Everything that a restart needs, in one place."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from echotrain.errors import CheckpointError
from echotrain.training.checkpoint import describe_mismatch
from echotrain.training.ema import Ema

__all__ = ["Position", "TrainState"]


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a run stands in its plan; a new one is made after every step.

    There is no state of a random generator: every draw of a step is seeded by the position and the samples' ids, so that
    the position alone repeats it, on any number of workers.

    Attributes:
        epoch, step: The next step to do is ``step`` of ``epoch``, counted from 0.
        global_step: Steps done in the whole run.
        epoch_loss, epoch_samples: Running sum of this epoch's losses, and over how many samples.
        window, window_samples: Sums of the loss and of a task's logs since the last logged line, and over how many samples.
        lines: Lines of ``metrics.jsonl`` that belong to this position.
        best_score: The best validation so far.
    """

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    epoch_loss: float = 0.0
    epoch_samples: int = 0
    window: Mapping[str, float] = field(default_factory=dict)
    window_samples: int = 0
    lines: int = 0
    best_score: float | None = None

    @property
    def name(self) -> str:
        """The name of a checkpoint made here; names sort by age."""
        return f"step-{self.global_step:09d}-{self.epoch:05d}"

    def after_step(self, sums: Mapping[str, float], num_samples: int) -> "Position":
        """Return the position one step on, given the sums over its samples of ``loss`` and whatever the task logs."""
        return dataclasses.replace(
            self,
            step=self.step + 1,
            global_step=self.global_step + 1,
            epoch_loss=self.epoch_loss + sums["loss"],
            epoch_samples=self.epoch_samples + num_samples,
            window={name: self.window.get(name, 0.0) + value for name, value in sums.items()},
            window_samples=self.window_samples + num_samples,
        )

    def after_line(self) -> "Position":
        """Return the position with a new window begun."""
        return dataclasses.replace(self, window={}, window_samples=0)

    def after_epoch(self) -> "Position":
        """Return the position at the beginning of the next epoch."""
        return dataclasses.replace(self, epoch=self.epoch + 1, step=0, epoch_loss=0.0, epoch_samples=0)

    def with_score(self, score: float, *, is_higher_better: bool = True) -> "Position":
        """Return the position with the best score brought up to date, itself where this one is no better; what is not finite never is."""
        sign = 1 if is_higher_better else -1
        if not math.isfinite(score) or (self.best_score is not None and sign * score <= sign * self.best_score):
            return self
        return dataclasses.replace(self, best_score=score)


class TrainState:
    """Weights, optimiser, average and position: the whole state of a run.

    Args:
        network: The bare network that a task trains, never what wraps it to synchronise gradients.
        optimizer: Over the network's parameters.
        ema_decay: 0 keeps no average.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, *, ema_decay: float = 0.0) -> None:
        self.network = network
        self.optimizer = optimizer
        self.ema = Ema(network, ema_decay) if ema_decay else None
        self.position = Position()
        self.scores: dict[str, float] = {}

    def files(self) -> dict[str, dict[str, Any]]:
        """Return the content of a checkpoint's files; tensors are shared with the live state, not copied."""
        if self.ema is None:
            return {"weights": self.network.state_dict(), "train": {"optimizer": self.optimizer.state_dict()}}
        return {"weights": self.ema.state_dict(), "train": {"optimizer": self.optimizer.state_dict(), "model": self.network.state_dict()}}

    def restore(
        self, weights: Mapping[str, Tensor], train: Mapping[str, Any], position: Mapping[str, Any], scores: Mapping[str, float]
    ) -> None:
        """Take over a checkpoint's content.

        Raises:
            CheckpointError: The weights are another model's, or the checkpoint was made with, or without, an average.
        """
        if (self.ema is not None) != ("model" in train):
            raise CheckpointError("the checkpoint", "disagrees about keeping averaged weights", "Set ema_decay as it was.")
        raw = train["model"] if self.ema is not None else weights
        mismatch = describe_mismatch(self.network.state_dict(), raw)
        if mismatch:
            remedy = "Restore the model's settings, or choose a new name=."
            raise CheckpointError("the checkpoint", f"is of another model: it {mismatch}", remedy)
        self.network.load_state_dict(dict(raw))
        if self.ema is not None:
            self.ema.load_state_dict(weights)
        self.optimizer.load_state_dict(train["optimizer"])
        _own_tensors(self.optimizer)
        self.position = Position(**position)
        self.scores = dict(scores)


def _own_tensors(optimizer: torch.optim.Optimizer) -> None:
    """Copy what an optimiser took over as it was: tensors of a mapped file would die with the file on a network disk."""
    for values in optimizer.state.values():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.device.type == "cpu":
                values[name] = value.clone()
