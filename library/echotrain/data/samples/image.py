"""Images: one magnitude slice each, the target of a catalog's row; no byte of k-space is read.

Each slice is mapped to [0, 1], by its own smallest and largest value or by its volume's. A blank slice, which has no range to be divided
by, is all zeros. Slices of one matrix size share a batch, or all do once they are brought to one size.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from echotrain.augmentation.fit import Fit, fit_square
from echotrain.data.catalog.identity import SampleId
from echotrain.data.catalog.payload import Payload
from echotrain.data.catalog.rows import SliceRow
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.data_config import DataConfig
from echotrain.data.samples.reading import SliceReader
from echotrain.data.samples.sample_format import Begun, MakeFormat, Reading, StepRows
from echotrain.errors import CatalogError, ConfigError, PayloadError
from echotrain.shapes import Magnitude, PerSample

__all__ = ["ImageBatch", "ImageData", "ImageFormat", "Scaling", "to_unit"]

Scaling = Literal["slice", "volume"]
# More than any scanner's matrix, and 64 MB a slice.
_LARGEST_SIDE = 4096


@dataclass(frozen=True, kw_only=True)
class ImageBatch(Batch):
    """Slices of one shape.

    Attributes:
        image: Within [0, 1].
        low, high: What 0 and 1 stand for in the catalog's own units; equal where a slice is blank.
        anatomies: One per sample; "" where the header names none.
    """

    image: Magnitude
    low: PerSample
    high: PerSample
    anatomies: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageData(DataConfig):
    """Magnitude slices: the targets of scans with k-space, and images that never had any.

    Attributes:
        kind: Tells these settings from those of other samples.
        scaling: Whose smallest and largest value become 0 and 1. ``slice``, as MRI-CORE does, makes each slice use the whole range;
            ``volume`` keeps slices comparable, with 0 as the smallest value.
        side: Pixels that slices are brought to, so that all share a batch; 0 keeps their matrix, and each matrix is a batch.
        fit: How they are brought there; see ``augmentation.fit``.
    """

    payload: ClassVar[Payload] = "image"
    checked: ClassVar[Sequence[str]] = ("dataset", "volume", "slice", "frame", "max_value")

    batch: ClassVar[type[Batch]] = ImageBatch

    kind: Literal["image"] = "image"
    scaling: Scaling = "slice"
    side: int = 0
    fit: Fit = "pad"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.side <= _LARGEST_SIDE:
            raise ConfigError(f"data.side={self.side}", f"must lie in [0, {_LARGEST_SIDE}]", "Use 0 to keep each slice's matrix, or 256.")

    def make_format(self, *, seed: int) -> "MakeFormat[ImageBatch]":
        """Return what makes these samples of rows, for a run of that seed."""
        return functools.partial(ImageFormat, scaling=self.scaling, side=self.side, fit=self.fit, seed=seed)

    def check(self, rows: pa.Table) -> list[str]:
        """Refuse volumes without a maximum, where slices are scaled by it."""
        has_none = pc.invert(pc.fill_null(pc.greater(rows["max_value"], 0), False))
        if self.scaling == "volume" and pc.any(has_none).as_py():
            first = rows.filter(has_none).slice(0, 1).to_pylist()[0]
            _refuse_maximum(SampleId(*(first[name] for name in SampleId._fields)), first["max_value"])
        return []

    def acceleration(self, row: SliceRow) -> float:
        """Return 1: nothing is undersampled."""
        return 1.0


class ImageFormat:
    """Makes ``ImageBatch`` of rows.

    Args:
        reading: What rows are read with.
        scaling: Whose smallest and largest value become 0 and 1. A volume's smallest is 0: its images are magnitudes.
        side: Pixels that slices are brought to; 0 keeps their matrix.
        fit: How, see ``augmentation.fit``.
        seed: The run's seed, for what is drawn for a sample.
    """

    def __init__(self, reading: Reading, *, scaling: Scaling, side: int, fit: Fit, seed: int) -> None:
        self._scaling, self._side, self._fit, self._seed = scaling, side, fit, seed
        self._pool = reading.pool
        self._slices = SliceReader(reading.root, reading.ranges)

    def memory_nbytes(self, rows: Sequence[SliceRow]) -> int:
        """Return the bytes of the images."""
        return sum(4 * height * width for height, width in map(self._shape, rows))

    def begin(self, step: StepRows, *, epoch: int | None) -> list[Begun[ImageBatch]]:
        """Return a batch for each matrix size; a row is one read.

        Raises:
            CatalogError: A volume has no maximum to be scaled by, or a row has no image of its size.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for position, row in enumerate(step.rows):
            _check(row, self._scaling)
            groups.setdefault(self._shape(row), []).append(position)
        return [self._begin(step, shape, group, epoch) for shape, group in groups.items()]

    def _shape(self, row: SliceRow) -> tuple[int, int]:
        return (self._side, self._side) if self._side else (row.recon_height, row.recon_width)

    def _begin(self, step: StepRows, shape: tuple[int, int], group: Sequence[int], epoch: int | None) -> Begun[ImageBatch]:
        rows = [step.rows[i] for i in group]
        ids = tuple(row.id for row in rows)
        # Built by NumPy, for the reason given in SlotPool.empty.
        low, high = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.float32)
        batch = ImageBatch(
            image=self._pool.empty((len(rows), *shape), torch.float32),
            low=torch.from_numpy(low),
            high=torch.from_numpy(high),
            weight=torch.from_numpy(np.array([step.weights[i] for i in group], np.float32)),
            ids=ids,
            anatomies=tuple(row.anatomy for row in rows),
            roots=tuple(sample.root(self._seed, epoch) for sample in ids),
        )
        image = batch.image.numpy()
        reads = [functools.partial(self._read, row, image[i], low[i : i + 1], high[i : i + 1]) for i, row in enumerate(rows)]
        return Begun(batch, reads, image.nbytes)

    def _read(self, row: SliceRow, image: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]) -> int:
        """Fill one sample's memory; return the bytes that were fetched."""
        own = image if image.shape == (row.recon_height, row.recon_width) else np.empty((row.recon_height, row.recon_width), np.float32)
        fetched = self._slices.read_target(row, own)
        least, largest = float(own.min()), float(own.max())
        if not (np.isfinite(least) and np.isfinite(largest)):
            raise PayloadError(str(row.id), "is an image with NaN or infinity", "Prepare it again, or leave it out.")
        low[:], high[:] = (least, largest) if self._scaling == "slice" else (0, row.max_value)
        to_unit(own, float(low[0]), float(high[0]))
        if own is not image:
            image[...] = fit_square(torch.from_numpy(own)[None, None], self._side, self._fit)[0, 0].numpy()
        return fetched


def to_unit(image: NDArray[np.float32], low: float, high: float) -> None:
    """Map [low, high] to [0, 1] in place and cut off what is outside; an image without a range becomes all zeros."""
    if high > low:
        image -= np.float32(low)
        image /= np.float32(high - low)
        np.clip(image, 0, 1, out=image)
    else:
        image.fill(0)


def _check(row: SliceRow, scaling: Scaling) -> None:
    """Refuse a row before memory is taken for it."""
    if row.target_nbytes != 4 * row.recon_height * row.recon_width:
        raise CatalogError(
            f"{row.id}: target_nbytes={row.target_nbytes}",
            f"is not the {4 * row.recon_height * row.recon_width} of a {row.recon_height}x{row.recon_width} image",
            "Choose rows that have an image, or prepare the data again.",
        )
    if scaling == "volume" and not row.max_value > 0:
        _refuse_maximum(row.id, row.max_value)


def _refuse_maximum(sample: SampleId, value: float) -> NoReturn:
    remedy = "Use data.scaling=slice, or prepare the data again."
    raise CatalogError(f"{sample}: max_value={value}", "is no maximum to scale its volume by", remedy)
