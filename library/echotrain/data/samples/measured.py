"""What batches of measured k-space, and their settings, have in common, whatever was measured: all that reconstruction asks of them."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from echotrain.data.catalog.rows import SliceRow
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.data_config import DataConfig
from echotrain.data.samples.slots import SlotPool
from echotrain.data.samples.virtual_coils import num_virtual_coils
from echotrain.errors import ConfigError
from echotrain.shapes import Calibration, CoilMask, Kspace, KtKspace, KtMask, Magnitude, PerSample, SamplingMask

__all__ = ["MeasuredBatch", "MeasuredData", "NetworkInput", "coil_mask"]


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


def coil_mask(counts: Sequence[int] | NDArray[np.int64], coils: int) -> CoilMask:
    """Return which of ``coils`` coils are real where so many are: the first ones."""
    # Built by NumPy, for the reason given in SlotPool.empty.
    return torch.from_numpy(np.arange(coils)[None, :] < np.asarray(counts)[:, None])


@dataclass(frozen=True, kw_only=True)
class MeasuredData(DataConfig, abc.ABC):
    """Settings of measured k-space, whatever was measured.

    Attributes:
        coils: Virtual coils that every sample's coils are compressed to, by the fully sampled centre of what its mask acquires; see
            ``physics.coil_compression``. A sample of fewer coils gets as many as it has, and keeps all of its signal. Targets stay those
            of all coils. 0 takes the coils as they were measured.
    """

    # What ``check_centers`` looks at.
    sizes: ClassVar[Sequence[str]] = ("coils", "height", "width", "padding_left", "padding_right")

    coils: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.coils < 0:
            raise ConfigError(f"data.coils={self.coils}", "must be at least 0", "Use 0 for the coils as they were measured.")

    @property
    def of_samples(self) -> dict[str, Any]:
        """As of every kind; without virtual coils it is what it was before there were any: parts of evaluations are known by it."""
        return {name: value for name, value in super().of_samples.items() if name != "coils" or value}

    @abc.abstractmethod
    def fewest_central_points(self, height: int, width: int, padding: tuple[int, int]) -> int:
        """Return how many points the centre of a mask has at least, of lines from the first of ``padding`` on and before the second."""

    def check_centers(self, rows: pa.Table) -> None:
        """Refuse rows, with the columns ``sizes``, of which some mask acquires too small a centre to find the virtual coils in.

        Raises:
            ConfigError: There are such.
        """
        for size in rows.group_by(list(self.sizes)).aggregate([]).to_pylist() if self.coils else ():
            coils, height, width, *padding = (size[name] for name in self.sizes)
            found = self.fewest_central_points(height, width, tuple(padding)) if coils else 0
            if found < (wanted := num_virtual_coils(self.coils, coils)):
                limit = f"{wanted} coils cannot be found in a mask's {found} central points of a {height}x{width} matrix"
                raise ConfigError(f"data.coils={self.coils}", limit, "Use a mask with a larger centre, or data.coils=0.")

    def read_pool(self, pool: SlotPool) -> SlotPool:
        """Return what gives the memory that is read to, of the one for batches.

        What is compressed in this process goes to no device, and needs no page-locked memory.
        """
        return SlotPool() if self.coils else pool

    def made_nbytes(self, row: SliceRow) -> int:
        """Return the memory of a frame's virtual coils; 0 where none are made."""
        return num_virtual_coils(self.coils, row.coils) * row.height * row.width * 8 if self.coils else 0
