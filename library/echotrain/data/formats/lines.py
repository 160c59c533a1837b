"""From single readouts to k-space: what raw ISMRMRD and twix files have in common.

Readouts come in the order of acquisition. Each is put into its slice and phase-encode column, so that the zero
frequency lies at ``n // 2`` along both axes; averages of one column are averaged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from echotrain.data.formats.hdf5 import reading
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.volume import ByteRange
from echotrain.data.header import VolumeHeader
from echotrain.errors import ScanError

__all__ = ["Geometry", "Line", "LineVolume", "check_lines", "recon_size"]

_EXPORT_AGAIN = "Export the scan again."


class Line(NamedTuple):
    """One readout of all coils.

    Attributes:
        slice: Slice counter of the file.
        step: Phase-encode counter of the file.
        ref: Where the reader finds its samples.
        is_reversed: Acquired backwards, as every second line of an EPI.
    """

    slice: int
    step: int
    ref: int
    is_reversed: bool


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How readouts become a k-space matrix.

    Attributes:
        height: Readout matrix, oversampling included.
        width: Phase-encode matrix.
        center_step: Phase-encode counter of the zero frequency.
        num_samples: Samples per readout; fewer than ``height`` for an asymmetric echo.
        center_sample: Sample of the echo.
        num_coils: Receive channels.
        num_partitions: Phase encodes along the slice direction.
    """

    height: int
    width: int
    center_step: int
    num_samples: int
    center_sample: int
    num_coils: int
    num_partitions: int = 1

    def column(self, step: int) -> int:
        """Return the column of a phase-encode counter."""
        return self.width // 2 - self.center_step + step

    def first_row(self, name: str) -> int:
        """Return the row of the first sample.

        Raises:
            ScanError: The readout does not fit the matrix.
        """
        if self.num_samples == self.height:
            return 0
        row = self.height // 2 - self.center_sample
        if not 0 <= row <= self.height - self.num_samples:
            raise ScanError(
                f"{name}: readouts of {self.num_samples} samples with the echo at {self.center_sample}",
                f"do not fit a matrix of {self.height}",
                _EXPORT_AGAIN,
            )
        return row


class LineVolume:
    """A raw scan whose readouts are sorted when a slice is read."""

    def __init__(
        self,
        name: str,
        *,
        header: VolumeHeader,
        geometry: Geometry,
        lines: Sequence[Line],
        read_lines: Callable[[Sequence[int]], Sequence[np.ndarray]],
        close: Callable[[], None],
    ) -> None:
        """Wrap what a reader found.

        Args:
            name: File name, for messages.
            header: De-identified header.
            geometry: The matrix.
            lines: Imaging readouts; every column must lie in the matrix (``check_lines``).
            read_lines: Returns the samples, complex64 (coils, samples), of several ``Line.ref``.
            close: Closes the file.
        """
        self.header = header
        # A raw scan is always converted, so nobody needs its location.
        self.is_location_safe = False
        self.num_partitions = geometry.num_partitions
        self._name, self._geometry, self._read_lines, self._close = name, geometry, read_lines, close
        self._row = geometry.first_row(name)
        counters = sorted({line.slice for line in lines})
        self._lines: list[list[Line]] = [[] for _ in counters]
        position = {counter: index for index, counter in enumerate(counters)}
        for line in lines:
            self._lines[position[line.slice]].append(line)

    def read_slice(self, index: int) -> np.ndarray:
        """Return sorted k-space of one slice: complex64 (coils, height, width)."""
        geometry, lines = self._geometry, sorted(self._lines[index], key=lambda line: line.ref)
        kspace = np.zeros((geometry.num_coils, geometry.height, geometry.width), dtype=np.complex64)
        counts = np.zeros(geometry.width, dtype=np.float32)
        expected = (geometry.num_coils, geometry.num_samples)
        with reading(self._name, "the readouts"):
            readouts = self._read_lines([line.ref for line in lines])
        for line, samples in zip(lines, readouts, strict=True):
            if samples.shape != expected:
                raise ScanError(
                    f"{self._name}: a readout of {samples.shape}", f"the others have {expected} (coils, samples)", _EXPORT_AGAIN
                )
            column = geometry.column(line.step)
            kspace[:, self._row : self._row + geometry.num_samples, column] += samples[:, ::-1] if line.is_reversed else samples
            counts[column] += 1
        kspace /= np.maximum(counts, 1)
        return kspace

    def read_target(self, index: int) -> np.ndarray | None:
        """Return None: raw files have no images."""
        return None

    def raw_slice_range(self, index: int) -> ByteRange | None:
        """Return None: readouts lie scattered over the file."""
        return None

    def raw_target_range(self, index: int) -> ByteRange | None:
        """Return None: raw files have no images."""
        return None

    def mask(self) -> np.ndarray | None:
        """Return the acquired lines where some between the first and the last are missing, else None."""
        mask = np.zeros(self.header.width, dtype=bool)
        mask[[self._geometry.column(line.step) for lines in self._lines for line in lines]] = True
        return None if mask[self.header.padding_left : self.header.padding_right].all() else mask

    def close(self) -> None:
        """Close the file."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def check_lines(name: str, geometry: Geometry, lines: Sequence[Line], limits: ReadLimits) -> tuple[int, int, int]:
    """Check that every readout has a place and that a slice fits in memory.

    Returns:
        Number of slices, and the measured columns [left, right).

    Raises:
        ScanError: There is no imaging readout, one lies outside the matrix, or the matrix breaks a limit.
    """
    if not lines:
        raise ScanError(f"{name}: no imaging readouts", "at least one slice is needed", "Check that this is the imaging scan.")
    columns = [geometry.column(line.step) for line in lines]
    left, right = min(columns), max(columns) + 1
    if left < 0 or right > geometry.width:
        raise ScanError(
            f"{name}: phase encodes at columns {left} to {right - 1}",
            f"the header's matrix has {geometry.width}",
            "Header and data disagree.",
        )
    num_slices = len({line.slice for line in lines})
    shape = (num_slices, geometry.num_coils, geometry.height, geometry.width)
    limits.check_array(name, shape, np.dtype(np.complex64).itemsize, slice_axes=3)
    return num_slices, left, right


def recon_size(matrix: int, encoded_mm: float, recon_mm: float, recon_matrix: int) -> int:
    """Return how many pixels of the encoded matrix the reconstructed field of view covers.

    The scanner may also interpolate; a crop cannot, so the field of view decides where both are known.
    """
    if encoded_mm > 0 and recon_mm > 0:
        return max(1, min(matrix, round(matrix * recon_mm / encoded_mm)))
    return min(matrix, recon_matrix)
