"""What a run learns from, and how the bytes of it are fetched."""

import functools
from dataclasses import dataclass, field

from echotrain.data.samples.kspace_lines import LinesBatch, LinesFormat
from echotrain.data.samples.sample_format import MakeFormat
from echotrain.errors import ConfigError, LeakageError
from echotrain.physics.masks import MaskConfig

__all__ = ["DataConfig", "StreamConfig"]

_TRAINABLE = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which slices of a catalog a run sees, and how they are undersampled. Part of a run's science.

    Attributes:
        catalog: Where ``prepare`` wrote: a folder or ``s3://bucket/prefix``; ``…@3`` pins version 3, else the newest counts.
        train_split: Splits to train on; ``[train, val]`` for a final run is a choice one must write down, ``test`` is refused.
        subset: Name of a stored subset of the training slices (``ray_jobs.filter`` makes one); "" trains on all.
        fraction: Share of the training **volumes**; fractions of one catalog are nested (0.1 within 0.2 within 0.5).
        val_follows_fraction: Whether training validates on the same share of the validation volumes, nested in the same way, as
            MosaicMRI (arXiv:2604.11762, 5.2) does; else on all of them. With it, validation scores of different fractions are of
            different volumes: compare such models on the test split, which no fraction touches.
        datasets, anatomies, contrasts: Names to keep, in every split; empty keeps all.
        trusted: Folders and ``s3://`` prefixes outside of the catalog that its rows may point to, as those of ``prepare --payload raw`` do.
            Whoever reads a catalog says so; a trained model's configuration does not say it for them.
        mask: How phase-encode lines are undersampled in training and validation.
    """

    catalog: str = ""
    train_split: tuple[str, ...] = ("train",)
    subset: str = ""
    fraction: float = 1.0
    val_follows_fraction: bool = False
    datasets: tuple[str, ...] = ()
    anatomies: tuple[str, ...] = ()
    contrasts: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()
    mask: MaskConfig = field(default_factory=MaskConfig)

    def __post_init__(self) -> None:
        if "test" in self.train_split:
            raise LeakageError(
                f"data.train_split={'+'.join(self.train_split)}", "holds the test split", "Train on train, or on [train, val] at most."
            )
        if not self.train_split or any(split not in _TRAINABLE for split in self.train_split):
            raise ConfigError(f"data.train_split={list(self.train_split)}", f"must be some of {list(_TRAINABLE)}", "Write [train].")
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"data.fraction={self.fraction}", "must lie in (0, 1]", "Use 1.0 for all volumes.")

    def make_format(self, *, seed: int) -> MakeFormat[LinesBatch]:
        """Return what makes these samples of rows, for a run of that seed."""
        return functools.partial(LinesFormat, mask=self.mask, seed=seed)


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """How payload is fetched. Part of a run's place: none of it changes a sample or the order.

    Attributes:
        threads: Concurrent range reads per rank. A store gives each connection about 80 MB/s, so a NIC of 1 GB/s wants
            about 16 over all ranks of a node. 0 takes 16 for an object store and 4 for a folder, where more of them only push
            each other's data out of the processor's cache; a folder on a slow network drive may want more.
        prefetch_steps: Steps fetched ahead of the one in use.
        prefetch_mb: Bytes in flight or waiting, per rank, at most; one step is always allowed.
        pin_memory: Fetch into page-locked memory, for asynchronous copies to a GPU; None does so where there is one.
        timeout_s: Longest silence of a connection before the read is tried again.
        attempts: Tries per read.
    """

    threads: int = 0
    prefetch_steps: int = 32
    prefetch_mb: float = 512.0
    pin_memory: bool | None = None
    timeout_s: float = 10.0
    attempts: int = 5

    def __post_init__(self) -> None:
        for name, least in (("threads", 0), ("prefetch_steps", 1), ("attempts", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"stream.{name}={getattr(self, name)}", f"must be at least {least}", "Leave it out for the default.")
        for name in ("prefetch_mb", "timeout_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"stream.{name}={getattr(self, name)}", "must be positive", "Leave it out for the default.")
