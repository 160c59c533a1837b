"""Fetching steps ahead of their use: range reads by a pool of threads, straight into the tensors of the batches.

Knows nothing of Ray, and so is tested and measured without it.
"""

import collections
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic

import torch

from echotrain.data.catalog.rows import Catalog, SliceRow
from echotrain.data.config import StreamConfig
from echotrain.data.samples.sample_format import B_co, MakeFormat, Reading, StepRows
from echotrain.data.samples.slots import SlotPool
from echotrain.data.stream import StepData
from echotrain.storage.open import local_path
from echotrain.storage.ranged import RangeReader
from echotrain.storage.retry import RetryPolicy

__all__ = ["Fetcher", "default_threads"]

_THREADS_REMOTE, _THREADS_LOCAL = 16, 4


def default_threads(root: str) -> int:
    """Return how many concurrent reads suit the store of a catalog; see ``StreamConfig``."""
    return _THREADS_REMOTE if local_path(root) is None else _THREADS_LOCAL


@dataclass(frozen=True)
class _Pending(Generic[B_co]):
    """A step whose reads are under way."""

    batches: Sequence[B_co]
    reads: list[Future[int]]
    num_global_samples: int
    memory_nbytes: int

    def wait(self) -> StepData[B_co]:
        started = time.perf_counter()
        num_bytes = sum(read.result() for read in self.reads)
        return StepData(
            batches=self.batches,
            num_global_samples=self.num_global_samples,
            wait_s=time.perf_counter() - started,
            num_bytes=num_bytes,
        )


class Fetcher(Generic[B_co]):
    """Turns rows into batches, several steps ahead.

    Args:
        catalog: The rows, and what their relative URIs are below.
        make_format: Makes the kind of sample that rows become.
        config: Threads, prefetch, retries.

    Attributes:
        pool: Gives the memory of batches.
    """

    def __init__(self, catalog: Catalog, make_format: MakeFormat[B_co], *, config: StreamConfig | None = None) -> None:
        self._config = config or StreamConfig()
        retry = RetryPolicy(attempts=self._config.attempts)
        self._ranges = RangeReader(timeout_s=self._config.timeout_s, retry=retry)
        pin = torch.cuda.is_available() if self._config.pin_memory is None else self._config.pin_memory
        self.pool = SlotPool(pin=pin)
        self._format = make_format(Reading(root=catalog.root, table=catalog.table, ranges=self._ranges, pool=self.pool))
        num_threads = self._config.threads or default_threads(catalog.root)
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="echotrain-fetch")

    def fetch(self, steps: Iterable[StepRows], *, epoch: int | None) -> Iterator[StepData[B_co]]:
        """Yield the steps in order, reading ahead as far as the configuration allows.

        Args:
            steps: Consumed as the prefetch advances.
            epoch: Of training, which the masks depend on; None in evaluation.

        Raises:
            PayloadError: Bytes are missing or damaged.
            StorageError: The store failed after bounded retries, or refused.
        """
        pending: collections.deque[_Pending[B_co]] = collections.deque()
        source = iter(steps)
        upcoming = next(source, None)
        try:
            while upcoming is not None or pending:
                while upcoming is not None and self._has_room(pending, upcoming):
                    pending.append(self._begin(upcoming, epoch))
                    upcoming = next(source, None)
                # The step leaves the queue before it is handed out: a consumer that lets go of it frees its slots.
                yield pending.popleft().wait()
        finally:
            for step in pending:
                for read in step.reads:
                    read.cancel()

    def memory_nbytes(self, rows: Sequence[SliceRow]) -> int:
        """Return about how much memory some rows will take."""
        return self._format.memory_nbytes(rows)

    def close(self) -> None:
        """End the threads and the connections; reads under way are finished first."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._ranges.close()

    def _has_room(self, pending: collections.deque[_Pending[B_co]], upcoming: StepRows) -> bool:
        """Tell whether one more step may be begun; one always may, or nothing would ever go on."""
        if not pending:
            return True
        in_use = sum(step.memory_nbytes for step in pending)
        more = self.memory_nbytes(upcoming.rows)
        return len(pending) <= self._config.prefetch_steps and in_use + more <= self._config.prefetch_mb * 1e6

    def _begin(self, step: StepRows, epoch: int | None) -> _Pending[B_co]:
        begun = self._format.begin(step, epoch=epoch)
        reads = [self._threads.submit(read) for each in begun for read in each.reads]
        return _Pending([each.batch for each in begun], reads, step.num_global_samples, sum(each.memory_nbytes for each in begun))
