"""Windows of frames: one frame of a slice that was measured at several times, with its neighbours in time, undersampled over k and t.

A row of the catalog is a frame. Every frame of a batch is there once, however many samples look at it; frames that the next steps look
at too are read once.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Bool, Complex, Int
from numpy.typing import NDArray
from torch import Tensor

from echotrain.data.catalog.frames import FRAME_COLUMNS, FrameIndex, check_frames, slice_codes
from echotrain.data.catalog.identity import SampleId
from echotrain.data.catalog.rows import SliceRow
from echotrain.data.plan.consecutive import Groups, group_rows
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.frame_store import FrameStore, StoredFrame
from echotrain.data.samples.measured import MeasuredBatch, MeasuredData, NetworkInput, coil_mask
from echotrain.data.samples.reading import SliceReader
from echotrain.data.samples.sample_format import Begun, MakeFormat, Reading, StepRows
from echotrain.data.samples.slots import SlotPool
from echotrain.data.samples.virtual_coils import Acquired, CoilStatistics, calibrate, num_virtual_coils, to_virtual_coils
from echotrain.errors import CatalogError, ConfigError
from echotrain.physics.kt_masks import KtMaskConfig, KtMaskKind, KtSampling, check_kt_mask, kt_mask
from echotrain.physics.masks import count_measured
from echotrain.shapes import Calibration, Kspace

__all__ = ["Edges", "KtBatch", "KtData", "KtFormat", "window"]

Edges = Literal["clamp", "circular"]

# Patterns that are kept at hand: more than the slices of a step, whose frames come one after the other.
_PATTERNS_AT_HAND = 128
_IDLE_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class KtBatch(MeasuredBatch):
    """Windows of frames of one matrix size, all undersampled by whole lines or none; slices with fewer coils are zero-padded.

    Attributes:
        kspace: Measured k-space of every frame that is looked at, each once; of virtual coils, which each window has of its own, each once
            for every sample that looks at it. What is outside of ``mask`` may be zero.
        mask: What is acquired of each frame, partial-Fourier padding already removed.
        calibration: Fully sampled centre of each frame: lines (frame,), or rows and columns (frame, 2).
        coil_mask: True where a coil is real, False where it is padding.
        windows: Which frames each sample looks at, in order of time, its own in the centre.
    """

    kspace: Complex[Tensor, "frame coil ky kx"]
    mask: Bool[Tensor, "frame 1 ky_or_1 kx"]
    calibration: Int[Tensor, "frame *axes"]
    coil_mask: Bool[Tensor, "frame coil"]
    windows: Int[Tensor, "batch adjacent"]

    def part(self, start: int, stop: int) -> Self:
        """Return the samples of a range, and of the frames those that they look at, as copies."""
        looked_at, windows = torch.unique(self.windows[start:stop], return_inverse=True)
        of_frames = {name: getattr(self, name)[looked_at] for name in ("kspace", "mask", "calibration", "coil_mask")}
        of_samples = {name: getattr(self, name)[start:stop] for name in ("target", "max_value", "weight", "ids", "anatomies", "roots")}
        return dataclasses.replace(self, windows=windows, **of_frames, **of_samples)

    def acquired(self) -> Kspace:
        """Return the k-space of each sample's own frame that its mask acquires, zero elsewhere."""
        own = self.windows[:, self.windows.shape[1] // 2]
        return _masked(self.kspace[own], self.mask[own])

    def network_input(self) -> NetworkInput:
        """Return each sample's window; without a frame's axis where that is one frame."""
        frames = self.windows[:, 0] if self.windows.shape[1] == 1 else self.windows
        mask = self.mask[frames]
        return NetworkInput(_masked(self.kspace[frames], mask), mask, self.calibration[frames], self.coil_mask[frames])


@dataclass(frozen=True, kw_only=True)
class KtData(MeasuredData):
    """Windows of frames, undersampled over k and t.

    Attributes:
        kind: Tells these settings from those of other samples.
        mask: How the frames are undersampled in training and validation.
        num_adjacent: Frames of a window, odd: the sample's own in the centre.
        edges: What lies beyond the first and the last frame: ``clamp`` repeats it, as Moero does; ``circular`` goes on at the other end, as
            a beating heart and PromptMR+ do.
        consecutive: Plan the frames of a slice one after the other, so that each is read once an epoch; else every row is shuffled on
            its own, and each window is read whole, as a ``CatalogDataset`` does it always.
    """

    checked: ClassVar[Sequence[str]] = (*FRAME_COLUMNS, "kind")

    batch: ClassVar[type[Batch]] = KtBatch

    kind: Literal["kspace_kt"] = "kspace_kt"
    mask: KtMaskConfig = field(default_factory=KtMaskConfig)
    num_adjacent: int = 1
    edges: Edges = "clamp"
    consecutive: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_adjacent < 1 or self.num_adjacent % 2 == 0:
            raise ConfigError(
                f"data.num_adjacent={self.num_adjacent}", "must be odd and at least 1: a frame and as many on each side", "Use 1, 3 or 5."
            )

    def make_format(self, *, seed: int) -> "MakeFormat[KtBatch]":
        """Return what makes these samples of rows, for a run of that seed."""
        return functools.partial(KtFormat, data=self, seed=seed)

    def check(self, rows: pa.Table) -> list[str]:
        """Refuse slices that lack frames or whose frames differ, and masks that do not fit a matrix, its coils, or a payload."""
        if not self.subset:  # Of single frames, the others are in the catalog, where they are looked for.
            check_frames(rows)
        for size in rows.group_by(["height", "width"]).aggregate([]).to_pylist():
            check_kt_mask(self.mask, size["height"], size["width"])
        self.check_centers(rows)
        for row in rows.filter(pc.equal(rows["kind"], "lines")).slice(0, 1).select(["dataset", "volume"]).to_pylist():
            for kind in self.mask.kinds_of_points:
                raise _not_in_lines(f"{row['dataset']}/{row['volume']}", kind)
        return []

    def together(self, table: pa.Table, positions: NDArray[np.int64]) -> Groups | None:
        """Return the slices, whose frames come one after the other."""
        return group_rows(*slice_codes(table, positions)) if self.consecutive else None

    def fewest_central_points(self, height: int, width: int, padding: tuple[int, int]) -> int:
        """Return how many points the centre of one frame has at least."""
        acs = self.mask.acs_lines
        return count_measured(width, acs, *padding) * (acs if self.mask.kinds_of_points else height)

    def acceleration(self, row: SliceRow) -> float:
        """Return by how much a volume is undersampled outside of training."""
        return _sampling(self.mask, row, num_frames=1, seed=0, epoch=None).acceleration


def _masked(kspace: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, kspace, torch.zeros((), dtype=kspace.dtype, device=kspace.device))


def window(frame: int, num_frames: int, num_adjacent: int, edges: Edges) -> list[int]:
    """Return the frames that a sample looks at, in order of time."""
    around = np.arange(frame - num_adjacent // 2, frame + num_adjacent // 2 + 1)
    inside = around % num_frames if edges == "circular" else np.clip(around, 0, num_frames - 1)
    return [int(each) for each in inside]


class _Key(NamedTuple):
    """What a frame is kept by: of another epoch, a payload of lines may hold other lines of it."""

    frame: SampleId
    epoch: int | None


@dataclass(frozen=True)
class _Sample:
    """A row of a step: its window, and the masks of all frames of its slice."""

    row: SliceRow
    weight: float
    looks_at: tuple[SliceRow, ...]
    sampling: KtSampling

    @property
    def shape(self) -> tuple[int | bool, ...]:
        """What samples of a batch have in common."""
        row = self.row
        return row.height, row.width, row.recon_height, row.recon_width, self.sampling.has_whole_lines


class KtFormat:
    """Makes ``KtBatch`` of rows.

    Of frames, it keeps those of the last step that was begun, and of ``circular`` windows also the first and last ``num_adjacent // 2`` of
    each of its slices: ``2 num_adjacent`` frames for each sample of a step at most.

    Args:
        reading: What rows are read with.
        data: Windows and masks.
        seed: The run's seed, for training masks.
    """

    def __init__(self, reading: Reading, data: KtData, *, seed: int) -> None:
        self._data, self._seed = data, seed
        self._pool = reading.pool
        self._read_pool = data.read_pool(reading.pool)
        # Frames, which are copied from here to batches, need no page-locked memory either.
        self._store_pool = SlotPool(max_idle_bytes=_IDLE_BYTES)
        self._slices = SliceReader(reading.root, reading.ranges)
        self._index = FrameIndex(reading.table)
        self._store: FrameStore[_Key] = FrameStore()
        self._patterns = functools.lru_cache(maxsize=_PATTERNS_AT_HAND)(self._pattern)

    def memory_nbytes(self, rows: Sequence[SliceRow]) -> int:
        """Return the bytes of the rows' windows, of one more frame each in the store, and of the windows' virtual coils."""
        num_adjacent = self._data.num_adjacent
        return sum(row.coils * row.height * row.width * 8 * (num_adjacent + 1) + self._data.made_nbytes(row) * num_adjacent for row in rows)

    def begin(self, step: StepRows, *, epoch: int | None) -> list[Begun[KtBatch]]:
        """Return a batch for each matrix size, and for masks of lines and of points; a read is a frame, fetched or copied.

        Raises:
            CatalogError: A frame is missing, frames of a slice differ, or a payload cannot serve a mask.
            ConfigError: A mask does not fit the matrix.
        """
        samples = [self._sample(row, weight, epoch) for row, weight in zip(step.rows, step.weights, strict=True)]
        of_frame = {_Key(row.id, epoch): (row, sample.sampling) for sample in samples for row in sample.looks_at}
        frames, memory = self._store.step(of_frame, lambda key: self._stored(*of_frame[key]), self._returns(samples, epoch))
        groups: dict[tuple[int | bool, ...], list[_Sample]] = {}
        for sample in samples:
            groups.setdefault(sample.shape, []).append(sample)
        begun = [self._begin(group, frames, epoch) for group in groups.values()]
        # What the step adds to the store is counted once.
        return [dataclasses.replace(begun[0], memory_nbytes=begun[0].memory_nbytes + memory), *begun[1:]]

    def _begin(self, samples: Sequence[_Sample], frames: Mapping[_Key, StoredFrame], epoch: int | None) -> Begun[KtBatch]:
        places = {row.id: (row, sample.sampling) for sample in samples for row in sample.looks_at}
        numbers = {frame: number for number, frame in enumerate(places)}
        batch = _empty_batch(samples, list(places.values()), numbers, self._read_pool, seed=self._seed, epoch=epoch)
        kspace, target = batch.kspace.numpy(), batch.target.numpy()
        targets: dict[SampleId, list[NDArray[np.float32]]] = {}
        for position, sample in enumerate(samples):
            targets.setdefault(sample.row.id, []).append(target[position])
        reads = [
            functools.partial(frames[_Key(frame, epoch)].copy_to, kspace[number, : row.coils], targets.get(frame, ()))
            for number, (frame, (row, _)) in enumerate(places.items())
        ]
        made = sum(self._data.made_nbytes(row) for sample in samples for row in {row.id: row for row in sample.looks_at}.values())
        transform = functools.partial(_compressed, num_coils=self._data.coils, pool=self._pool) if self._data.coils else None
        return Begun(batch, reads, kspace.nbytes + target.nbytes + made, transform)

    def _sample(self, row: SliceRow, weight: float, epoch: int | None) -> _Sample:
        frames = self._index.frames_of(row)
        sampling = self._patterns(frames[0], len(frames), epoch)
        if row.kind == "lines" and not sampling.has_whole_lines:
            raise _not_in_lines(str(row.id), sampling.kind)
        seen = window(row.frame or 0, len(frames), self._data.num_adjacent, self._data.edges)
        return _Sample(row, weight, tuple(frames[frame] for frame in seen), sampling)

    def _stored(self, row: SliceRow, sampling: KtSampling) -> StoredFrame:
        lines = sampling.mask[row.frame or 0].any(0)
        return StoredFrame(row, lambda kspace, target: self._slices.read(row, lines, kspace, target), self._store_pool)

    def _pattern(self, first: SliceRow, num_frames: int, epoch: int | None) -> KtSampling:
        return _sampling(self._data.mask, first, num_frames=num_frames, seed=self._seed, epoch=epoch)

    def _returns(self, samples: Sequence[_Sample], epoch: int | None) -> Callable[[_Key], bool]:
        """Return what tells of a frame whether windows come back to it from the other end of its slice, while that is stepped through."""
        reach = self._data.num_adjacent // 2 if self._data.edges == "circular" else 0
        num_frames = {sample.row.id[:3]: sample.row.num_frames or 1 for sample in samples}

        def returns(key: _Key) -> bool:
            last = num_frames.get(key.frame[:3], 0) - 1
            return key.epoch == epoch and not reach <= (key.frame.frame or 0) <= last - reach and last >= 0

        return returns


def _compressed(batch: KtBatch, num_coils: int, pool: SlotPool) -> KtBatch:
    """Return a batch of virtual coils, zero where its masks acquire nothing: each window compressed by what the centres of its frames say.

    A frame that several windows look at is compressed for each: their matrices differ, and each must be the same whatever shares the batch.
    """
    kspace, mask, real = batch.kspace.numpy(), batch.mask[:, 0].numpy(), batch.coil_mask.sum(1).numpy()
    centers = batch.calibration.reshape(len(real), -1).tolist()
    frames = [Acquired(kspace[n, : real[n]], mask[n], tuple(centers[n])) for n in range(len(real))]
    found: dict[int, CoilStatistics] = {}
    looked_at = [list(dict.fromkeys(window)) for window in batch.windows.tolist()]
    of_frame = np.concatenate(looked_at)
    num_virtual = num_virtual_coils(num_coils, int(real.max()))
    out = pool.empty((len(of_frame), num_virtual, *kspace.shape[2:]), torch.complex64)
    windows, end = np.empty(batch.windows.shape, np.int64), 0
    for position, (sample, seen) in enumerate(zip(batch.ids, looked_at, strict=True)):
        start, end = end, end + len(seen)
        found.update({n: calibrate(frames[n]) for n in seen if n not in found})
        to_virtual_coils(sample, [frames[n] for n in seen], [found[n] for n in seen], num_coils, list(out[start:end].numpy()))
        windows[position] = [start + seen.index(n) for n in batch.windows[position].tolist()]
    return dataclasses.replace(
        batch,
        kspace=out,
        mask=batch.mask[of_frame],
        calibration=batch.calibration[of_frame],
        coil_mask=coil_mask(real[of_frame], num_virtual),
        windows=torch.from_numpy(windows),
    )


def _not_in_lines(name: str, kind: KtMaskKind) -> CatalogError:
    limit = f"lies in the payload 'lines', which cannot serve {kind}: it is not of whole lines of a frame"
    return CatalogError(name, limit, "Prepare it with --payload packed, or leave that kind of mask out.")


def _sampling(mask: KtMaskConfig, row: SliceRow, *, num_frames: int, seed: int, epoch: int | None) -> KtSampling:
    """Draw the masks of all frames of a row's slice."""
    return kt_mask(
        mask,
        (num_frames, row.height, row.width),
        seed=seed,
        dataset=row.dataset,
        volume=row.volume,
        epoch=epoch,
        slice=None if epoch is None else row.slice,
        padding_left=row.padding_left,
        padding_right=row.padding_right,
    )


def _calibration(samplings: Sequence[KtSampling]) -> Calibration:
    sizes = np.array([sampling.acs_lines for sampling in samplings], np.int64)
    return torch.from_numpy(sizes if samplings[0].has_whole_lines else np.stack([sizes, sizes], -1))


def _empty_batch(
    samples: Sequence[_Sample],
    frames: Sequence[tuple[SliceRow, KtSampling]],
    numbers: Mapping[SampleId, int],
    pool: SlotPool,
    *,
    seed: int,
    epoch: int | None,
) -> KtBatch:
    """Return a batch that is complete but for the k-space of real coils and the targets, which are still to be filled in."""
    rows, samplings = [row for row, _ in frames], [sampling for _, sampling in frames]
    first, coils = rows[0], max(row.coils for row in rows)
    kspace = pool.empty((len(rows), coils, first.height, first.width), torch.complex64)
    for position, row in enumerate(rows):
        if row.coils < coils:
            kspace[position, row.coils :].zero_()
    # Built by NumPy, for the reason given in SlotPool.empty.
    masks = np.stack([sampling.mask[row.frame or 0] for row, sampling in frames])
    own = [sample.row for sample in samples]
    return KtBatch(
        kspace=kspace,
        mask=torch.from_numpy(masks[:, None]),
        calibration=_calibration(samplings),
        coil_mask=coil_mask([row.coils for row in rows], coils),
        windows=torch.from_numpy(np.array([[numbers[row.id] for row in sample.looks_at] for sample in samples])),
        target=pool.empty((len(samples), first.recon_height, first.recon_width), torch.float32),
        max_value=torch.from_numpy(np.array([row.max_value for row in own], np.float32)),
        weight=torch.from_numpy(np.array([sample.weight for sample in samples], np.float32)),
        ids=tuple(row.id for row in own),
        anatomies=tuple(row.anatomy for row in own),
        roots=tuple(row.id.root(seed, epoch) for row in own),
    )
