"""Fetching steps ahead of their use: range reads by a pool of threads, straight into the tensors of the batches, and what batches become.

Knows nothing of Ray, and so is tested and measured without it.
"""

import collections
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic

import torch

from echotrain.data.catalog.rows import Catalog, SliceRow
from echotrain.data.config import StreamConfig
from echotrain.data.samples.sample_format import B_co, Begun, MakeFormat, Reading, StepRows
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


class _Filling(Generic[B_co]):
    """A batch whose reads are under way; the thread that ends the last of them makes of it what it is to become.

    That is done when the last read is: nobody waits for anything else, and an error is that read's. Of a batch that lacks a read, nothing
    is made.
    """

    def __init__(self, begun: Begun[B_co], threads: ThreadPoolExecutor) -> None:
        self.batch = begun.batch
        self._transform = begun.transform
        self._lock = threading.Lock()
        self._num_left = len(begun.reads)
        self._reads = [threads.submit(self._read, read) for read in begun.reads]

    def wait(self) -> int:
        """Return the bytes that were fetched, when the batch is what it is to become."""
        return sum(read.result() for read in self._reads)

    def cancel(self) -> None:
        """Leave undone what was not begun."""
        self._transform = None
        for read in self._reads:
            read.cancel()

    def _read(self, read: Callable[[], int]) -> int:
        num_bytes = read()
        with self._lock:
            self._num_left -= 1
            is_last = not self._num_left
        transform = self._transform
        if is_last and transform is not None:
            self.batch = transform(self.batch)
        return num_bytes


@dataclass(frozen=True)
class _Pending(Generic[B_co]):
    """A step whose reads are under way."""

    fillings: Sequence[_Filling[B_co]]
    num_global_samples: int
    memory_nbytes: int

    def wait(self) -> StepData[B_co]:
        started = time.perf_counter()
        num_bytes = sum(filling.wait() for filling in self.fillings)
        return StepData(
            batches=[filling.batch for filling in self.fillings],
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
                for filling in step.fillings:
                    filling.cancel()

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
        fillings = [_Filling(each, self._threads) for each in begun]
        return _Pending(fillings, step.num_global_samples, sum(each.memory_nbytes for each in begun))
