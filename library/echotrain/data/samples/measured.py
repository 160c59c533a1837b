"""What batches of measured k-space have in common, whatever was measured: all that reconstruction asks of them."""

import abc
from dataclasses import dataclass
from typing import NamedTuple

from echotrain.data.samples.batch import Batch
from echotrain.shapes import Calibration, CoilMask, Kspace, KtKspace, KtMask, Magnitude, PerSample, SamplingMask

__all__ = ["MeasuredBatch", "NetworkInput"]


class NetworkInput(NamedTuple):
    """What a reconstruction network is called with; of windows of frames, everything has a frame after the batch.

    Attributes:
        kspace: What was acquired, zero elsewhere.
        mask: What that is.
        calibration: Its fully sampled centre: lines, or rows and columns.
        coil_mask: False where a coil is padding.
    """

    kspace: Kspace | KtKspace
    mask: SamplingMask | KtMask
    calibration: Calibration
    coil_mask: CoilMask


@dataclass(frozen=True, kw_only=True)
class MeasuredBatch(Batch, abc.ABC):
    """Undersampled k-space with the images of all of it.

    Attributes:
        target: RSS image of the full k-space, cropped to the reconstruction matrix.
        max_value: Maximum of the target **volume**: SSIM's data range.
        anatomies: One per sample; "" where the header names none.
    """

    target: Magnitude
    max_value: PerSample
    anatomies: tuple[str, ...] = ()

    @abc.abstractmethod
    def acquired(self) -> Kspace:
        """Return the k-space of each sample's own slice or frame that its mask acquires, zero elsewhere."""

    @abc.abstractmethod
    def network_input(self) -> NetworkInput:
        """Return what a network reconstructs each sample from, neighbours included."""
