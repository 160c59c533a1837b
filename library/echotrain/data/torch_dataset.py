"""A catalog as a ``torch.utils.data.IterableDataset``, for whoever keeps their own training loop.

One line makes it::

    loader = DataLoader(CatalogDataset("s3://lab/knee"), batch_size=1, collate_fn=collate)

It reads as a run of echotrain does, ahead of the loop by threads of its own, so that a DataLoader needs no processes and is refused any.
Every iteration is another epoch, in another order and with other masks; of several ranks, each must be told which (``set_epoch``).
"""

import functools
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from echotrain.config import fingerprint, to_dict
from echotrain.data.catalog.columns import codes_of, taken
from echotrain.data.catalog.leaks import training_warning
from echotrain.data.catalog.rows import Catalog
from echotrain.data.catalog.store import load_catalog
from echotrain.data.config import StreamConfig
from echotrain.data.plan.order import num_steps
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.data_config import DataConfig
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.torch_samples import Names, collate, sample_of
from echotrain.errors import CheckpointError, ConfigError

__all__ = ["CatalogDataset", "CatalogLoader", "LoaderProcessesError", "collate", "settings_of"]

logger = logging.getLogger(__name__)

# Where a catalog lies, and who may be trusted, is of no account for what is read; nor is here what plans rows one after the other.
_OF_NO_ACCOUNT = ("catalog", "trusted", "consecutive")


class LoaderProcessesError(ConfigError):
    """A DataLoader handed the dataset to processes of its own.

    It says the same whatever it is made with: a DataLoader makes a process's error anew, of its traceback.
    """

    def __init__(self, *_: str) -> None:
        super().__init__(
            "num_workers above 0",
            "hands the dataset to processes, which it does not need: it reads ahead by threads of this one",
            "Leave num_workers out; for more reads at a time set StreamConfig(threads=...).",
        )


@dataclass
class _Progress:
    """Where the iterations of a dataset are.

    Attributes:
        epoch: Of the iteration that goes on, or comes next.
        position: Samples of it that are done: in training over all ranks, else of this one.
        is_begun: An iteration of the epoch took place, so that the next one is of another.
        is_named: The epoch was asked for, even if nothing of it is left.
        given: Epoch and position that were named or loaded last. What has been iterated over since has no part in it, so that it is the
            same on every rank that was told the same.
        is_as_given: Nothing was iterated over since.
        turn: Another number with each iteration, and whenever the place is changed from outside.
    """

    epoch: int = 0
    position: int = 0
    is_begun: bool = False
    is_named: bool = False
    given: tuple[int, int] = (0, 0)
    is_as_given: bool = True
    turn: int = 0

    def load(self, epoch: int, position: int) -> None:
        """Have the next iteration begin at a place that was saved."""
        self.given, self.is_as_given = (epoch, position), True
        self.go_to(epoch, position, is_named=False)

    def name(self, epoch: int) -> None:
        """Have the next iteration be of an epoch: of one that was loaded, what was left of it then."""
        self.given, self.is_as_given = self.given if epoch == self.given[0] else (epoch, 0), True
        self.go_to(*self.given, is_named=True)

    def go_to(self, epoch: int, position: int, *, is_named: bool) -> None:
        """Have the next iteration begin there."""
        self.epoch, self.position, self.is_begun, self.is_named, self.turn = epoch, position, False, is_named, self.turn + 1

    def begin(self, total: int) -> None:
        """Begin an iteration: of the next epoch, where this one has been begun or has none of its ``total`` samples left."""
        is_over = self.is_begun or (self.position >= total and not self.is_named)
        self.go_to(self.epoch + is_over, 0 if is_over else self.position, is_named=False)
        self.is_begun, self.is_as_given = True, False


class CatalogDataset(IterableDataset[Any]):
    """Samples of a catalog, one by one: every rank its share, each sample once an epoch over all ranks.

    Samples are ``KspaceSample``, ``WindowSample`` or ``ImageSample`` (``data.torch_samples``), as the kind of ``data`` is. They may be
    kept: memory is used again only once nobody holds it.

    **Ranks** are those of ``torch.distributed``, asked when an iteration begins. All have as many samples; where they do not suffice for
    all, the last of some are fillers, copies of weight 0. A loop that ignores the weight counts them, as with torch's DistributedSampler.
    A loop that shards an IterableDataset itself (Hugging Face Accelerate) is to give ``rank=0, world_size=1``.

    **Epochs**: each iteration is the next one, from 0 on; ``set_epoch`` names one. Outside of training all are alike. In training on
    several ranks every iteration but the first wants ``set_epoch`` on all of them, and is refused without: a rank that has looked at a
    batch by itself would be in another epoch than the others, and together they would have some samples twice and others never.

    **Resuming**: ``state_dict`` is where the loop is, to the sample, as ``torchdata``'s StatefulDataLoader and ``CatalogLoader`` ask for
    it. ``load_state_dict`` takes it up there, in training on any number of ranks, so that the epoch has each sample once.

    Args:
        data: Folder, ``s3://bucket/prefix`` or settings; of a catalog alone, k-space masked by random lines at R = 4.
        split: ``train``: what ``data.train_split`` says, shuffled; ``val``, ``test``: in order, each volume on one rank as a whole.
        seed: Of order and masks in training.
        rank, world_size: Of this process, both or none.
        config: Threads, prefetch, retries. Samples are made in this process, ``where`` and what goes with it are refused.
        catalog: An already loaded catalog, else ``data.catalog`` is loaded.

    Raises:
        CatalogError: There is no such catalog, its rows are of another kind, or the selection is empty.
        ConfigError: Only one of rank and world size is given, there is no such split, or ``config`` says what only a run of echotrain
            follows.
    """

    def __init__(
        self,
        data: DataConfig | str,
        *,
        split: str = "train",
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        config: StreamConfig | None = None,
        catalog: Catalog | None = None,
    ) -> None:
        if (rank is None) != (world_size is None):
            raise ConfigError(f"rank={rank}, world_size={world_size}", "are one without the other", "Give both, or none.")
        if config is not None:
            config.check_own_loop()
        self._data = settings_of(data)
        self._split, self._seed, self._config = split, seed, config
        self._given = None if rank is None or world_size is None else _Place(rank, world_size)
        self.catalog = load_catalog(self._data.catalog, trusted=self._data.trusted) if catalog is None else catalog
        self._opened: tuple[_Place, PlannedStream] | None = None
        self._progress = _Progress()
        alone = self._open(_Place(0, 1))
        rows = alone.held_out(split).indices if self._is_held_out else alone.trained
        alone.close()
        self._rows, self._names = rows, Names(self.catalog.table, rows)
        if alone.shares_reads and not self._is_held_out:
            logger.warning(
                "data.consecutive=true has no effect in a loop of one's own, whose order is one for any number of ranks: every window's "
                "frames are read anew; data.consecutive=false is what happens"
            )
        for warning in self._data.check(taken(self.catalog.table, rows, self._data.checked)):
            logger.warning("%s", warning)
        of_leaks = training_warning(self.catalog)
        if of_leaks and not self._is_held_out:
            logger.warning("%s", of_leaks)

    def __len__(self) -> int:
        """Return this rank's samples of an epoch, fillers included."""
        place = _place(self._given)
        if self._is_held_out:
            return len(self._stream(place).held_out(self._split).indices)
        return num_steps(len(self._stream(place).trained), place.world_size)

    def __iter__(self) -> Iterator[Any]:
        """Return the samples of the next epoch, or of the rest of one that was loaded; it begins when the first is taken.

        Raises:
            ConfigError: In a process of a DataLoader; where there are ranks that nothing is known of; in training on several ranks, where
                ``set_epoch`` was not called since the last iteration; or, from an iterator that is gone on with after another one began.
        """
        if get_worker_info() is not None:
            raise LoaderProcessesError()
        return self._samples()

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration one of this epoch; of one that was loaded, what was left of it, until another one is named."""
        self._progress.name(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the place behind the last sample that was taken, in plain values."""
        now = self._progress
        return {
            "epoch": now.epoch,
            "position": now.position,
            "num_samples": self._num_samples(),
            "world_size": _place(self._given).world_size,
            "samples": self._fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the last sample that was taken when ``state`` was.

        Raises:
            CheckpointError: The state is of other samples, or lies within a split's evaluation by another number of ranks.
        """
        # The ranks of an evaluation have as many as are for each.
        is_as_many = state["num_samples"] == self._num_samples() or self._is_held_out
        if state["samples"] != self._fingerprint or not is_as_many:
            raise CheckpointError(
                f"a place in other samples ({state['samples']}, {state['num_samples']} of them; these are {self._fingerprint})",
                "says nothing here: the catalog's version, the settings, the split or the seed differ",
                "Use those that it was saved with (catalog@3 pins a version), or begin an epoch with set_epoch.",
            )
        world_size = _place(self._given).world_size
        if self._is_held_out and state["position"] and state["world_size"] != world_size:
            raise CheckpointError(
                f"a place in an evaluation by {state['world_size']} ranks", f"is none for {world_size}", "Evaluate from the beginning."
            )
        self._progress.load(state["epoch"], state["position"])

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process opens anew: threads and connections stay here."""
        return {**self.__dict__, "_opened": None}

    def close(self) -> None:
        """End the threads and connections; another iteration opens them anew."""
        if self._opened is not None:
            self._opened[1].close()
        self._opened = None

    @property
    def _is_held_out(self) -> bool:
        return self._split != "train"

    def _samples(self) -> Iterator[Any]:
        place, now = _place(self._given), self._progress
        stream = self._stream(place)
        total, stride = self._num_samples(), 1 if self._is_held_out else place.world_size
        if place.world_size > 1 and not self._is_held_out and not now.is_as_given:
            raise ConfigError(
                f"another iteration on rank {place.rank} of {place.world_size}",
                "is of no epoch that the others are sure to be in, too: each counts its own iterations, a look at one batch among them",
                "Call set_epoch(epoch) on every rank before each iteration, as with torch's DistributedSampler, or load one state.",
            )
        now.begin(total)
        turn, epoch, position = now.turn, now.epoch, now.position
        steps = stream.held_out_samples(self._split, now.position) if self._is_held_out else stream.samples(epoch, now.position)
        while (batch := self._next_batch(steps)) is not None:
            position = now.position = min(position + stride, total)
            sample = sample_of(batch, self._names)
            # What is held here while the loop has the sample would not be used again until the next one is there.
            del batch
            yield sample
            del sample
            if turn != now.turn:
                if position >= total:  # Nothing was to come: the next epoch may be named in the last turn.
                    return
                raise ConfigError(
                    f"an iteration of epoch {epoch}",
                    "was gone on with after another one began, or after set_epoch or load_state_dict",
                    "Iterate over a dataset once at a time, or make two.",
                )
        now.go_to(epoch + 1, 0, is_named=False)

    def _num_samples(self) -> int:
        """Return what a position is counted to."""
        return len(self) if self._is_held_out else len(self._stream(_place(self._given)).trained)

    def _next_batch(self, steps: Iterator[Any]) -> Any:
        """Return the next batch of one, or None; where that fails, whoever iterates again goes on with what is left of the epoch."""
        try:
            step = next(steps, None)
        except Exception:
            self._progress.is_begun = False
            raise
        return None if step is None else step.batches[0]

    def _stream(self, place: "_Place") -> PlannedStream:
        """Return this rank's stream, opened anew where the ranks have changed."""
        if self._opened is None or self._opened[0] != place:
            self.close()
            self._opened = place, self._open(place)
        return self._opened[1]

    def _open(self, place: "_Place") -> PlannedStream:
        own: dict[str, Any] = {"seed": self._seed, "config": self._config, "catalog": self.catalog, "trains": not self._is_held_out}
        return PlannedStream(self._data, batch_size=1, rank=place.rank, world_size=place.world_size, **own)

    @functools.cached_property
    def _fingerprint(self) -> str:
        """What tells the samples and their order from others."""
        settings = {name: value for name, value in to_dict(self._data).items() if name not in _OF_NO_ACCOUNT}
        rows = [self.catalog.version, self.catalog.manifest.get("checksum", 0), _digest(self.catalog.table, self._rows)]
        return fingerprint({"data": settings, "rows": rows, "split": self._split, "seed": self._seed})


def settings_of(data: DataConfig | str) -> DataConfig:
    """Return settings as they are; of a catalog alone, those of line-masked k-space."""
    return LinesData(catalog=data) if isinstance(data, str) else data


def _digest(table: pa.Table, rows: NDArray[np.int64]) -> str:
    """Return a checksum of the ids of some rows, in their order."""
    ids = taken(table, rows, ["dataset", "volume", "slice", "frame"])
    volumes, firsts = codes_of(ids, ["dataset", "volume"])
    names = taken(ids, firsts, ["dataset", "volume"]).to_pylist()
    hashed = hashlib.sha256(json.dumps(names).encode())
    for numbers in (volumes, *(pc.fill_null(ids[name], -1).to_numpy() for name in ("slice", "frame"))):
        hashed.update(numbers.astype("<i8").tobytes())
    return hashed.hexdigest()


class _Place(NamedTuple):
    """This process among others."""

    rank: int
    world_size: int


def _place(given: _Place | None) -> _Place:
    """Return rank and world size.

    Raises:
        ConfigError: A launcher has started several processes that do not know of each other yet: each would read everything.
    """
    if given is not None:
        return given
    if dist.is_available() and dist.is_initialized():
        return _Place(dist.get_rank(), dist.get_world_size())
    announced = os.environ.get("WORLD_SIZE", "1")
    if announced not in ("", "1"):
        raise ConfigError(
            f"WORLD_SIZE={announced} without a process group",
            "would have each of these processes read everything",
            "Call torch.distributed.init_process_group first, or give rank and world_size.",
        )
    return _Place(0, 1)


class CatalogLoader:
    """Batches of a ``CatalogDataset`` that know their place, for Lightning and other loops that ask for ``state_dict``.

    Args:
        dataset: The samples.
        batch_size: Of this rank.

    Raises:
        ConfigError: The batch size is not positive.
    """

    # Lightning looks for both: for ``set_epoch`` in the one, and whether the other shuffles.
    sampler: CatalogDataset
    batch_sampler = None

    def __init__(self, dataset: CatalogDataset, batch_size: int = 1) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}", "must be positive", "Use 1 where matrix sizes differ.")
        self.sampler = dataset
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return num_steps(len(self.sampler), self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """Return the batches of the next epoch, or of the rest of one that was loaded."""
        return iter(DataLoader(self.sampler, batch_size=self.batch_size, collate_fn=collate))

    def state_dict(self) -> dict[str, Any]:
        """Return the place behind the last batch."""
        return {**self.sampler.state_dict(), "batch_size": self.batch_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the last batch that was taken when ``state`` was.

        Raises:
            CheckpointError: As the dataset's; or the place is within an epoch of batches of another size, or on another number of ranks:
                Lightning goes on counting each rank's batches, and would leave the epoch too early.
        """
        now = self.state_dict()
        is_within = 0 < state["position"] < state["num_samples"]
        if is_within and any(state[name] != now[name] for name in ("world_size", "batch_size")):
            was, is_ = (f"{each['world_size']} ranks in batches of {each['batch_size']}" for each in (state, now))
            raise CheckpointError(
                f"a place within an epoch by {was}",
                f"is none for {is_}, as batches of a rank are counted",
                "Go on as it was, or from the end of an epoch that was not cut short; a CatalogDataset itself goes on anywhere.",
            )
        self.sampler.load_state_dict({name: value for name, value in state.items() if name != "batch_size"})
