"""What a trainer sees of its data: steps in a fixed order, whoever fetches them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol

from echotrain.data.catalog.identity import SampleId
from echotrain.data.samples.sample_format import B_co

__all__ = ["StepData", "Stream"]


@dataclass(frozen=True, kw_only=True)
class StepData(Generic[B_co]):
    """One rank's share of one step.

    Attributes:
        batches: One per matrix size; more than one means accumulated gradients. Their weights tell fillers from samples.
        num_global_samples: Real samples of the step over all ranks: what the sum of the losses is divided by.
        wait_s: Seconds that the step was waited for.
        num_bytes: Bytes that were fetched for it.
    """

    batches: Sequence[B_co]
    num_global_samples: int
    wait_s: float
    num_bytes: int


class Stream(Protocol[B_co]):
    """One rank's view of a data set."""

    def num_steps(self, epoch: int) -> int:
        """Return the steps of an epoch, the same on every rank."""

    def steps(self, epoch: int, first_step: int = 0) -> Iterator[StepData[B_co]]:
        """Yield the epoch's steps from ``first_step`` on; the same ones, in the same order, every time."""

    def evaluation(self, split: str = "val") -> Iterator[B_co]:
        """Yield this rank's share of a split: each slice once over all ranks, no fillers, masks of the volume alone."""

    def examples(self, count: int, split: str = "val") -> list[SampleId]:
        """Return the slices of a split that are shown as pictures, the same on every rank and for any number of them."""
