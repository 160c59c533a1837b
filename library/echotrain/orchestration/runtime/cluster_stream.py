"""The stream whose samples are made on other CPUs of the cluster, by actors of Ray Data, in the order of the plan.

What goes to them is positions of rows; what comes back is samples, ready to be trained on, as raw bytes (``data.samples.wire``). A piece is
a task: the same pure function of (sample, seed, epoch) as in the rank, by the same fetcher, so that every number is the same to the bit.
Ray Data keeps the order, makes again what was lost with a node, and follows the load with the number of its actors.
"""

import collections
import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, DataContext, ExecutionResources

from echotrain.data.config import StreamConfig
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.data_config import DataConfig
from echotrain.data.samples.wire import packed_nbytes
from echotrain.data.stream import StepData
from echotrain.orchestration.runtime.cluster import DriverEnvironment
from echotrain.orchestration.runtime.sample_maker import Piece, SampleMaker, piece_table, steps_made
from echotrain.orchestration.runtime.streaming import hush_ray_data

__all__ = ["ClusterStream"]

# A task costs about ten milliseconds besides its work.
_PIECE_BYTES = 32e6
_PIECE_STEPS = 8
# Ray Data takes its input as a whole, and its actors are those of one execution: so it is given as much as it plans in a second.
_PIECES = 2048
# Before a part of the plan ends, the actors of the next one start.
_OPEN_AHEAD = 64
_FAREWELL_S = 15.0
_GROUP_LABEL = "ray.io/node-group"


class ClusterStream(PlannedStream):
    """One rank's ``Stream`` of a catalog, its samples of training made on the cluster.

    Args:
        data: Catalog, selection, and the kind of sample.
        seed: The run's seed.
        batch_size: Samples of a step over all ranks.
        epochs: At which the run ends; nothing is made beyond them.
        rank: Of this worker.
        world_size: Number of workers.
        config: Actors, threads, prefetch, retries.

    Raises:
        CatalogError: There is no such catalog, or the training selection is empty.
    """

    def __init__(
        self,
        data: DataConfig,
        *,
        seed: int,
        batch_size: int,
        epochs: int,
        rank: int = 0,
        world_size: int = 1,
        config: StreamConfig | None = None,
    ) -> None:
        super().__init__(data, seed=seed, batch_size=batch_size, rank=rank, world_size=world_size, config=config)
        self._config = config or StreamConfig()
        self._epochs = epochs
        self._making: _Making | None = None
        self._next = (0, 0)

    def steps(self, epoch: int, first_step: int = 0) -> Iterator[StepData[Any]]:
        """Yield the epoch's steps from ``first_step`` on; what follows them is made meanwhile, over the ends of epochs."""
        if self._making is None or self._next != (epoch, first_step):
            self._stop()
            self._making = self._begin(epoch, first_step)
        for step in range(first_step, self.num_steps(epoch)):
            made = self._making.take()
            self._next = (epoch, step + 1) if step + 1 < self.num_steps(epoch) else (epoch + 1, 0)
            yield made

    def close(self) -> None:
        """End the actors, the threads and the connections."""
        self._stop()
        super().close()

    def _stop(self) -> None:
        making, self._making = self._making, None
        if making is not None:
            making.close()

    def _begin(self, epoch: int, first_step: int) -> "_Making":
        tables = _Execution(self._left_from(epoch, first_step), self._data, self._seed, self._config).tables()
        return _Making(steps_made(tables, self._data.batch, self._fetcher.pool), self._config)

    def _left_from(self, epoch: int, first_step: int) -> Iterator[Piece]:
        """Yield what is left of the run, a few steps at a time."""
        for number in range(epoch, max(self._epochs, epoch + 1)):
            piece, nbytes = Piece(number, []), 0.0
            for step in self.plan(number, first_step if number == epoch else 0):
                piece.steps.append(step)
                nbytes += self._fetcher.memory_nbytes(self.catalog.rows(step.positions))
                if nbytes >= _PIECE_BYTES or len(piece.steps) == _PIECE_STEPS:
                    yield piece
                    piece, nbytes = Piece(number, []), 0.0
            if piece.steps:
                yield piece


class _Execution:
    """Has a plan made by Ray Data, as much of it at a time as Ray Data is given at once.

    Args:
        pieces: What is to be made.
        data: Catalog and kind of sample.
        seed: The run's.
        config: Actors, prefetch.
    """

    def __init__(self, pieces: Iterator[Piece], data: DataConfig, seed: int, config: StreamConfig) -> None:
        self._pieces, self._config = pieces, config
        self._arguments = (data, seed, config, DriverEnvironment.here())
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="echotrain-next-part")

    def tables(self) -> Generator[pa.Table]:
        """Yield what makers return, in order; closing this ends the actors."""
        part = self._opened()
        try:
            while part is not None:
                following = None
                for number, table in enumerate(part.tables):
                    if number == max(0, part.num_pieces - _OPEN_AHEAD):
                        following = self._opener.submit(self._opened)
                    yield table
                part = following.result() if following is not None else None
        finally:
            self._opener.shutdown(wait=True)
            for each in (part, following.result() if following is not None else None):
                if each is not None:
                    each.tables.close()

    def _opened(self) -> "_Part | None":
        """Have the next part begun, up to its first table; None where nothing is left."""
        pieces = [piece_table(piece) for piece in itertools.islice(self._pieces, _PIECES)]
        if not pieces:
            return None
        tables = self._made(pieces)
        return _Part(_preceded(next(tables), tables), len(pieces))

    def _made(self, pieces: Sequence[pa.Table]) -> Generator[pa.Table]:
        hush_ray_data()
        config = self._config
        context = DataContext.get_current().copy()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        # Of two parts, one may begin while the other ends.
        limit = config.prefetch_mb * 1e6 / 2
        context.execution_options.resource_limits = ExecutionResources.for_limits(
            cpu=config.max_actors * config.cpus_per_actor, object_store_memory=limit
        )
        with DataContext.current(context):
            dataset = ray.data.from_blocks(list(pieces)).map_batches(
                SampleMaker,
                fn_constructor_args=self._arguments,
                batch_size=None,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(min_size=config.min_actors, max_size=config.max_actors),
                num_cpus=config.cpus_per_actor,
                label_selector={_GROUP_LABEL: config.group} if config.group else None,
            )
            yield from dataset.iterator().iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)


class _Part(NamedTuple):
    tables: Generator[pa.Table]
    num_pieces: int


def _preceded(first: pa.Table, rest: Generator[pa.Table]) -> Generator[pa.Table]:
    """Yield a table, and those that follow it; closing this closes them."""
    try:
        yield first
        yield from rest
    finally:
        rest.close()


class _Making:
    """Steps that are taken from the object store by a thread, ahead of their use.

    Args:
        steps: In order; the thread closes them.
        config: How far ahead.
    """

    def __init__(self, steps: Generator[StepData[Any]], config: StreamConfig) -> None:
        self._steps, self._config = steps, config
        self._waiting: collections.deque[StepData[Any]] = collections.deque()
        self._error: BaseException | None = None
        self._is_over = False
        self._changed = threading.Condition()
        # It waits for Ray as long as Ray takes, and no process is to wait for it.
        self._thread = threading.Thread(target=self._run, name="echotrain-made-steps", daemon=True)
        self._thread.start()

    def take(self) -> StepData[Any]:
        """Return the next step, and how long it was waited for.

        Raises:
            EchotrainError: As a maker raised it.
        """
        started = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._error is not None)
            if not self._waiting and self._error is not None:
                raise self._error
            step = self._waiting.popleft()
            self._changed.notify_all()
        return dataclasses.replace(step, wait_s=time.perf_counter() - started)

    def close(self) -> None:
        """End the making."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self._thread.join(_FAREWELL_S)

    def _run(self) -> None:
        try:
            with contextlib.closing(self._steps):
                for step in self._steps:
                    with self._changed:
                        self._waiting.append(step)
                        self._changed.notify_all()
                        del step
                        self._changed.wait_for(lambda: self._is_over or self._has_room())
                        if self._is_over:
                            return
            error: BaseException = AssertionError("more steps were taken than were planned")
        except BaseException as raised:
            error = raised
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def _has_room(self) -> bool:
        in_use = sum(packed_nbytes(batch) for step in self._waiting for batch in step.batches)
        return len(self._waiting) < self._config.prefetch_steps and in_use < self._config.prefetch_mb * 1e6
