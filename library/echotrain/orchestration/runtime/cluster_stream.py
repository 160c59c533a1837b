"""The stream whose samples are made on other CPUs of the cluster, by Ray Data, in the order of the plan.

What goes there is positions of rows; what comes back is samples, ready to be trained on, as raw bytes (``data.samples.wire``). A piece is
a task: the same pure function of (sample, seed, epoch) as in the rank, by the same fetcher, so that every number is the same to the bit.
Ray Data keeps the order, makes again what was lost with a process or a node, and has as many tasks at work as the bytes that wait allow.

Tasks, not an actor pool: Ray keeps the processes of tasks, and these keep what they work with, from one part of the plan to the next, where
a pool starts anew (seconds of CPU for each actor). And of every pool Ray says on the console that its arguments might be lost.
"""

import collections
import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import DataContext, ExecutionResources, TaskPoolStrategy
from ray.exceptions import RayError

from echotrain.data.config import StreamConfig
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.data_config import DataConfig
from echotrain.data.samples.wire import packed_nbytes
from echotrain.data.stream import StepData
from echotrain.errors import ResourceError
from echotrain.orchestration.runtime.cluster import DriverEnvironment
from echotrain.orchestration.runtime.sample_maker import Piece, Recipe, make_samples, piece_table, steps_made
from echotrain.orchestration.runtime.streaming import hush_ray_data

__all__ = ["ClusterStream"]

# A task makes several steps: it reads them side by side, bytes that they share once, and costs about ten milliseconds of its own.
_MOST_STEPS = 8
_MOST_BYTES = 64e6
# Ray Data lets a task begin where there is room for twice what it may return.
_COUNTED = 2
# Ray Data takes its input as a whole, and a part of the plan begins when the one before it has ended: that is to be seldom, and soon done.
_PIECES_PER_MAKER = 128
_LEAST_MAKERS = 4
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
        config: Makers, threads, prefetch, retries.

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
        """End the tasks, the threads and the connections."""
        self._stop()
        super().close()

    def _stop(self) -> None:
        making, self._making = self._making, None
        if making is not None:
            making.close()

    def _begin(self, epoch: int, first_step: int) -> "_Making":
        recipe = Recipe(self._data, self._seed, self._config, DriverEnvironment.here())
        tables = _made(self._left_from(epoch, first_step), recipe)
        return _Making(steps_made(tables, self._data.batch, self._fetcher.pool), self._config)

    def _left_from(self, epoch: int, first_step: int) -> Iterator[Piece]:
        """Yield what is left of the run, some steps at a time: first one each, so that the first is soon there."""
        given = 0
        for each in range(epoch, max(self._epochs, epoch + 1)):
            piece, nbytes = Piece(each, []), 0.0
            for step in self.plan(each, first_step if each == epoch else 0):
                piece.steps.append(step)
                nbytes += self._fetcher.memory_nbytes(self.catalog.rows(step.positions))
                if nbytes >= _MOST_BYTES or len(piece.steps) == self._steps_of_piece(given):
                    yield piece
                    given += 1
                    piece, nbytes = Piece(each, []), 0.0
            if piece.steps:
                yield piece
                given += 1

    def _steps_of_piece(self, number: int) -> int:
        """Return the steps of a piece at most: twice as many after every round of all makers."""
        rounds = number // max(_LEAST_MAKERS, self._config.makers)
        return min(_MOST_STEPS, 1 << min(rounds, 8))


def _made(pieces: Iterator[Piece], recipe: Recipe) -> Generator[pa.Table]:
    """Yield what makers return of some pieces, in order; closing this ends the tasks.

    Raises:
        ResourceError: Processes that made samples died again and again.
    """
    hush_ray_data()
    at_once = _PIECES_PER_MAKER * max(_LEAST_MAKERS, recipe.config.makers)
    try:
        while part := [piece_table(piece) for piece in itertools.islice(pieces, at_once)]:
            yield from _executed(part, recipe)
    except RayError as error:
        seen = (str(error).strip().splitlines() or [""])[-1]
        remedy = "Where memory ran out, lower stream.makers or stream.prefetch_mb; see the logs of Ray's nodes."
        raise ResourceError(
            "samples that stream.where=cluster has made", f"did not come ({type(error).__name__}: {seen})", remedy
        ) from error


def _executed(part: Sequence[pa.Table], recipe: Recipe) -> Generator[pa.Table]:
    """Yield what makers return of a part of the plan, which is one execution of Ray Data."""
    config, makers = recipe.config, max(_LEAST_MAKERS, recipe.config.makers)
    context = DataContext.get_current().copy()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ExecutionResources.for_limits(
        cpu=config.makers * config.cpus_per_maker or None, object_store_memory=config.prefetch_mb * 1e6 + makers * _COUNTED * _MOST_BYTES
    )
    with DataContext.current(context):
        dataset = ray.data.from_blocks(list(part)).map_batches(
            make_samples,
            fn_args=(recipe,),
            batch_size=None,
            batch_format="pyarrow",
            compute=TaskPoolStrategy(size=min(config.makers or len(part), len(part))),
            num_cpus=config.cpus_per_maker,
            label_selector={_GROUP_LABEL: config.group} if config.group else None,
        )
        yield from dataset.iterator().iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)


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
