"""From single readouts to k-space: what raw ISMRMRD and twix files have in common.

Every readout goes to its slice and its phase-encode column, and along the readout to where its own echo says that it was measured, so
that the zero frequency lies at ``n // 2`` along both axes; averages of one column are averaged. What headers say of the zero
frequency is held against where the energy lies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from echotrain.data.formats.checks.energy import Peak, peak_of, tolerance
from echotrain.data.formats.checks.projection import is_projection, projection_error
from echotrain.data.formats.hdf5 import reading
from echotrain.data.formats.header import VolumeHeader
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.readouts import Readouts, Selected
from echotrain.data.formats.volume import ByteRange, Calibration
from echotrain.errors import ScanError

__all__ = ["Claim", "Geometry", "LineVolume", "Matrix", "place_lines", "recon_size"]

_EXPORT_AGAIN = "Export the scan again."
ReadLines = Callable[[Sequence[int]], Sequence[np.ndarray]]


class Claim(NamedTuple):
    """Where a source says that the zero frequency lies.

    Attributes:
        source: Who says so, for findings.
        center: Phase-encode counter.
        width: Phase-encode matrix that follows.
        needs_peak: Whether it counts only where the energy bears it out.
    """

    source: str
    center: int
    width: int
    needs_peak: bool = False


class Matrix(NamedTuple):
    """Readout matrix of a header: samples with and without oversampling, 0 where unknown."""

    encoded: int
    recon: int


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How readouts become a k-space matrix.

    Attributes:
        height: Readout matrix, oversampling included.
        width: Phase-encode matrix.
        center_step: Phase-encode counter of the zero frequency.
        sample_shift: What is added to each readout's own statement of its echo, where the energy contradicts it.
        num_coils: Receive channels.
        num_slices: Slices.
        num_frames: Times that each was measured at, None for one.
        left, right: Measured columns [left, right).
    """

    height: int
    width: int
    center_step: int
    sample_shift: int
    num_coils: int
    num_slices: int
    num_frames: int | None
    left: int
    right: int

    def column(self, step: int) -> int:
        """Return the column of a phase-encode counter."""
        return self.width // 2 - self.center_step + step

    def first_row(self, line: Any) -> int:
        """Return the row of the first sample of a readout, once it runs forwards; below 0 where it begins outside the matrix."""
        return self.height // 2 - _echo(line, self.sample_shift)


def place_lines(
    name: str,
    selected: Selected,
    read_lines: ReadLines,
    *,
    matrix: Matrix,
    claims: Callable[[int, int], Sequence[Claim]],
    limits: ReadLimits,
) -> tuple[Geometry, list[str]]:
    """Settle where readouts go, by what the header claims and where the energy of an image in the middle lies.

    Args:
        name: File name, for messages.
        selected: Readouts of the slices.
        read_lines: Returns the samples, complex64 (coils, samples), of several ``ref``.
        matrix: Of the header.
        claims: Returns, for the last counter and a center that the data suggest, what may be the center, the most trusted first.
        limits: Memory limits.

    Returns:
        The geometry, and what of the header was overruled.

    Raises:
        ScanError: Readouts differ, do not fit, or the matrix breaks a limit.
    """
    lines = selected.lines
    for what in ("num_samples", "num_coils"):
        low, high = int(lines[what].min()), int(lines[what].max())
        if low != high:
            label = {"num_samples": "samples per readout", "num_coils": "coils"}[what]
            raise ScanError(f"{name}: {low} to {high} {label}", "all readouts must agree", _EXPORT_AGAIN)
    num_samples, num_coils = int(lines["num_samples"][0]), int(lines["num_coils"][0])
    images = lines["slice"] * (selected.num_frames or 1) + lines["phase"]
    num_images, most = selected.num_slices * (selected.num_frames or 1), int(np.bincount(images).max())
    limits.check_array(name, (num_images, most, num_coils, num_samples), np.dtype(np.complex64).itemsize, slice_axes=3)
    along, over = _peaks(name, selected, read_lines)
    if is_projection(along, over):
        raise projection_error(name)
    if over.is_distinct and over.rivals:
        raise ScanError(
            f"{name}: {over.rivals + 1} centres of k-space among lines {int(lines['step'].min())} to {int(lines['step'].max())}",
            "one slice has one: slices or repetitions run on in the counter of lines",
            "Export it with its counters (slice, repetition) filled in.",
        )
    shift, told = _settle_samples(lines, along, num_samples)
    center, width, about = _settle_center(name, lines, over, claims)
    height, why = _settle_height(name, lines, shift, num_samples, matrix)
    columns = width // 2 - center + lines["step"]
    geometry = Geometry(
        height=height,
        width=width,
        center_step=center,
        sample_shift=shift,
        num_coils=num_coils,
        num_slices=selected.num_slices,
        num_frames=selected.num_frames,
        left=int(columns.min()),
        right=int(columns.max()) + 1,
    )
    limits.check_array(name, (num_images, num_coils, height, width), np.dtype(np.complex64).itemsize, slice_axes=3)
    return geometry, told + about + why + _check_rows(name, lines, geometry)


class LineVolume:
    """A raw scan whose readouts are sorted when a slice is read."""

    # A raw scan is always converted, so nobody needs its location; it has no images, and its axes are what its counters say.
    is_location_safe = False
    is_phase_first = False
    in_place_defect = ""

    def __init__(
        self,
        name: str,
        *,
        header: VolumeHeader,
        geometry: Geometry,
        selected: Selected,
        num_partitions: int,
        read_lines: ReadLines,
        close: Callable[[], None],
        findings: Sequence[str],
    ) -> None:
        """Wrap what a reader found.

        Args:
            name: File name, for messages.
            header: De-identified header.
            geometry: From ``place_lines``.
            selected: Readouts of the slices.
            num_partitions: Phase encodes along the slice direction.
            read_lines: As of ``place_lines``.
            close: Closes the file.
            findings: What the reader has to tell.
        """
        self.header, self.num_partitions, self.findings = header, num_partitions, tuple(findings)
        self.stated_recon = (header.recon_height, header.recon_width)
        self._name, self._geometry, self._read_lines, self._close = name, geometry, read_lines, close
        ordered = selected.lines[np.argsort(selected.lines["ref"], kind="stable")]
        images = ordered["slice"] * (selected.num_frames or 1) + ordered["phase"]
        self._lines: list[Readouts] = [ordered[images == image] for image in range(header.num_images)]
        self._separate = selected.separate

    @property
    def calibration(self) -> Calibration | None:
        """Calibration lines that are no part of the k-space."""
        steps = np.unique(self._separate["step"])
        return Calibration(len(steps), bool((steps == self._geometry.center_step).any())) if len(steps) else None

    def read_slice(self, index: int) -> np.ndarray:
        """Return sorted k-space of one image: complex64 (coils, height, width)."""
        geometry, lines = self._geometry, self._lines[index]
        kspace = np.zeros((geometry.num_coils, geometry.height, geometry.width), dtype=np.complex64)
        counts = np.zeros(geometry.width, dtype=np.float32)
        for line, samples in zip(lines, _read(self._name, lines, self._read_lines), strict=True):
            column, row = geometry.column(int(line["step"])), geometry.first_row(line)
            first, last = max(row, 0), min(row + samples.shape[1], geometry.height)
            kspace[:, first:last, column] += samples[:, first - row : last - row]
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

    def mask(self, index: int) -> np.ndarray | None:
        """Return the acquired lines of an image where some between the first and the last of the volume are missing, else None."""
        mask = np.zeros(self.header.width, dtype=bool)
        mask[[self._geometry.column(int(step)) for step in self._lines[index]["step"]]] = True
        return None if mask[self.header.padding_left : self.header.padding_right].all() else mask

    def close(self) -> None:
        """Close the file."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def recon_size(matrix: int, encoded_mm: float, recon_mm: float, recon_matrix: int) -> int:
    """Return how many pixels of the encoded matrix the reconstructed field of view covers.

    The scanner may also interpolate; a crop cannot, so the field of view decides where both are known.
    """
    if encoded_mm > 0 and recon_mm > 0:
        return max(1, min(matrix, round(matrix * recon_mm / encoded_mm)))
    return min(matrix, recon_matrix)


def _echo(line: Any, shift: int) -> int:
    """Return the sample of the echo of one readout once it runs forwards."""
    center = int(line["center_sample"])
    return (int(line["num_samples"]) - 1 - center if line["is_reversed"] else center) + shift


def _read(name: str, lines: Readouts, read_lines: ReadLines) -> list[np.ndarray]:
    """Return the samples of some readouts, all of them running forwards."""
    with reading(name, "the readouts"):
        readouts = read_lines(lines["ref"].tolist())
    for line, samples in zip(lines, readouts, strict=True):
        expected = (int(line["num_coils"]), int(line["num_samples"]))
        if samples.shape != expected:
            raise ScanError(f"{name}: a readout of {samples.shape}", f"its head declares {expected} (coils, samples)", _EXPORT_AGAIN)
    return [samples[:, ::-1] if line["is_reversed"] else samples for line, samples in zip(lines, readouts, strict=True)]


def _peaks(name: str, selected: Selected, read_lines: ReadLines) -> tuple[Peak, Peak]:
    """Return the strongest sample of the readouts that run forwards, and the strongest phase-encode counter, of the image in the middle."""
    middle = (selected.num_slices // 2, (selected.num_frames or 1) // 2)
    lines = selected.lines[(selected.lines["slice"] == middle[0]) & (selected.lines["phase"] == middle[1])]
    by_step = np.zeros(int(selected.lines["step"].max()) + 1)
    by_sample = np.zeros(int(lines["num_samples"][0]))
    is_forward = ~lines["is_reversed"] if not lines["is_reversed"].all() else np.ones(len(lines), bool)
    for line, forward, samples in zip(lines, is_forward, _read(name, lines, read_lines), strict=True):
        amplitudes = np.sqrt(np.square(np.abs(samples), dtype=np.float64).sum(axis=0))
        if np.isfinite(amplitudes).all():
            by_step[line["step"]] = max(by_step[line["step"]], float(amplitudes.sum()))
            by_sample += amplitudes * forward
    return peak_of(by_sample, by_sample > 0), peak_of(by_step, by_step > 0)


def _settle_samples(lines: Readouts, peak: Peak, num_samples: int) -> tuple[int, list[str]]:
    """Return what corrects the readouts' own statements of their echo: 0 unless the energy contradicts them."""
    forward = lines[~lines["is_reversed"]] if not lines["is_reversed"].all() else lines
    stated = _echo(forward[0], 0)
    if not peak.is_distinct or abs(stated - peak.line) <= tolerance(num_samples):
        return 0, []
    found = num_samples // 2 if abs(num_samples // 2 - peak.line) <= tolerance(num_samples) else peak.line
    return found - stated, [f"readouts say that their echo is at sample {stated}, their energy lies at {peak.line}: {found} is taken"]


def _settle_center(name: str, lines: Readouts, peak: Peak, claims: Callable[[int, int], Sequence[Claim]]) -> tuple[int, int, list[str]]:
    """Return the counter of the zero frequency and the width: of the first claim that fits the counters and the energy."""
    first, last = int(lines["step"].min()), int(lines["step"].max())
    made = claims(last, peak.line)
    for claim in made:
        fits = claim.width // 2 - claim.center + first >= 0 and claim.width // 2 - claim.center + last < claim.width
        is_borne_out = abs(claim.center - peak.line) <= tolerance(claim.width) if peak.is_distinct else not claim.needs_peak
        if fits and is_borne_out:
            is_overruled = (claim.center, claim.width) != (made[0].center, made[0].width)
            told = f"the header puts the centre of k-space at line {made[0].center} of {made[0].width}"
            taken = f"line {claim.center} of {claim.width} is taken, {claim.source}"
            return claim.center, claim.width, [f"{told}: {taken}"] if is_overruled else []
    columns = [made[0].width // 2 - made[0].center + step for step in (first, last)]
    raise ScanError(
        f"{name}: phase encodes at columns {columns[0]} to {columns[1]}, the strongest line at {columns[0] + peak.line - first}",
        f"the header's matrix has {made[0].width}, its centre at {made[0].width // 2}",
        "Header and data disagree; export the scan again.",
    )


def _settle_height(name: str, lines: Readouts, shift: int, num_samples: int, matrix: Matrix) -> tuple[int, list[str]]:
    """Return the readout matrix.

    A readout of half the header's samples whose echo is in its middle has had its oversampling removed; any other short one is a
    partial echo. One of twice the header's samples is oversampled under a header that speaks of the image (OpenRecon).
    """
    if num_samples == matrix.encoded:
        return num_samples, []
    # Of a readout that runs backwards the middle is a sample off once it is turned over.
    is_centered = abs(_echo(lines[0], shift) - num_samples // 2) <= 1
    if num_samples < matrix.encoded:
        is_cropped = is_centered and (2 * num_samples == matrix.encoded or num_samples == matrix.recon)
        if is_cropped:
            return num_samples, [
                f"readouts of {num_samples} samples under a header of {matrix.encoded}: their oversampling was removed before"
            ]
        return matrix.encoded, []
    if num_samples == 2 * matrix.encoded and is_centered:
        return num_samples, [f"readouts of {num_samples} samples under a header of {matrix.encoded}: they are oversampled twice"]
    raise ScanError(f"{name}: readouts of {num_samples} samples", f"the header's matrix has {matrix.encoded}", "Header and data disagree.")


def _check_rows(name: str, lines: Readouts, geometry: Geometry) -> list[str]:
    """Refuse readouts that lie outside the matrix by more than the few samples at its edge that turning them over costs."""
    kinds = np.unique(lines[["is_reversed", "center_sample", "num_samples"]])
    rows = np.array([geometry.first_row(kind) for kind in kinds])
    beyond = np.maximum(np.maximum(-rows, rows + kinds["num_samples"] - geometry.height), 0)
    if beyond.max() > tolerance(geometry.height):
        worst = kinds[int(np.argmax(beyond))]
        raise ScanError(
            f"{name}: readouts of {worst['num_samples']} samples with the echo at {worst['center_sample']}",
            f"do not fit a matrix of {geometry.height}",
            _EXPORT_AGAIN,
        )
    return [f"cut up to {beyond.max()} samples at the edge of k-space, beyond the matrix"] if beyond.max() else []
