"""What a run learns from: which rows of a catalog, and what kind of sample they become."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from echotrain.config import to_dict
from echotrain.data.catalog.payload import Payload
from echotrain.data.catalog.rows import SliceRow
from echotrain.data.catalog.selection import Where
from echotrain.data.plan.balance import BalanceConfig
from echotrain.data.plan.consecutive import Groups
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.sample_format import MakeFormat
from echotrain.errors import ConfigError, LeakageError

__all__ = ["DataConfig"]

_TRAINABLE = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class DataConfig(abc.ABC):
    """Which slices of a catalog a run sees, and how often. Part of a run's science.

    Every kind of sample adds what only it needs, and a field ``kind`` that tells it from the others.

    Attributes:
        catalog: Where ``prepare`` wrote: a folder or ``s3://bucket/prefix``; ``…@3`` pins version 3, else the newest counts.
        train_split: Splits to train on; ``[train, val]`` for a final run is a choice one must write down, ``test`` is refused.
        subset: Name of a stored subset of the training slices (``ray_jobs.filter`` makes one); "" trains on all.
        fraction: Share of the training **volumes**; fractions of one catalog are nested (0.1 within 0.2 within 0.5).
        val_follows_fraction: Whether training validates on the same share of the validation volumes, nested in the same way, as
            MosaicMRI (arXiv:2604.11762, 5.2) does; else on all of them. With it, validation scores of different fractions are of
            different volumes: compare such models on the test split, which no fraction touches.
        where: What the volumes must show, in every split: ``where.anatomy=[knee]``, ``where.center=[a, b]``.
        balance: How often slices of small groups come in training.
        trusted: Folders and ``s3://`` prefixes outside of the catalog that its rows may point to, as those of ``prepare --payload raw`` do.
            Whoever reads a catalog says so; a trained model's configuration does not say it for them.
    """

    # What is read of rows: each that is chosen must have it.
    payload: ClassVar[Payload] = "kspace"
    # What such samples come as.
    batch: ClassVar[type[Batch]]
    # What settings were called before there was ``where``.
    renamed: ClassVar[Mapping[str, str]] = {
        "datasets": "where.dataset",
        "anatomies": "where.anatomy",
        "contrasts": "where.contrast",
    }

    # Columns of the rows that ``check`` is given.
    checked: ClassVar[Sequence[str]] = ()

    catalog: str = ""
    train_split: tuple[str, ...] = ("train",)
    subset: str = ""
    fraction: float = 1.0
    val_follows_fraction: bool = False
    where: Where = field(default_factory=Where)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    trusted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if "test" in self.train_split:
            raise LeakageError(
                f"data.train_split={'+'.join(self.train_split)}", "holds the test split", "Train on train, or on [train, val] at most."
            )
        if not self.train_split or any(split not in _TRAINABLE for split in self.train_split):
            raise ConfigError(f"data.train_split={list(self.train_split)}", f"must be some of {list(_TRAINABLE)}", "Write [train].")
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"data.fraction={self.fraction}", "must lie in (0, 1]", "Use 1.0 for all volumes.")

    @abc.abstractmethod
    def make_format(self, *, seed: int) -> MakeFormat[Any]:
        """Return what makes these samples of rows, for a run of that seed."""

    @abc.abstractmethod
    def check(self, rows: pa.Table) -> Sequence[str]:
        """Refuse rows that cannot become such samples, before a run begins; return what a user should be warned of.

        Args:
            rows: All that may be trained on or evaluated, the columns ``checked`` of them.

        Raises:
            CatalogError: Rows lack what such samples are made of.
        """

    def together(self, table: pa.Table, positions: NDArray[np.int64]) -> Groups | None:
        """Return the groups of rows that share bytes, so that they are planned one after the other; None where each is read on its own.

        Args:
            table: Catalog rows.
            positions: Of a selection.
        """
        return None

    @abc.abstractmethod
    def acceleration(self, row: SliceRow) -> float:
        """Return by how much a volume is undersampled outside of training; 1 where it is not."""

    @property
    def of_samples(self) -> dict[str, Any]:
        """The settings, as plain values, that decide what samples are made of rows; not which rows."""
        selecting = {f.name for f in dataclasses.fields(DataConfig)} | {"kind"}
        return {name: value for name, value in to_dict(self).items() if name not in selecting}
