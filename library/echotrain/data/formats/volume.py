"""What every reader yields: one multi-coil volume, read slice by slice, or frame by frame of every slice."""

from types import TracebackType
from typing import NamedTuple, Protocol, Self

import numpy as np

from echotrain.data.formats.header import VolumeHeader

__all__ = ["ByteRange", "Calibration", "Volume"]


class ByteRange(NamedTuple):
    """Where an array lies, as plain little-endian bytes, in the scanner's own file."""

    offset: int
    nbytes: int


class Calibration(NamedTuple):
    """Calibration lines that were measured apart from the image and are no part of its k-space.

    Attributes:
        num_lines: Of a slice.
        holds_center: Whether the line of zero frequency is among them.
    """

    num_lines: int
    holds_center: bool


class Volume(Protocol):
    """One volume of Cartesian k-space, opened; a context manager that closes its file.

    Its images are counted from 0 to ``header.num_images``: its slices or, where these were measured at several times, all frames of the
    first slice, then of the second, and so on (``header.place``). Every read may raise ``ScanError`` naming the file.

    Attributes:
        header: De-identified header.
        num_partitions: Phase encodes along the slice direction: more than 1 is a 3D encode, which cannot be reconstructed slice-wise.
        is_location_safe: Whether the location given at opening holds nothing that points at the patient, and may be written down.
        stated_recon: Image matrix (height, width) that the header states, whatever the stored target's is.
        is_phase_first: Whether the file stores (phase, readout). What is read here is (readout, phase) all the same.
        findings: What of the file was taken, merged, corrected or taken on trust, a phrase each, free of names and identifiers.
        calibration: Calibration lines that are no part of the k-space, None where there are none.
        in_place_defect: Why no byte of the file can serve where it lies, a phrase; "" where the ranges below say it slice by slice.
    """

    @property
    def header(self) -> VolumeHeader:
        """De-identified header."""

    @property
    def num_partitions(self) -> int:
        """Phase encodes along the slice direction; 1 for a 2D encode."""

    @property
    def is_location_safe(self) -> bool:
        """Whether the file's location may be written into a catalog."""

    @property
    def stated_recon(self) -> tuple[int, int]:
        """Image matrix (height, width) that the header states."""

    @property
    def is_phase_first(self) -> bool:
        """Whether the file's own axes are (phase, readout)."""

    @property
    def findings(self) -> tuple[str, ...]:
        """What was taken, merged, corrected or taken on trust."""

    @property
    def calibration(self) -> Calibration | None:
        """Calibration lines that are no part of the k-space."""

    @property
    def in_place_defect(self) -> str:
        """Why no byte of the file can serve where it lies."""

    def read_slice(self, index: int) -> np.ndarray:
        """Return k-space of one image: complex64 (coils, height, width)."""

    def read_target(self, index: int) -> np.ndarray | None:
        """Return the target of one image, float32 (recon_height, recon_width), or None where the file has none."""

    def raw_slice_range(self, index: int) -> ByteRange | None:
        """Return where the image's k-space lies in the file as contiguous complex64, or None."""

    def raw_target_range(self, index: int) -> ByteRange | None:
        """Return where the target lies in the file as contiguous float32, or None."""

    def mask(self, index: int) -> np.ndarray | None:
        """Return the phase-encode lines of one image that the file says were acquired, bool (width,); None where it says nothing."""

    def close(self) -> None:
        """Close the file; reading is over."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
