"""Fetching steps ahead of their use: range reads by a pool of threads, straight into the tensors of the batches.

Knows nothing of Ray, and so is tested and measured without it.
"""

import collections
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import torch

from echotrain.data.catalog.rows import SliceRow
from echotrain.data.config import StreamConfig
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.collate import empty_batch, group_by_shape
from echotrain.data.samples.reading import SliceReader
from echotrain.data.samples.slots import SlotPool
from echotrain.data.stream import StepData
from echotrain.physics.masks import LineSampling, MaskConfig, line_mask
from echotrain.storage.open import local_path
from echotrain.storage.ranged import RangeReader
from echotrain.storage.retry import RetryPolicy

__all__ = ["Fetcher", "StepRows", "default_threads"]

_THREADS_REMOTE, _THREADS_LOCAL = 16, 4


def default_threads(root: str) -> int:
    """Return how many concurrent reads suit the store of a catalog; see ``StreamConfig``."""
    return _THREADS_REMOTE if local_path(root) is None else _THREADS_LOCAL


class StepRows(NamedTuple):
    """One rank's rows of one step, with their weights."""

    rows: Sequence[SliceRow]
    weights: Sequence[float]
    num_global_samples: int


@dataclass(frozen=True)
class _Pending:
    """A step whose reads are under way."""

    batches: list[Batch]
    reads: list[Future[int]]
    num_global_samples: int
    memory_nbytes: int

    def wait(self) -> StepData:
        started = time.perf_counter()
        num_bytes = sum(read.result() for read in self.reads)
        return StepData(
            batches=self.batches,
            num_global_samples=self.num_global_samples,
            wait_s=time.perf_counter() - started,
            num_bytes=num_bytes,
        )


class Fetcher:
    """Turns rows into batches, several steps ahead.

    Args:
        root: What relative URIs of rows are below.
        mask: How lines are undersampled.
        seed: The run's seed, for training masks.
        config: Threads, prefetch, retries.
    """

    def __init__(self, root: str, mask: MaskConfig, *, seed: int, config: StreamConfig | None = None) -> None:
        self._config = config or StreamConfig()
        self._mask = mask
        self._seed = seed
        retry = RetryPolicy(attempts=self._config.attempts)
        self._ranges = RangeReader(timeout_s=self._config.timeout_s, retry=retry)
        self._slices = SliceReader(root, self._ranges)
        pin = torch.cuda.is_available() if self._config.pin_memory is None else self._config.pin_memory
        self._pool = SlotPool(pin=pin)
        num_threads = self._config.threads or default_threads(root)
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="echotrain-fetch")

    def fetch(self, steps: Iterable[StepRows], *, epoch: int | None) -> Iterator[StepData]:
        """Yield the steps in order, reading ahead as far as the configuration allows.

        Args:
            steps: Consumed as the prefetch advances.
            epoch: Of training, which the masks depend on; None in evaluation.

        Raises:
            PayloadError: Bytes are missing or damaged.
            StorageError: The store failed after bounded retries, or refused.
        """
        pending: collections.deque[_Pending] = collections.deque()
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

    def close(self) -> None:
        """End the threads and the connections; reads under way are finished first."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._ranges.close()

    def _has_room(self, pending: collections.deque[_Pending], upcoming: StepRows) -> bool:
        """Tell whether one more step may be begun; one always may, or nothing would ever go on."""
        if not pending:
            return True
        in_use = sum(step.memory_nbytes for step in pending)
        more = sum(row.coils * row.height * row.width * 8 for row in upcoming.rows)
        return len(pending) <= self._config.prefetch_steps and in_use + more <= self._config.prefetch_mb * 1e6

    def _begin(self, step: StepRows, epoch: int | None) -> _Pending:
        samplings = [self._sampling(row, epoch) for row in step.rows]
        batches, reads, memory_nbytes = [], [], 0
        for group in group_by_shape(step.rows):
            rows = [step.rows[i] for i in group]
            weights = [step.weights[i] for i in group]
            batch = empty_batch(rows, [samplings[i] for i in group], weights, self._pool, seed=self._seed, epoch=epoch)
            kspace, target = batch.kspace.numpy(), batch.target.numpy()
            for position, row in enumerate(rows):
                lines = samplings[group[position]].mask
                reads.append(self._threads.submit(self._slices.read, row, lines, kspace[position, : row.coils], target[position]))
            batches.append(batch)
            memory_nbytes += kspace.nbytes + target.nbytes
        return _Pending(batches, reads, step.num_global_samples, memory_nbytes)

    def _sampling(self, row: SliceRow, epoch: int | None) -> LineSampling:
        return line_mask(
            self._mask,
            row.width,
            seed=self._seed,
            dataset=row.dataset,
            volume=row.volume,
            epoch=epoch,
            slice=None if epoch is None else row.slice,
            padding_left=row.padding_left,
            padding_right=row.padding_right,
        )
