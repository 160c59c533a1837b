"""Where a run stands, as schedules and tasks see it."""

from dataclasses import dataclass

import torch

from echotrain.seeding import torch_generator

__all__ = ["Progress"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A step of a run; all are counted from 0.

    Attributes:
        epoch, step: The step is ``step`` of ``epoch``.
        steps_per_epoch: How many an epoch has.
        global_step: The step of the whole run.
        epochs: Where the run is to stop. A run that is finished may be given more, so what follows from this is then not what a run of
            that length from the start would have had.
        seed: The run's.
    """

    epoch: int
    step: int
    steps_per_epoch: int
    global_step: int
    epochs: int = 1
    seed: int = 0

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def generator(self, purpose: str) -> torch.Generator:
        """Return a random stream, on the CPU and the same on every rank, for what is drawn at this step for no sample in particular."""
        return torch_generator(self.seed, purpose, "step", self.global_step)
