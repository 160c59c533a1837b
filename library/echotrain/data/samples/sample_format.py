"""What a kind of sample is to the fetcher: how rows are grouped into batches, what memory they take, what fills it, and what they become.

A kind is one module beside this one. Whoever fetches, orders and retries knows none of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import pyarrow as pa

from echotrain.data.catalog.rows import SliceRow
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.slots import SlotPool
from echotrain.storage.ranged import RangeReader

__all__ = ["B_co", "Begun", "MakeFormat", "Reading", "SampleFormat", "StepRows"]

B_co = TypeVar("B_co", bound=Batch, covariant=True)


class StepRows(NamedTuple):
    """One rank's rows of one step, with their weights."""

    rows: Sequence[SliceRow]
    weights: Sequence[float]
    num_global_samples: int


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What samples are read with.

    Attributes:
        root: What relative URIs of rows are below.
        table: The catalog's rows, where a sample is made of more than its own.
        ranges: Reads pieces of objects; for use by many threads.
        pool: Gives the memory of batches.
    """

    root: str
    table: pa.Table
    ranges: RangeReader
    pool: SlotPool


@dataclass(frozen=True)
class Begun(Generic[B_co]):
    """A batch whose memory is still to be filled.

    Attributes:
        batch: Complete but for what the reads bring.
        reads: At least one. Each fills its part, by any thread and in any order, and returns the bytes that it fetched.
        memory_nbytes: What the batch takes, and besides it what the transform makes.
        transform: What the filled batch is to become, at the price of a processor's time; called once, by any thread. Of a sample it
            makes the same bits whatever shares the batch, and whatever else runs. None leaves the batch as it was read.
    """

    batch: B_co
    reads: Sequence[Callable[[], int]]
    memory_nbytes: int
    transform: Callable[[B_co], B_co] | None = None


class SampleFormat(Protocol[B_co]):
    """A kind of sample."""

    def memory_nbytes(self, rows: Sequence[SliceRow]) -> int:
        """Return about how much memory these rows will take, before anything is taken."""

    def begin(self, step: StepRows, *, epoch: int | None) -> Sequence[Begun[B_co]]:
        """Return the batches of a step, whose reads and transforms are still to be done; epoch is None outside of training."""


MakeFormat = Callable[[Reading], SampleFormat[B_co]]
