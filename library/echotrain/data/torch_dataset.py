"""A catalog as a ``torch.utils.data.IterableDataset``, for whoever keeps their own training loop.

One line makes it::

    loader = DataLoader(CatalogDataset("s3://lab/knee"), batch_size=1, collate_fn=collate)

It reads as a run of echotrain does, ahead of the loop by threads of its own, so that a DataLoader needs no processes and is refused any.
Every iteration is another epoch, in another order and with other masks.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch.distributed as dist
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from echotrain.config import fingerprint, to_dict
from echotrain.data.catalog.columns import taken
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

__all__ = ["CatalogDataset", "CatalogLoader", "LoaderProcessesError", "collate"]

logger = logging.getLogger(__name__)

# Where a catalog lies, and who may be trusted, is of no account for what is read.
_OF_PLACE = ("catalog", "trusted")


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
        turn: Another number with each iteration, and whenever the place is changed from outside.
    """

    epoch: int = 0
    position: int = 0
    is_begun: bool = False
    is_named: bool = False
    turn: int = 0

    def go_to(self, epoch: int, position: int, *, is_named: bool) -> None:
        """Have the next iteration begin there."""
        self.epoch, self.position, self.is_begun, self.is_named, self.turn = epoch, position, False, is_named, self.turn + 1

    def begin(self, total: int) -> None:
        """Begin an iteration: of the next epoch, where this one has been begun or has none of its ``total`` samples left."""
        is_over = self.is_begun or (self.position >= total and not self.is_named)
        self.go_to(self.epoch + is_over, 0 if is_over else self.position, is_named=False)
        self.is_begun = True


class CatalogDataset(IterableDataset[Any]):
    """Samples of a catalog, one by one: every rank its share, each sample once an epoch over all ranks.

    Samples are ``KspaceSample``, ``WindowSample`` or ``ImageSample`` (``data.torch_samples``), as the kind of ``data`` is. They may be
    kept: memory is used again only once nobody holds it.

    **Ranks** are those of ``torch.distributed``, asked when an iteration begins. All have as many samples; where they do not suffice for
    all, the last of some are fillers, copies of weight 0. A loop that ignores the weight counts them, as with torch's DistributedSampler.

    **Epochs**: each iteration is the next one, from 0 on; ``set_epoch`` names one. Outside of training all are alike.

    **Resuming**: ``state_dict`` is where the loop is, to the sample, as ``torchdata``'s StatefulDataLoader and ``CatalogLoader`` ask for
    it. ``load_state_dict`` takes it up there, in training on any number of ranks, so that the epoch has each sample once.

    Args:
        data: Folder, ``s3://bucket/prefix`` or settings; of a catalog alone, k-space masked by random lines at R = 4.
        split: ``train``: what ``data.train_split`` says, shuffled; ``val``, ``test``: in order, each volume on one rank as a whole.
        seed: Of order and masks in training.
        rank, world_size: Of this process, both or none.
        config: Threads, prefetch, retries.
        catalog: An already loaded catalog, else ``data.catalog`` is loaded.

    Raises:
        CatalogError: There is no such catalog, its rows are of another kind, or the selection is empty.
        ConfigError: Only one of rank and world size is given, or there is no such split.
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
        self._data = LinesData(catalog=data) if isinstance(data, str) else data
        self._split, self._seed, self._config = split, seed, config
        self._given = None if rank is None or world_size is None else _Place(rank, world_size)
        self.catalog = load_catalog(self._data.catalog, trusted=self._data.trusted) if catalog is None else catalog
        self._opened: tuple[_Place, PlannedStream] | None = None
        self._progress = _Progress()
        alone = self._open(_Place(0, 1))
        rows = alone.held_out(split).indices if self._is_held_out else alone.trained
        alone.close()
        self._names = Names(self.catalog.table, rows)
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
            ConfigError: In a process of a DataLoader; where there are ranks that nothing is known of; or, from an iterator that is gone on
                with after another one began.
        """
        if get_worker_info() is not None:
            raise LoaderProcessesError()
        return self._samples()

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration one of this epoch; of one that was loaded and not begun yet, what is left of it."""
        now = self._progress
        is_loaded = epoch == now.epoch and not now.is_begun
        now.go_to(epoch, now.position if is_loaded else 0, is_named=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the place behind the last sample that was taken, in plain values."""
        now = self._progress
        return {
            "epoch": now.epoch,
            "position": now.position,
            "num_samples": self._num_samples(),
            "world_size": _place(self._given).world_size,
            "samples": self._fingerprint(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the last sample that was taken when ``state`` was.

        Raises:
            CheckpointError: The state is of other samples, or lies within a split's evaluation by another number of ranks.
        """
        if state["samples"] != self._fingerprint():
            raise CheckpointError(
                f"a place in other samples ({state['samples']}, these are {self._fingerprint()})",
                "says nothing here: the catalog's version, the settings, the split or the seed differ",
                "Use those that it was saved with (catalog@3 pins a version), or begin an epoch with set_epoch.",
            )
        world_size = _place(self._given).world_size
        if self._is_held_out and state["position"] and state["world_size"] != world_size:
            raise CheckpointError(
                f"a place in an evaluation by {state['world_size']} ranks", f"is none for {world_size}", "Evaluate from the beginning."
            )
        self._progress.go_to(state["epoch"], state["position"], is_named=False)

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
        now.begin(total)
        turn, epoch = now.turn, now.epoch
        steps = stream.held_out_samples(self._split, now.position) if self._is_held_out else stream.samples(epoch, now.position)
        while (batch := self._next_batch(steps)) is not None:
            now.position = min(now.position + stride, total)
            sample = sample_of(batch, self._names)
            # What is held here while the loop has the sample would not be used again until the next one is there.
            del batch
            yield sample
            del sample
            if turn != now.turn:
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

    def _fingerprint(self) -> str:
        """Return what tells the samples and their order from others."""
        settings = {name: value for name, value in to_dict(self._data).items() if name not in _OF_PLACE}
        rows = [self.catalog.version, self.catalog.manifest.get("checksum", 0), len(self.catalog)]
        return fingerprint({"data": settings, "rows": rows, "split": self._split, "seed": self._seed})


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
                "Go on as it was, or from the end of an epoch; a CatalogDataset itself goes on anywhere.",
            )
        self.sampler.load_state_dict({name: value for name, value in state.items() if name != "batch_size"})
