"""The one place that every opened volume passes through: its claims against a few of its slices, its targets against all of them."""

import dataclasses
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from echotrain.data.formats.checks.direction import alternates
from echotrain.data.formats.checks.energy import Energy, Lines, Peak, acquired, energy_of, find_holes, find_peak, is_off_center
from echotrain.data.formats.checks.projection import is_projection, projection_error
from echotrain.data.formats.checks.target import is_of, scale_of
from echotrain.data.formats.header import VolumeHeader
from echotrain.data.formats.target import rss_target
from echotrain.data.formats.volume import ByteRange, Calibration, Volume
from echotrain.errors import ScanError

__all__ = ["ExaminedVolume", "examine", "measured_range"]

_EXPORT_AGAIN = "Export the scan again."
# Slices that are looked into besides, where the first ones show nothing.
_MORE = 8
# A factor nearer to 1 than this is rounding.
_SAME_SCALE = 1e-3


class _Sample(NamedTuple):
    """What one slice shows."""

    lines: Lines
    is_full: bool
    row: Peak
    column: Peak
    is_off_center: bool
    alternates: bool
    is_projection: bool


def examine(volume: Volume, name: str, num_samples: int = 3) -> "ExaminedVolume":
    """Read a few slices of a volume and hold what its header claims against them.

    Args:
        volume: As its reader opened it.
        name: Of the file, for messages.
        num_samples: Slices to look into, at least 1; more are read only until one of them shows an object.

    Raises:
        ScanError: The zero frequency is not in the middle of k-space, readouts run to and fro, or all of them pass through the centre. A
            slice cannot be read.
    """
    examined = ExaminedVolume(volume)
    if volume.num_partitions > 1:  # No slice of it can be used; curation says so.
        return examined
    # Noise and air tell nothing.
    samples = [sample for sample in examined.take_samples(num_samples) if sample.row.is_distinct]
    of_lines = [sample for sample in samples if sample.column.is_distinct]
    shown = [sample for sample in of_lines if sample.is_off_center]
    if 2 * len(shown) > len(of_lines):
        height, width = volume.header.height, volume.header.width
        raise ScanError(
            f"{name}: zero frequency at row {shown[0].row.line}, column {shown[0].column.line}",
            f"a k-space of {height} x {width} has it at {height // 2}, {width // 2}, where the image is made from",
            "Shift it there (numpy.fft.fftshift where it lies in the corner), or export the scan again.",
        )
    if 2 * sum(sample.is_projection for sample in samples) > len(samples):
        raise projection_error(name)
    if 2 * sum(sample.alternates for sample in of_lines) > len(of_lines):
        raise ScanError(
            f"{name}: every second line runs backwards",
            "read as lines it is a ghost: an echo-planar scan, or one whose readouts should be turned over",
            "Leave it out, or export it with its readouts turned over.",
        )
    return examined


def measured_range(lines: Lines, claimed: tuple[int, int]) -> tuple[int, int]:
    """Return the measured lines [left, right): a header's claim, narrowed to what is there, or widened where more is there.

    One line beyond the claim is what odd matrices differ by; it stays out, as fastMRI leaves it out.

    Args:
        lines: Which hold anything, at least one.
        claimed: Of the header.
    """
    there = np.flatnonzero(lines)
    first, last = int(there[0]), int(there[-1]) + 1
    left = first if first < claimed[0] - 1 else max(first, claimed[0])
    right = last if last > claimed[1] + 1 else min(last, claimed[1])
    return (left, right) if left < right else (first, last)


class ExaminedVolume:
    """A volume whose claims were held against its samples; what was found stands in ``findings``.

    Attributes:
        examined: The images that were looked into: slices, or frames of slices (``Volume``).
        energies: ``energy_of`` the slices that were, and of those that showed nothing.
        target_scale: Factor between the stored targets and the root sum of squares of the k-space; None where the stored
            targets, if there are any, are not used.
    """

    def __init__(self, volume: Volume) -> None:
        """Wrap a volume; ``take_samples`` looks into it."""
        self._volume = volume
        self._header = volume.header
        self._told: list[str] = list(volume.findings)
        self._applies_mask = True
        self._replaced: set[int] = set()
        self._last: tuple[int, NDArray[np.complex64]] | None = None
        self.examined: tuple[int, ...] = ()
        self.energies: dict[int, Energy] = {}
        self.target_scale: float | None = None

    def take_samples(self, num_samples: int) -> list[_Sample]:
        """Look into the slices in the middle and at the quarters, each at another time, and into a few more until one shows an object."""
        slices, frames = self._header.num_slices, self._header.num_frames or 1
        quarters = (quarter * slices // 4 * frames + quarter * frames // 4 for quarter in (2, 1, 3))
        wanted = list(dict.fromkeys(quarters))[:num_samples]
        others = [index for index in range(self._header.num_images) if index not in wanted]
        # Evenly over the volume: the first and the last slices are the likeliest to be empty.
        more = [others[position] for position in np.linspace(0, len(others) - 1, min(len(others), _MORE)).round().astype(int)]
        samples: dict[int, _Sample] = {}
        for position, index in enumerate([*wanted, *more]):
            if position >= len(wanted) and any(sample.row.is_distinct for sample in samples.values()):
                break
            kspace = self.read_slice(index)
            if np.isfinite(kspace).all() and kspace.any():
                self.energies[index] = energy_of(kspace)
                samples[index] = _look_at(kspace, self.energies[index])
        telling = [index for index, sample in samples.items() if sample.row.is_distinct]
        self.examined = tuple(telling or samples)[:num_samples]
        if samples:
            self._settle_lines(samples)
            self._settle_targets([index for index in self.examined if samples[index].is_full])
        return list(samples.values())

    @property
    def header(self) -> VolumeHeader:
        """De-identified header, with the measured lines that the samples show."""
        return self._header

    @property
    def num_partitions(self) -> int:
        """Phase encodes along the slice direction; 1 for a 2D encode."""
        return self._volume.num_partitions

    @property
    def is_location_safe(self) -> bool:
        """Whether the file's location may be written into a catalog."""
        return self._volume.is_location_safe

    @property
    def stated_recon(self) -> tuple[int, int]:
        """Image matrix (height, width) that the header states."""
        return self._volume.stated_recon

    @property
    def is_phase_first(self) -> bool:
        """Whether the file's own axes are (phase, readout)."""
        return self._volume.is_phase_first

    @property
    def calibration(self) -> Calibration | None:
        """Calibration lines that are no part of the k-space."""
        return self._volume.calibration

    @property
    def in_place_defect(self) -> str:
        """Why no byte of the file can serve where it lies."""
        return self._volume.in_place_defect

    @property
    def findings(self) -> tuple[str, ...]:
        """What was taken, merged, corrected or taken on trust, so far: targets are judged when they are read."""
        if not self._replaced:
            return tuple(self._told)
        which = (
            "the stored target" if self._header.num_images == 1 else f"{len(self._replaced)} of {self._header.num_images} stored targets"
        )
        verb = "is" if len(self._replaced) == 1 else "are"
        return (*self._told, f"{which} {verb} not of the k-space beside it: computed from the k-space instead")

    def read_slice(self, index: int) -> NDArray[np.complex64]:
        """Return k-space of one slice: complex64 (coils, height, width)."""
        if self._last is None or self._last[0] != index:
            self._last = None
            self._last = (index, self._volume.read_slice(index))
        return self._last[1]

    def read_target(self, index: int) -> NDArray[np.float32] | None:
        """Return the stored target of one slice, float32 (recon_height, recon_width); None where there is none or it is another image's."""
        own = self._volume.read_target(index) if self.target_scale is not None else None
        if own is None or self.target_scale is None:
            return None
        if is_of(own, self.read_slice(index), self.target_scale):
            return own
        self._replaced.add(index)
        return None

    def computed_target(self, index: int) -> NDArray[np.float32]:
        """Return the root sum of squares of one slice, on the scale of the stored targets where those are used."""
        image = rss_target(self.read_slice(index), (self._header.recon_height, self._header.recon_width))
        return image if self.target_scale is None else (image * np.float32(self.target_scale)).astype(np.float32)

    def raw_slice_range(self, index: int) -> ByteRange | None:
        """Return where the slice lies in the file as contiguous complex64, or None."""
        return self._volume.raw_slice_range(index)

    def raw_target_range(self, index: int) -> ByteRange | None:
        """Return where a target that is used lies in the file as contiguous float32, or None."""
        return None if self.target_scale is None else self._volume.raw_target_range(index)

    def mask(self, index: int) -> Lines | None:
        """Return the phase-encode lines of one slice that the file says were acquired, bool (width,); None where it says nothing."""
        return self._volume.mask(index) if self._applies_mask else None

    def close(self) -> None:
        """Close the file; reading is over."""
        self._last = None
        self._volume.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _settle_lines(self, samples: Mapping[int, _Sample]) -> None:
        """Correct the header's measured lines, and drop a mask that lies beside a full k-space."""
        lines = np.logical_or.reduce([sample.lines for sample in samples.values()])
        claimed = (self._header.padding_left, self._header.padding_right)
        there = np.flatnonzero(lines)
        first, last = int(there[0]), int(there[-1])
        if first < claimed[0] - 1 or last > claimed[1]:
            self._told.append(f"the header says lines {claimed[0]} to {claimed[1] - 1} were measured, the k-space holds {first} to {last}")
            # Of a grid that moves from slice to slice these few show not every line.
            is_whole = all(sample.is_full for sample in samples.values())
            left, right = (first, last + 1) if is_whole else (0, self._header.width)
            self._header = dataclasses.replace(self._header, padding_left=left, padding_right=right)
        left, right = measured_range(lines, (self._header.padding_left, self._header.padding_right))
        masks = [self._volume.mask(index) for index in range(self._header.num_images)]
        is_full = all(sample.lines[left:right].all() for sample in samples.values())
        if is_full and any(mask is not None and not mask[left:right].all() for mask in masks):
            self._applies_mask = False
            self._told.append("a mask lies beside a k-space that is full: it is not applied")
        elif any(mask is not None and sample.lines[~mask].any() for mask, sample in ((masks[index], samples[index]) for index in samples)):
            self._told.append("a mask names fewer lines than the k-space holds: the k-space decides")

    def _settle_targets(self, indices: list[int]) -> None:
        """Find the factor between stored targets and k-space; without one the stored targets are not used."""
        stored = {index: self._volume.read_target(index) for index in indices}
        scales = [scale_of(own, self.read_slice(index)) for index, own in stored.items() if own is not None]
        found = [scale for scale in scales if scale is not None]
        if found:
            self.target_scale = float(np.median(found))
            if abs(self.target_scale - 1) < _SAME_SCALE:
                self.target_scale = 1.0
            else:
                self._told.append(f"stored targets are {self.target_scale:.4g} times the root sum of squares of the k-space")
        elif scales:
            height, width = self._volume.stated_recon
            self._header = dataclasses.replace(self._header, recon_height=height, recon_width=width)
            self._told.append("stored targets are not of the k-space beside them: all are computed from the k-space instead")


def _look_at(kspace: NDArray[np.complex64], energy: Energy) -> _Sample:
    lines = acquired(energy)
    there = np.flatnonzero(lines)
    is_full = bool(lines[there[0] : there[-1] + 1].all()) and not find_holes(energy).lines
    row, column = find_peak(energy, 0), find_peak(energy, 1)
    height, width = energy.shape
    is_off = is_off_center(row, height) or is_off_center(column, width)
    # Noise looks like anything.
    is_ghost = row.is_distinct and column.is_distinct and alternates(kspace, lines, column.line)
    return _Sample(lines, is_full, row, column, is_off, is_ghost, is_projection(row, column))
