"""What a sample is called, and the seed of all that is drawn for it."""

from typing import NamedTuple

from echotrain.seeding import derive_seed

__all__ = ["SampleId"]


class SampleId(NamedTuple):
    """The identity of one slice, or of one frame of it; everything random about it is a hash of (seed, epoch, this, purpose).

    Attributes:
        dataset, volume, slice: Whose it is.
        frame: Of a slice that was measured at several times; None of one that was measured once.
    """

    dataset: str
    volume: str
    slice: int
    frame: int | None = None

    def __str__(self) -> str:
        return f"{self.dataset}/{self.volume}[{self.slice}]" + ("" if self.frame is None else f"[{self.frame}]")

    def root(self, seed: int, epoch: int | None) -> int:
        """Return the seed of all that is drawn for this sample in an epoch of a run; outside training (None) it is the sample's alone."""
        own = (*self[:3], *(() if self.frame is None else ("frame", self.frame)))
        return derive_seed(0, "sample", *own) if epoch is None else derive_seed(seed, "sample", *own, epoch)
