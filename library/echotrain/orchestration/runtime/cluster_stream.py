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
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import ray.data
from ray.data import DataContext, ExecutionResources, TaskPoolStrategy
from ray.exceptions import RayError

from echotrain.data.catalog.identity import SampleId
from echotrain.data.config import StreamConfig
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.data_config import DataConfig
from echotrain.data.samples.wire import packed_nbytes
from echotrain.data.stream import StepData
from echotrain.errors import TrainingError
from echotrain.orchestration.runtime.capacity import GROUP_LABEL, Shape
from echotrain.orchestration.runtime.cluster import DriverEnvironment
from echotrain.orchestration.runtime.error_text import lost
from echotrain.orchestration.runtime.notes import Attempts, Notes
from echotrain.orchestration.runtime.sample_maker import Piece, Recipe, make_samples, piece_table, steps_made
from echotrain.orchestration.runtime.streaming import hush_ray_data
from echotrain.orchestration.runtime.waiting import RoomWatch

__all__ = ["ClusterStream"]

logger = logging.getLogger(__name__)

# A task makes several steps: it reads them side by side, bytes that they share once, and costs about ten milliseconds of its own.
_MOST_STEPS = 8
_MOST_BYTES = 64e6
# Ray Data lets a task begin where there is room for twice what it may return.
_COUNTED = 2
# Ray Data takes its input as a whole, and a part of the plan begins when the one before it has ended: that is to be seldom, and the first
# part, which nothing is made before, soon planned.
_PIECES_PER_MAKER = 128
_FIRST_PIECES_PER_MAKER = 16
# Of a part over the one before it.
_GROWTH = 2
_MOST_PIECES = 4096
_LEAST_MAKERS = 4
# Of a piece whose processes die.
_MOST_ATTEMPTS = 5
# Of the object store, which others use as well.
_SHARE_OF_STORE = 0.5
_LOOK_EVERY_S = 1.0
_TELL_EVERY_S = 60.0
_FAREWELL_S = 15.0


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
        notes: Of the job, by default some of its own.

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
        notes: Notes | None = None,
    ) -> None:
        super().__init__(data, seed=seed, batch_size=batch_size, rank=rank, world_size=world_size, config=config)
        self._config = config or StreamConfig()
        self._notes = notes
        self._attempts: Attempts | None = None
        self._epochs = epochs
        self._making: _Making | None = None
        self._next = (0, 0)

    def steps(self, epoch: int, first_step: int = 0) -> Iterator[StepData[Any]]:
        """Yield the epoch's steps from ``first_step`` on; what follows them is made meanwhile, over the ends of epochs."""
        if self._making is None or self._next != (epoch, first_step):
            self._stop()
            self._making = self._begin(epoch, first_step)
        for step in range(first_step, self.num_steps(epoch)):
            made = self._making.take(_SampleWait(self._config, self._tell))
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
        if self._attempts is not None:
            self._attempts.notes.forget(self._attempts.key)

    def _begin(self, epoch: int, first_step: int) -> "_Making":
        self._next = (epoch, first_step)
        self._notes = self._notes or Notes()
        self._attempts = Attempts(self._notes, f"pieces/{uuid.uuid4().hex}", _MOST_ATTEMPTS)
        recipe = Recipe(self._data, self._seed, self._config, DriverEnvironment.here(), self.catalog.checksum, self._attempts)
        planned: _Planned = collections.deque()
        tables = _made(_noted(self._left_from(epoch, first_step), planned), recipe, share=_SHARE_OF_STORE / self._world_size)
        return _Making(_as_planned(steps_made(tables, self._data.batch, self._fetcher.pool), planned), self._config)

    def _tell(self, text: str) -> None:
        if self._rank == 0:
            logger.warning("%s", text)

    def _left_from(self, epoch: int, first_step: int) -> Iterator[Piece]:
        """Yield what is left of the run, some steps at a time: first one each, so that the first is soon there."""
        given = 0
        for each in range(epoch, max(self._epochs, epoch + 1)):
            piece, nbytes = Piece(given, each, [], []), 0.0
            for step in self.plan(each, first_step if each == epoch else 0):
                rows = self.catalog.rows(step.positions)
                piece.steps.append(step)
                piece.ids.append(tuple(row.id for row in rows))
                nbytes += self._fetcher.memory_nbytes(rows)
                if nbytes >= _MOST_BYTES or len(piece.steps) == self._steps_of_piece(given):
                    yield piece
                    given += 1
                    piece, nbytes = Piece(given, each, [], []), 0.0
            if piece.steps:
                yield piece
                given += 1

    def _steps_of_piece(self, number: int) -> int:
        """Return the steps of a piece at most: twice as many after every round of all makers."""
        rounds = number // max(_LEAST_MAKERS, self._config.makers)
        return min(_MOST_STEPS, 1 << min(rounds, 8))


# Ids of each step's samples, and how many samples it has over all ranks.
_Planned = collections.deque[tuple[tuple[SampleId, ...], int]]


def _noted(pieces: Iterator[Piece], planned: _Planned) -> Iterator[Piece]:
    """Yield pieces, and leave word of their steps."""
    for piece in pieces:
        planned.extend((ids, step.num_global_samples) for ids, step in zip(piece.ids, piece.steps, strict=True))
        yield piece


def _as_planned(steps: Generator[StepData[Any]], planned: _Planned) -> Generator[StepData[Any]]:
    """Yield steps that were made, each of which is the one that the plan has in its place."""
    with contextlib.closing(steps):
        for step in steps:
            ids, num_global_samples = planned.popleft()
            wanted = collections.Counter(ids)
            found = collections.Counter(sample for batch in step.batches for sample in batch.ids)
            if found != wanted or step.num_global_samples != num_global_samples:
                remedy = "Report this with the run's config.json; with stream.where=rank it trains on what is planned."
                raise TrainingError(f"samples {sorted(found - wanted)}", f"came in the place of {sorted(wanted - found)}", remedy)
            yield step


def _tables(pieces: Iterator[Piece], number: int) -> list[pa.Table]:
    return [piece_table(piece) for piece in itertools.islice(pieces, number)]


def _made(pieces: Iterator[Piece], recipe: Recipe, *, share: float) -> Generator[pa.Table]:
    """Yield what makers return of some pieces, in order; closing this ends the tasks.

    Args:
        pieces: Are planned, a part at a time, piece by piece while the part before is made: all at once would hold up what takes the steps.
        recipe: By which they are made.
        share: Of the cluster's object store, at most.

    Raises:
        ResourceError: Processes that made samples died again and again.
    """
    hush_ray_data()
    makers = max(_LEAST_MAKERS, recipe.config.makers)
    most = min(_MOST_PIECES, _PIECES_PER_MAKER * makers)
    part = _tables(pieces, min(most, _FIRST_PIECES_PER_MAKER * makers))
    try:
        while part:
            ahead: list[pa.Table] = []
            for table in _executed(part, recipe, share):
                if len(ahead) < most:
                    ahead += _tables(pieces, _GROWTH)
                yield table
            part = ahead
    except RayError as error:
        remedy = "Where memory ran out, lower stream.makers or stream.prefetch_mb"
        raise lost("samples that are made with stream.where=cluster", error, remedy) from error


def _executed(part: Sequence[pa.Table], recipe: Recipe, share: float) -> Generator[pa.Table]:
    """Yield what makers return of a part of the plan, which is one execution of Ray Data."""
    config = recipe.config
    context = DataContext.get_current().copy()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ExecutionResources.for_limits(
        cpu=config.makers * config.cpus_per_maker or None,
        object_store_memory=_store_limit(config, share * ray.cluster_resources().get("object_store_memory", math.inf)),
    )
    with DataContext.current(context):
        dataset = ray.data.from_blocks(list(part)).map_batches(
            make_samples,
            fn_args=(recipe,),
            batch_size=None,
            batch_format="pyarrow",
            compute=TaskPoolStrategy(size=min(config.makers or len(part), len(part))),
            num_cpus=config.cpus_per_maker,
            label_selector={GROUP_LABEL: config.group} if config.group else None,
        )
        yield from dataset.iterator().iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)


def _store_limit(config: StreamConfig, most: float) -> float:
    """Return how many bytes of a rank's samples lie in the object store at most: a piece of every maker, and as much as the rank holds."""
    makers = max(_LEAST_MAKERS, config.makers)
    return min(config.prefetch_mb * 1e6 + makers * _COUNTED * _MOST_BYTES, max(most, _COUNTED * _MOST_BYTES))


class _SampleWait:
    """Looks after samples that do not come: told to the log, and ended where no node is there that could make them, and none comes."""

    def __init__(self, config: StreamConfig, tell: Callable[[str], None]) -> None:
        shape = Shape(cpus=config.cpus_per_maker)
        self._room = RoomWatch(shape, tell, is_starting_told=False, group=config.group, remedy="set stream.where=rank")
        self._tell = tell
        self._told_s = 0.0

    def __call__(self, waited_s: float) -> None:
        self._room.look(is_idle=True)
        if waited_s >= self._told_s + _TELL_EVERY_S:
            self._told_s = waited_s
            self._tell(f"no sample has come for {waited_s:.0f} s: those that make them (stream.where=cluster) are slow, or get no CPU")


class _Making:
    """Steps that are taken from the object store by a thread, ahead of their use.

    Args:
        steps: In order; the thread closes them.
        config: How far ahead.
    """

    def __init__(self, steps: Generator[StepData[Any]], config: StreamConfig) -> None:
        self._steps, self._config = steps, config
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._largest = 0
        self._error: BaseException | None = None
        self._is_over = False
        self._changed = threading.Condition()
        # It waits for Ray as long as Ray takes, and no process is to wait for it.
        self._thread = threading.Thread(target=self._run, name="echotrain-made-steps", daemon=True)
        self._thread.start()

    def take(self, watch: Callable[[float], None]) -> StepData[Any]:
        """Return the next step, and how long it was waited for.

        Args:
            watch: Told now and then how many seconds that has been.

        Raises:
            EchotrainError: As a maker, or ``watch``, raised it.
        """
        started = time.perf_counter()
        while not self._has_come(_LOOK_EVERY_S):
            watch(time.perf_counter() - started)
        with self._changed:
            if not self._waiting and self._error is not None:
                raise self._error
            step, _ = self._waiting.popleft()
            self._changed.notify_all()
        return dataclasses.replace(step, wait_s=time.perf_counter() - started)

    def _has_come(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._waiting) or self._error is not None, timeout_s)

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
                    nbytes = sum(packed_nbytes(batch) for batch in step.batches)
                    with self._changed:
                        self._waiting.append(_Waiting(step, nbytes))
                        self._largest = max(self._largest, nbytes)
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
        """Whether a step more may wait, of which it is not known how large it is until it is here: as large as any so far."""
        in_use = sum(waiting.nbytes for waiting in self._waiting)
        is_within = len(self._waiting) < self._config.prefetch_steps and in_use + self._largest <= self._config.prefetch_mb * 1e6
        return not self._waiting or is_within


class _Waiting(NamedTuple):
    step: StepData[Any]
    nbytes: int
