"""The pixels of a DICOM file: how they are written, where an image of them lies, and its values."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from echotrain.errors import ScanError

__all__ = ["PixelFormat", "Plane", "pixel_format", "read_plane"]

_EXPORT_AGAIN = "Export the images again."


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """How a file writes its pixels.

    Attributes:
        height, width: Matrix.
        dtype: Of a pixel in the file, with its byte order.
        bits: Those of it that count, from the lowest on.
        is_signed: Whether they are a two's complement.
        is_inverted: Whether the smallest number is white (MONOCHROME1).
    """

    height: int
    width: int
    dtype: str
    bits: int
    is_signed: bool
    is_inverted: bool

    @property
    def nbytes(self) -> int:
        """Bytes of an image in the file."""
        return self.height * self.width * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Where one image lies, in its file and in space.

    Attributes:
        path: The file.
        offset: First byte of its pixels.
        pixels: How they are written.
        slope, intercept: What turns them into values.
        position: Of the first pixel's centre, millimetres, towards left, back and head.
        axes: Directions along a row and along a column.
        spacing: Millimetres between rows, between columns.
        thickness: Of the slice, millimetres; 0 where nothing says.
    """

    path: Path
    offset: int
    pixels: PixelFormat
    slope: float
    intercept: float
    position: tuple[float, ...]
    axes: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float


def pixel_format(name: str, tags: Mapping[str, str], order: str) -> PixelFormat:
    """Return how a file's header says that its pixels are written.

    Args:
        name: Of the file, for messages.
        tags: The header's values by name.
        order: Of the bytes, ``<`` or ``>``.

    Raises:
        ScanError: They are no grey whole numbers, or not in one of the ways that are read.
    """
    kind = tags["PhotometricInterpretation"].upper()
    if int(tags["SamplesPerPixel"] or 1) != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ScanError(f"{name}: a colour image", "only grey ones are read", "Leave it out.")
    numbers = {each: int(tags[each] or 0) for each in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")}
    allocated, bits = numbers["BitsAllocated"], numbers["BitsStored"]
    if allocated not in (8, 16, 32) or not 1 <= bits <= allocated or numbers["HighBit"] != bits - 1:
        raise ScanError(f"{name}: {bits} bits of {allocated}", "must be the lowest of 8, 16 or 32", _EXPORT_AGAIN)
    if min(numbers["Rows"], numbers["Columns"]) < 1 or numbers["PixelRepresentation"] not in (0, 1):
        raise ScanError(f"{name}: an image of {numbers['Rows']} x {numbers['Columns']}", "must have pixels, signed or not", _EXPORT_AGAIN)
    return PixelFormat(
        height=numbers["Rows"],
        width=numbers["Columns"],
        dtype=f"{order}u{allocated // 8}",
        bits=bits,
        is_signed=numbers["PixelRepresentation"] == 1,
        is_inverted=kind == "MONOCHROME1",
    )


def read_plane(plane: Plane) -> NDArray[np.float32]:
    """Return an image's values, float32 (height, width).

    Raises:
        ScanError: The file is shorter than it was.
    """
    form = plane.pixels
    with plane.path.open("rb") as file:
        file.seek(plane.offset)
        data = file.read(form.nbytes)
    if len(data) != form.nbytes:
        raise ScanError(plane.path.name, "changed while it was read", "Run prepare again.")
    stored = np.frombuffer(data, form.dtype).astype(np.int64)
    stored &= (1 << form.bits) - 1
    lowest = 0
    if form.is_signed:
        lowest = -(1 << (form.bits - 1))
        stored = np.where(stored >= -lowest, stored + 2 * lowest, stored)
    if form.is_inverted:
        stored = 2 * lowest + (1 << form.bits) - 1 - stored
    values = stored * plane.slope + plane.intercept
    return values.astype(np.float32).reshape(form.height, form.width)
