"""What a sample is called, and the seed of all that is drawn for it."""

from typing import NamedTuple

from echotrain.seeding import derive_seed

__all__ = ["SampleId"]


class SampleId(NamedTuple):
    """The identity of one slice; everything random about it is a hash of (seed, epoch, this, purpose)."""

    dataset: str
    volume: str
    slice: int

    def root(self, seed: int, epoch: int | None) -> int:
        """Return the seed of all that is drawn for this slice in an epoch of a run; outside training (None) it is the slice's alone."""
        return derive_seed(0, "sample", *self) if epoch is None else derive_seed(seed, "sample", *self, epoch)
