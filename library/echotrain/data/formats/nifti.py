"""NIfTI volumes of strangers, plain or gzipped: a header that is parsed within bounds, and values that are read as plain numbers.

Slices are put in one order and one orientation, whatever the file's axes are: those of DICOM as scanners show them. Axial ones are seen
from the feet and go up, sagittal ones from the left and go to the right, coronal ones from the front and go to the back; up is up.
"""

import contextlib
import dataclasses
import gzip
import io
import math
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from echotrain.data.formats.deidentify import Deidentifier, Identity, Witness
from echotrain.data.formats.image_volume import ImageHeader, OpenedImages, check_size
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.protocol import parse_protocol
from echotrain.errors import ScanError
from echotrain.units import human_bytes

__all__ = ["NIFTI_ENDINGS", "NiftiVolume", "is_nifti", "open_nifti"]

NIFTI_ENDINGS = (".nii", ".nii.gz")
_GZIP = b"\x1f\x8b"
# Of the header, by its size in bytes: where its magic lies, and what that is.
_MAGICS = {348: (344, b"n+1\x00"), 540: (4, b"n+2\x00\r\n\x1a\n")}
_HEADER_BYTES = 540
# Deflate cannot expand by more than about 1032.
_MAX_EXPANSION = 1100
_CHUNK = 1 << 20
_NUMBERS = "uif"
_EXPORT_AGAIN = "Export the volume again."


class _Layout(NamedTuple):
    """What an axis of slices, and the axes of an image, are in (right, front, up): which axis each is, and which way it goes."""

    name: str
    slices: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]


# By the axis of slices.
_LAYOUTS = (
    _Layout("SAG", (0, 1), (2, -1), (1, -1)),
    _Layout("COR", (1, -1), (2, -1), (0, -1)),
    _Layout("AX", (2, 1), (1, -1), (0, -1)),
)


class NiftiVolume:
    """A NIfTI file's volume, or the volumes of a fourth axis as its frames.

    Args:
        values: (right, front, up, frame), going that way.
        layout: What is a slice of them.
        scale: Slope and intercept.
        header, findings, is_by_place: As ``ImageVolume`` has them; a NIfTI header names nobody.
    """

    part = ""
    identity = Identity()

    def __init__(
        self,
        values: NDArray[Any],
        layout: _Layout,
        scale: tuple[float, float],
        header: ImageHeader,
        findings: tuple[str, ...],
        *,
        is_by_place: bool,
    ) -> None:
        order = (layout.slices, layout.rows, layout.columns)
        self._values = values[tuple(slice(None, None, way) for _, way in sorted(order))].transpose(*(axis for axis, _ in order), 3)
        self._scale = scale
        self.header = header
        self.findings = findings
        self.is_by_place = is_by_place

    def read_image(self, index: int, frame: int) -> NDArray[np.float32]:
        """Return one image, float32 (height, width), not necessarily finite."""
        slope, intercept = self._scale
        with np.errstate(over="ignore", invalid="ignore"):
            return np.ascontiguousarray(self._values[index, :, :, frame].astype(np.float64) * slope + intercept, dtype=np.float32)


def is_nifti(begin: bytes) -> bool:
    """Say whether a file that begins so is NIfTI, in whatever byte order, gzipped or not; at least 540 bytes tell."""
    if begin.startswith(_GZIP):
        with contextlib.suppress(zlib.error):
            begin = zlib.decompressobj(wbits=31).decompress(begin, _HEADER_BYTES)
    return _header_bytes(begin) is not None


@contextlib.contextmanager
def open_nifti(path: Path, *, deidentifier: Deidentifier, limits: ReadLimits, place: str) -> Iterator[OpenedImages]:
    """Yield a file's volume.

    Args:
        path: The file.
        deidentifier: Makes the pseudonyms.
        limits: Memory limits; of a gzipped file so much disk is taken.
        place: URI of the file, which says whose it is.

    Raises:
        ScanError: It is no volume of real numbers, says no places, is damaged, or claims more than it has.
    """
    with contextlib.ExitStack() as stack:
        file: BinaryIO = stack.enter_context(path.open("rb"))
        size = path.stat().st_size
        if file.read(2) == _GZIP:
            size *= _MAX_EXPANSION
            file.seek(0)
            file = stack.enter_context(_unpacking(path.name, file))
        else:
            file.seek(0)
        header = _header(path.name, file)
        shape, dtype = _described(path.name, header, size, limits)
        if isinstance(file, gzip.GzipFile):
            scratch = stack.enter_context(tempfile.TemporaryFile(prefix="echotrain-nifti-"))
            _unpack(path.name, file, scratch, int(header["vox_offset"]), math.prod(shape) * dtype.itemsize)
            values: NDArray[Any] = np.memmap(scratch, dtype, "r", 0, shape, order="F")
        else:
            values = np.memmap(file, dtype, "r", int(header["vox_offset"]), shape, order="F")
        yield OpenedImages([_volume(path, header, values, deidentifier, place)], [])


@contextlib.contextmanager
def _unpacking(name: str, file: BinaryIO) -> Iterator[Any]:
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield unpacked
    except (zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise ScanError(name, "is cut off or damaged", "Copy or download the file again.") from error


def _header_bytes(begin: bytes) -> int | None:
    """Return the size of a NIfTI header of one file, None where it is none."""
    for order in ("little", "big"):
        size = int.from_bytes(begin[:4], order)
        if size in _MAGICS:
            at, magic = _MAGICS[size]
            return size if begin[at : at + len(magic)] == magic else None
    return None


def _header(name: str, file: BinaryIO) -> Any:
    """Return the header, as nibabel has it."""
    import nibabel

    begin = file.read(_HEADER_BYTES)
    length = _header_bytes(begin)
    if length is None:
        raise ScanError(name, "is no NIfTI file, or keeps its values in another (.img)", "Write it as one file, .nii or .nii.gz.")
    kind = nibabel.Nifti1Header if length == 348 else nibabel.Nifti2Header
    return kind.from_fileobj(io.BytesIO(begin[:length]), check=False)


def _described(name: str, header: Any, size: int, limits: ReadLimits) -> tuple[tuple[int, int, int, int], np.dtype[Any]]:
    """Return the shape (x, y, z, frame) and the type of the values, once they are known to fit the file and the limits."""
    dims = [int(dim) for dim in header["dim"]]
    rank = dims[0]
    if not 2 <= rank <= 7 or any(dim != 1 for dim in dims[5 : rank + 1]):
        raise ScanError(f"{name}: an array of {rank} axes", "must have 3, or 4 with the volumes' times as the last", _EXPORT_AGAIN)
    x, y, z, frames = (dims[axis] if axis <= rank else 1 for axis in range(1, 5))
    try:
        dtype = header.get_data_dtype()
    except Exception as error:  # nibabel raises what its table of types raises.
        raise ScanError(f"{name}: values of an unknown type", "must be real numbers", _EXPORT_AGAIN) from error
    if dtype.kind not in _NUMBERS or dtype.itemsize > 8:
        kind = "complex numbers" if dtype.kind == "c" else "colours, or numbers of more than 64 bits"
        raise ScanError(f"{name}: values that are {kind}", "must be real numbers", "Store magnitudes.")
    check_size(name, (frames, z, y, x), dtype.itemsize, limits)
    offset, nbytes = float(header["vox_offset"]), x * y * z * frames * dtype.itemsize
    if not math.isfinite(offset) or not int(header["sizeof_hdr"]) <= offset <= limits.header_bytes or offset + nbytes > size:
        raise ScanError(
            f"{name}: declares {x} x {y} x {z} x {frames} values",
            f"of {human_bytes(nbytes)}, which the file cannot hold",
            "Copy or download the file again.",
        )
    return (x, y, z, frames), dtype


def _unpack(name: str, file: gzip.GzipFile, to: IO[bytes], offset: int, nbytes: int) -> None:
    """Copy the values out of a packed file, as many bytes as they take and no more; memory is taken for a piece at a time."""
    left = nbytes
    file.seek(offset)
    while left and (piece := file.read(min(left, _CHUNK))):
        to.write(piece)
        left -= len(piece)
    if left:
        raise ScanError(name, f"ends {human_bytes(left)} before its values do", "Copy or download the file again.")
    to.flush()
    # The checksum stands at the end.
    if len(file.read(_CHUNK)) == _CHUNK:
        raise ScanError(name, "holds more than its values", _EXPORT_AGAIN)


def _volume(path: Path, header: Any, values: NDArray[Any], deidentifier: Deidentifier, place: str) -> NiftiVolume:
    findings = []
    affine = _affine(path.name, header)
    if affine is None:
        affine = np.diag([*(abs(float(size)) for size in header["pixdim"][1:4]), 1.0])
        findings.append("says no orientation: its axes are taken to go right, forward and up")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    values, order = _to_right_front_up(path.name, values, affine)
    spacing = spacing[order]
    # Slices lie along the axis that was sampled most coarsely; where all are alike, from the feet to the head.
    axis = max(range(3), key=lambda each: (round(float(spacing[each]), 3), each))
    layout = _LAYOUTS[axis]
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    witness = Witness(deidentifier, place)
    shape, frames = values.shape[:3], values.shape[3]
    if frames > 1:
        findings.append(f"{frames} volumes of a fourth axis are frames of its slices")
    image_header = ImageHeader(
        volume=deidentifier.volume(stem, Identity()),
        patient=witness.patient(Identity(), stem),
        protocol=dataclasses.replace(parse_protocol(words=stem, name=stem), orientation=layout.name),
        num_slices=shape[axis],
        num_frames=frames if frames > 1 else None,
        height=shape[layout.rows[0]],
        width=shape[layout.columns[0]],
        spacing_mm=(float(spacing[layout.rows[0]]), float(spacing[layout.columns[0]]), float(spacing[axis])),
    )
    return NiftiVolume(values, layout, _scale(path.name, header), image_header, tuple(findings), is_by_place=witness.is_by_place)


def _affine(name: str, header: Any) -> NDArray[np.float64] | None:
    """Return where voxels lie: as the sform says, else the qform; None where neither does."""
    if int(header["sform_code"]) > 0:
        affine = np.asarray(header.get_sform(), np.float64)
    elif int(header["qform_code"]) > 0:
        try:
            affine = np.asarray(header.get_qform(), np.float64)
        except Exception as error:  # A quaternion that is none.
            raise ScanError(name, "has a qform that is no rotation", _EXPORT_AGAIN) from error
    else:
        return None
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ScanError(name, "says places of its voxels that are not finite, or lie in a plane", _EXPORT_AGAIN)
    return affine


def _to_right_front_up(name: str, values: NDArray[Any], affine: NDArray[np.float64]) -> tuple[NDArray[Any], list[int]]:
    """Return the values with axes that go right, forward and up, as nearly as turning and swapping can, and which axis each was."""
    import nibabel

    orientation = nibabel.io_orientation(affine)
    if not np.isfinite(orientation).all():
        raise ScanError(name, "has axes of which two go the same way", _EXPORT_AGAIN)
    order = [int(np.flatnonzero(orientation[:, 0] == axis)[0]) for axis in range(3)]
    turned = values.transpose(*order, 3)
    ways = [int(orientation[axis, 1]) for axis in order]
    return turned[tuple(slice(None, None, way) for way in ways)], order


def _scale(name: str, header: Any) -> tuple[float, float]:
    """Return slope and intercept; a slope of zero, or one that is no number, means none."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not math.isfinite(slope) or slope == 0:
        return 1.0, 0.0
    if not math.isfinite(intercept):
        raise ScanError(f"{name}: an intercept of {intercept}", "must be finite where there is a slope", _EXPORT_AGAIN)
    return slope, intercept
