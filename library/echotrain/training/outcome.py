"""What may be asked of a run from outside, and how it came back."""

import enum
from dataclasses import dataclass

__all__ = ["Outcome", "Signal"]


class Signal(enum.IntEnum):
    """What the world outside asks of a run; of several, the highest counts."""

    NONE = 0
    SAVE = 1
    """The node may go away: save, go on."""
    LEAVE = 2
    """This worker is being ended: save, then let the run go on elsewhere."""
    STOP = 3
    """The run is being ended: save, then stop."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How ``Trainer.fit`` came back.

    Attributes:
        signal: ``NONE`` after the last epoch, else what ended the run before.
        epoch, global_step: Where it stands.
        scores: The latest validation metrics.
        best_score: The best so far of the task's score.
    """

    signal: Signal
    epoch: int
    global_step: int
    scores: dict[str, float]
    best_score: float | None
