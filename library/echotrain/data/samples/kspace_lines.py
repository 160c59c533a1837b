"""Line-masked slices: measured k-space of one slice, undersampled by phase-encode lines, and the target image.

Slices of one matrix size share a batch; coils, as measured or virtual ones, are padded with zeros.
"""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from echotrain.config import to_dict
from echotrain.data.catalog.rows import SliceRow
from echotrain.data.formats.deidentify import VOLUME_PREFIX
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.data_config import DataConfig
from echotrain.data.samples.measured import MeasuredBatch, MeasuredData, NetworkInput, coil_mask
from echotrain.data.samples.reading import SliceReader
from echotrain.data.samples.sample_format import Begun, MakeFormat, Reading, StepRows
from echotrain.data.samples.slots import SlotPool
from echotrain.data.samples.virtual_coils import Acquired, calibrate, num_virtual_coils, to_virtual_coils
from echotrain.errors import ConfigError
from echotrain.physics.masks import LineSampling, MaskConfig, count_measured, fewest_low_frequencies, line_mask
from echotrain.shapes import CoilMask, Counts, Kspace, LineMask

__all__ = ["LinesBatch", "LinesData", "LinesFormat", "as_lines", "compressed", "empty_batch", "group_by_shape"]


@dataclass(frozen=True, kw_only=True)
class LinesBatch(MeasuredBatch):
    """Slices of one (coil, ky, kx) shape; volumes with fewer coils are zero-padded.

    Attributes:
        kspace: Measured k-space, with ``data.coils`` that of each slice's virtual coils. Lines outside ``mask`` may be zero (the ``lines``
            layout fetches only what the mask acquires, and virtual coils are made of nothing else), so a task multiplies by ``mask`` and
            never reads outside it.
        mask: Acquired phase-encode lines, partial-Fourier padding already removed.
        num_low_frequencies: Fully sampled centre lines.
        coil_mask: True where a coil, virtual ones included, is the slice's, False where it is padding.
    """

    kspace: Kspace
    mask: LineMask
    num_low_frequencies: Counts
    coil_mask: CoilMask

    def acquired(self) -> Kspace:
        """Return the k-space that the mask acquires, zero elsewhere."""
        return torch.where(self.mask, self.kspace, torch.zeros((), dtype=self.kspace.dtype, device=self.kspace.device))

    def network_input(self) -> NetworkInput:
        """Return what a network reconstructs each slice from."""
        return NetworkInput(self.acquired(), self.mask, self.num_low_frequencies, self.coil_mask)


@dataclass(frozen=True, kw_only=True)
class LinesData(MeasuredData):
    """Line-masked slices of k-space.

    Attributes:
        kind: Tells these settings from those of other samples.
        mask: How phase-encode lines are undersampled in training and validation.
    """

    checked: ClassVar[Sequence[str]] = ("volume", *MeasuredData.sizes)

    batch: ClassVar[type[Batch]] = LinesBatch

    kind: Literal["kspace_lines"] = "kspace_lines"
    mask: MaskConfig = field(default_factory=MaskConfig)

    def make_format(self, *, seed: int) -> "MakeFormat[LinesBatch]":
        """Return what makes these samples of rows, for a run of that seed."""
        return functools.partial(LinesFormat, data=self, seed=seed)

    def check(self, rows: pa.Table) -> list[str]:
        """Refuse centres too small for virtual coils. Warn where masks are to be fastMRI's, and pseudonyms hide the names they follow."""
        self.check_centers(rows)
        volumes = pc.unique(rows["volume"])
        num_hidden = pc.sum(pc.starts_with(volumes, VOLUME_PREFIX)).as_py() or 0
        if self.mask.seeding != "fastmri" or not num_hidden:
            return []
        return [
            f"data.mask.seeding=fastmri: {num_hidden} of {len(volumes)} volumes have pseudonyms, so that their masks are not those that "
            "fastMRI's code draws for the files; prepare them into a new place with --safe-names"
        ]

    def fewest_central_points(self, height: int, width: int, padding: tuple[int, int]) -> int:
        """Return how many points the central lines have at least."""
        return count_measured(width, fewest_low_frequencies(self.mask, width), *padding) * height

    def acceleration(self, row: SliceRow) -> float:
        """Return by how much a volume is undersampled outside of training."""
        return line_mask(self.mask, row.width, seed=0, dataset=row.dataset, volume=row.volume, epoch=None).acceleration


def as_lines(data: DataConfig) -> LinesData:
    """Return the settings as those of line-masked slices, for whoever works with these alone.

    Raises:
        ConfigError: They are of another kind.
    """
    if not isinstance(data, LinesData):
        raise ConfigError(f"data.kind={to_dict(data)['kind']}", "is not undersampled by phase-encode lines", "Use data.kind=kspace_lines.")
    return data


class LinesFormat:
    """Makes ``LinesBatch`` of rows.

    Args:
        reading: What rows are read with.
        data: How lines are undersampled, and what coils become.
        seed: The run's seed, for training masks.
    """

    def __init__(self, reading: Reading, data: LinesData, *, seed: int) -> None:
        self._data = data
        self._seed = seed
        self._pool = reading.pool
        self._read_pool = data.read_pool(reading.pool)
        self._slices = SliceReader(reading.root, reading.ranges)

    def memory_nbytes(self, rows: Sequence[SliceRow]) -> int:
        """Return the bytes of the rows' k-space, by far the most of them, and of their virtual coils."""
        return sum(row.coils * row.height * row.width * 8 + self._data.made_nbytes(row) for row in rows)

    def begin(self, step: StepRows, *, epoch: int | None) -> list[Begun[LinesBatch]]:
        """Return a batch for each matrix size; a row is one read."""
        samplings = [self._sampling(row, epoch) for row in step.rows]
        return [self._begin(step, group, samplings, epoch) for group in group_by_shape(step.rows)]

    def _begin(self, step: StepRows, group: Sequence[int], samplings: Sequence[LineSampling], epoch: int | None) -> Begun[LinesBatch]:
        rows, weights, chosen = [step.rows[i] for i in group], [step.weights[i] for i in group], [samplings[i] for i in group]
        batch = empty_batch(rows, chosen, weights, self._read_pool, seed=self._seed, epoch=epoch)
        kspace, target = batch.kspace.numpy(), batch.target.numpy()
        reads = [
            functools.partial(self._slices.read, row, sampling.mask, kspace[position, : row.coils], target[position])
            for position, (row, sampling) in enumerate(zip(rows, chosen, strict=True))
        ]
        made = sum(self._data.made_nbytes(row) for row in rows)
        transform = functools.partial(compressed, num_coils=self._data.coils, pool=self._pool) if self._data.coils else None
        return Begun(batch, reads, kspace.nbytes + target.nbytes + made, transform)

    def _sampling(self, row: SliceRow, epoch: int | None) -> LineSampling:
        return line_mask(
            self._data.mask,
            row.width,
            seed=self._seed,
            dataset=row.dataset,
            volume=row.volume,
            epoch=epoch,
            slice=None if epoch is None else row.slice,
            padding_left=row.padding_left,
            padding_right=row.padding_right,
        )


def compressed(batch: LinesBatch, num_coils: int, pool: SlotPool) -> LinesBatch:
    """Return a batch of virtual coils, zero where its masks acquire nothing: each slice compressed by what its own centre says.

    Args:
        batch: On the CPU.
        num_coils: As ``data.coils``, at least 1.
        pool: Gives the memory.

    Raises:
        ConfigError, PayloadError: As ``to_virtual_coils``.
    """
    real = batch.coil_mask.sum(1).numpy()
    num_virtual = num_virtual_coils(num_coils, int(real.max()))
    kspace = pool.empty((len(real), num_virtual, *batch.kspace.shape[2:]), torch.complex64)
    each = zip(
        batch.ids, batch.kspace.numpy(), batch.mask[:, 0].numpy(), batch.num_low_frequencies.tolist(), real, kspace.numpy(), strict=True
    )
    for sample, measured, mask, num_low, coils, out in each:
        frame = Acquired(measured[:coils], mask, (num_low,))
        to_virtual_coils(sample, [frame], [calibrate(frame)], num_coils, [out])
    return dataclasses.replace(batch, kspace=kspace, coil_mask=coil_mask(real, num_virtual))


def group_by_shape(rows: Sequence[SliceRow]) -> list[list[int]]:
    """Return the positions of rows that can share a batch, groups and members in order of appearance."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, row in enumerate(rows):
        groups.setdefault((row.height, row.width, row.recon_height, row.recon_width), []).append(position)
    return list(groups.values())


def empty_batch(
    rows: Sequence[SliceRow],
    samplings: Sequence[LineSampling],
    weights: Sequence[float],
    pool: SlotPool,
    *,
    seed: int = 0,
    epoch: int | None = None,
) -> LinesBatch:
    """Return a batch that is complete but for the measured k-space and the targets, which are still to be filled in.

    Coils that a slice lacks are zero already.

    Args:
        rows: Of one matrix size.
        samplings: The mask of each.
        weights: 1 for a sample that counts, 0 for a filler.
        pool: Gives the memory.
        seed: The run's.
        epoch: Of training, None outside.
    """
    first, coils = rows[0], max(row.coils for row in rows)
    kspace = pool.empty((len(rows), coils, first.height, first.width), torch.complex64)
    for position, row in enumerate(rows):
        if row.coils < coils:
            kspace[position, row.coils :].zero_()
    # Built by NumPy, for the reason given in SlotPool.empty.
    masks = np.stack([sampling.mask for sampling in samplings])
    num_low = np.array([sampling.num_low_frequencies for sampling in samplings], np.int64)
    ids = tuple(row.id for row in rows)
    return LinesBatch(
        kspace=kspace,
        mask=torch.from_numpy(masks[:, None, None, :]),
        num_low_frequencies=torch.from_numpy(num_low),
        coil_mask=coil_mask([row.coils for row in rows], coils),
        target=pool.empty((len(rows), first.recon_height, first.recon_width), torch.float32),
        max_value=torch.from_numpy(np.array([row.max_value for row in rows], np.float32)),
        weight=torch.from_numpy(np.array(weights, np.float32)),
        ids=ids,
        anatomies=tuple(row.anatomy for row in rows),
        roots=tuple(sample.root(seed, epoch) for sample in ids),
    )
