"""A stream of planned steps out of a catalog, without Ray: the plan, the selection and the fetch put together."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from echotrain.data.catalog.columns import codes_of, taken
from echotrain.data.catalog.examples import choose_examples
from echotrain.data.catalog.identity import SampleId
from echotrain.data.catalog.rows import SPLITS, Catalog
from echotrain.data.catalog.selection import select
from echotrain.data.catalog.store import load_catalog
from echotrain.data.catalog.subsets import Subset, load_subset
from echotrain.data.config import StreamConfig
from echotrain.data.fetch import Fetcher
from echotrain.data.plan.balance import balance_weights
from echotrain.data.plan.consecutive import consecutive_order
from echotrain.data.plan.order import Indices, RankRows, epoch_order, num_global_samples, num_steps, rank_rows
from echotrain.data.plan.volumes import volume_rows
from echotrain.data.samples.data_config import DataConfig
from echotrain.data.samples.sample_format import StepRows
from echotrain.data.stream import StepData
from echotrain.errors import ConfigError

__all__ = ["PlannedStream", "StepPlan", "cut"]

Cut = Callable[[pa.Table, int], Iterator[pa.Table]]

_POSITION, _WEIGHT = "position", "weight"
_ROWS_PER_PIECE = 64


class StepPlan(NamedTuple):
    """One rank's part of one step, before anything of it is read.

    Attributes:
        positions: Rows of the catalog.
        weights: 1 for a row that counts, 0 for a filler.
        num_global_samples: Rows that count over all ranks.
    """

    positions: NDArray[np.int64]
    weights: NDArray[np.float32]
    num_global_samples: int


def cut(table: pa.Table, num_rows: int) -> Iterator[pa.Table]:
    """Yield a table in pieces of ``num_rows`` rows, in order; the last may be shorter."""
    for start in range(0, table.num_rows, num_rows):
        yield table.slice(start, num_rows)


class PlannedStream:
    """One rank's ``Stream`` of a catalog.

    Args:
        data: Catalog, selection, and the kind of sample.
        seed: The run's seed.
        batch_size: Samples of a step over all ranks.
        rank: Of this process.
        world_size: Number of ranks.
        config: Threads, prefetch, retries.
        pieces: Carries the plan here, some steps at a time: positions of rows and their weights.
        catalog: An already loaded catalog, else ``data.catalog`` is loaded.
        trains: False where only held-out samples are wanted, so that there may be none to train on.

    Raises:
        CatalogError: There is no such catalog, or the training selection is empty.
    """

    def __init__(
        self,
        data: DataConfig,
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        config: StreamConfig | None = None,
        pieces: Cut = cut,
        catalog: Catalog | None = None,
        trains: bool = True,
    ) -> None:
        if batch_size < 1 or world_size < 1 or not 0 <= rank < world_size:
            raise ConfigError(
                f"batch_size={batch_size}, rank={rank}, world_size={world_size}",
                "must be positive, and the rank below the world size",
                "Check batch_size and workers.",
            )
        self._data, self._seed = data, seed
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._pieces = pieces
        self.catalog = load_catalog(data.catalog, trusted=data.trusted) if catalog is None else catalog
        subset = load_subset(self.catalog.root, data.subset) if data.subset else None
        self._train = self._select(data.train_split, data.fraction, subset) if trains else np.empty(0, np.int64)
        self._weights = balance_weights(self.catalog.table, self._train, data.balance)
        self._groups = data.together(self.catalog.table, self._train)
        self._fetcher: Fetcher[Any] = Fetcher(self.catalog, data.make_format(seed=seed), config=config)
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="echotrain-next-epoch")
        self._ahead: tuple[int, Future[Iterator[StepRows]]] | None = None

    def num_steps(self, epoch: int) -> int:
        """Return the steps of an epoch, the same on every rank."""
        return num_steps(len(self._train), self._batch_size)

    def steps(self, epoch: int, first_step: int = 0) -> Iterator[StepData[Any]]:
        """Yield the epoch's steps from ``first_step`` on; the same ones, in the same order, every time."""
        ahead, self._ahead = self._ahead, None
        is_ready = ahead is not None and (epoch, first_step) == (ahead[0], 0)
        rows = ahead[1].result() if ahead is not None and is_ready else self._epoch_rows(epoch, first_step)
        yield from self._fetcher.fetch(self._then_open_next(rows, epoch), epoch=epoch)

    def plan(self, epoch: int, first_step: int = 0) -> Iterator[StepPlan]:
        """Yield this rank's part of the epoch's steps from ``first_step`` on, of which nothing is read."""
        planned, per_step, samples = self._planned(epoch, first_step)
        for number, count in enumerate(samples):
            part = slice(number * per_step, (number + 1) * per_step)
            yield StepPlan(planned.indices[part], planned.weights[part], count)

    @property
    def shares_reads(self) -> bool:
        """Whether ``steps`` has rows that share bytes come one after the other; ``samples`` never has."""
        return self._groups is not None

    @property
    def trained(self) -> Indices:
        """The rows that are trained on, as many as an epoch has samples over all ranks."""
        return self._train

    def samples(self, epoch: int, first: int = 0) -> Iterator[StepData[Any]]:
        """Yield this rank's samples of an epoch, a step each, for whoever makes batches of them.

        Their order is one over all ranks, whatever their number, and rank ``r`` of ``W`` takes every ``W``-th: so a place in it is all that
        a resume needs. For the same reason rows that share bytes do not come one after the other. Where the last ones do not suffice for
        all ranks, the others get a filler.

        Args:
            epoch: Each has its own order and masks.
            first: How many the ranks have had together.
        """
        order = epoch_order(len(self._train), self._seed, epoch, self._weights)[first:]
        mine = rank_rows(order, 0, batch_size=self._world_size, rank=self._rank, world_size=self._world_size)
        yield from self._fetch_each(RankRows(self._train[mine.indices], mine.weights), epoch)

    def held_out(self, split: str = "val") -> RankRows:
        """Return this rank's rows of a split by whole volumes, fillers at the end: every rank has as many.

        Raises:
            ConfigError: There is no such split, or it has fewer volumes than there are ranks.
        """
        rows = self._held_out(_checked(split))
        volumes, _ = codes_of(taken(self.catalog.table, rows, ["dataset", "volume"]), ["dataset", "volume"])
        mine = volume_rows(volumes, rank=self._rank, world_size=self._world_size)
        return RankRows(rows[mine.indices], mine.weights)

    def held_out_samples(self, split: str = "val", first: int = 0) -> Iterator[StepData[Any]]:
        """Yield the rows of ``held_out`` from the ``first`` of this rank on, a step each, with masks of the volume alone."""
        mine = self.held_out(split)
        yield from self._fetch_each(RankRows(mine.indices[first:], mine.weights[first:]), None)

    def evaluation(self, split: str = "val") -> Iterator[Any]:
        """Yield this rank's share of a split: each slice once over all ranks, no fillers, masks of the volume alone.

        Of ``val`` it is the share that ``data.val_follows_fraction`` leaves.
        """
        mine = self._share(self._held_out(_checked(split)))
        planned = RankRows(mine, np.ones(len(mine), np.float32))
        per_step = max(1, self._batch_size // self._world_size)
        samples = (min(per_step, len(mine) - start) for start in range(0, len(mine), per_step))
        for step in self._fetcher.fetch(self._steps_of(planned, per_step, samples), epoch=None):
            yield from step.batches

    def examples(self, count: int, split: str = "val") -> list[SampleId]:
        """Return the slices of a split that are shown as pictures, the same on every rank and for any number of them."""
        return choose_examples(self.catalog.table, count, self._held_out(split)) if count else []

    def close(self) -> None:
        """End the threads and connections."""
        self._ahead = None
        self._opener.shutdown(wait=True, cancel_futures=True)
        self._fetcher.close()

    def _fetch_each(self, planned: RankRows, epoch: int | None) -> Iterator[StepData[Any]]:
        return self._fetcher.fetch(self._steps_of(planned, 1, itertools.repeat(1)), epoch=epoch)

    def _epoch_rows(self, epoch: int, first_step: int) -> Iterator[StepRows]:
        """Plan an epoch and yield this rank's steps of it, still as rows."""
        return self._steps_of(*self._planned(epoch, first_step))

    def _planned(self, epoch: int, first_step: int) -> tuple[RankRows, int, Iterator[int]]:
        """Return this rank's rows of the catalog in an epoch, how many of them a step has, and the samples of each step over all ranks."""
        order, place = self._order(epoch), {"batch_size": self._batch_size, "rank": self._rank, "world_size": self._world_size}
        mine = rank_rows(order, first_step, **place, as_neighbours=self._groups is not None)
        per_step = max(1, len(range(self._rank, self._batch_size, self._world_size)))
        samples = (num_global_samples(len(order), self._batch_size, step) for step in range(first_step, self.num_steps(epoch)))
        return RankRows(self._train[mine.indices], mine.weights), per_step, samples

    def _then_open_next(self, rows: Iterator[StepRows], epoch: int) -> Iterator[StepRows]:
        """Yield an epoch's rows and, when the last has been taken, have the next epoch's first ones made ready meanwhile.

        Planning and Ray Data's start take a tenth of a second, which a step would otherwise wait for. No payload is read ahead.
        """
        yield from rows
        self._ahead = (epoch + 1, self._opener.submit(self._opened, epoch + 1))

    def _opened(self, epoch: int) -> Iterator[StepRows]:
        rows = self._epoch_rows(epoch, 0)
        first = next(rows, None)
        return rows if first is None else itertools.chain([first], rows)

    def _order(self, epoch: int) -> Indices:
        if self._groups is None:
            return epoch_order(len(self._train), self._seed, epoch, self._weights)
        return consecutive_order(self._groups, self._seed, epoch, batch_size=self._batch_size, weights=self._weights)

    def _share(self, rows: np.ndarray) -> np.ndarray:
        """Return what this rank evaluates of some rows: every so many, or neighbours where these are read together."""
        groups = self._data.together(self.catalog.table, rows)
        if groups is None:
            return rows[self._rank :: self._world_size]
        return np.array_split(rows[groups.rows], self._world_size)[self._rank]

    def _held_out(self, split: str) -> np.ndarray:
        """Return the rows of a split to evaluate on; only the validation split is ever cut, never the test split."""
        is_cut = split == "val" and self._data.val_follows_fraction
        return self._select((split,), self._data.fraction if is_cut else 1.0)

    def _select(self, splits: tuple[str, ...], fraction: float = 1.0, subset: Subset | None = None) -> np.ndarray:
        data = self._data
        return select(self.catalog.table, splits=splits, where=data.where, subset=subset, fraction=fraction, payload=data.payload)

    def _steps_of(self, planned: RankRows, per_step: int, samples: Iterator[int]) -> Iterator[StepRows]:
        """Carry the plan through ``pieces`` and cut it into steps; its rows are looked up as they are needed."""
        if not len(planned.indices):
            return
        plan = pa.table({_POSITION: planned.indices, _WEIGHT: planned.weights})
        # Handing over a piece costs about the same for one row as for fifty.
        for piece in self._pieces(plan, per_step * max(1, _ROWS_PER_PIECE // per_step)):
            rows, weights = self.catalog.rows(piece[_POSITION].to_numpy()), piece[_WEIGHT].to_pylist()
            for start in range(0, len(rows), per_step):
                yield StepRows(rows[start : start + per_step], weights[start : start + per_step], next(samples))


def _checked(split: str) -> str:
    if split not in SPLITS:
        raise ConfigError(f"split={split!r}", f"must be one of {', '.join(SPLITS)}", "Name one of these.")
    return split
