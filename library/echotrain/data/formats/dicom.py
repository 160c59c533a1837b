"""DICOM files of strangers: a header that is parsed within bounds, and pixels that are read as plain numbers.

Of the header only what ``_TAGS`` lists is kept. Pixels are read where they lie once they are known to be there, never decoded: compressed
transfer syntaxes are refused by name, for their decoders trust sizes that nobody has checked.
"""

import contextlib
import io
import logging
import math
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echotrain.data.formats.deidentify import Identity
from echotrain.data.formats.dicom_pixels import PixelFormat, Plane, pixel_format
from echotrain.data.formats.limits import ReadLimits
from echotrain.errors import EchotrainError, ScanError
from echotrain.units import human_bytes

__all__ = ["DicomImage", "is_dicom", "read_dicom"]

_MAGIC_AT, _MAGIC = 128, b"DICM"
_BYTE_ORDERS = {"1.2.840.10008.1.2": "<", "1.2.840.10008.1.2.1": "<", "1.2.840.10008.1.2.2": ">"}
_COMPRESSED = (
    ("1.2.840.10008.1.2.1.99", "deflated"), ("1.2.840.10008.1.2.4.50", "JPEG baseline"), ("1.2.840.10008.1.2.4.57", "JPEG lossless"),
    ("1.2.840.10008.1.2.4.70", "JPEG lossless"), ("1.2.840.10008.1.2.4.80", "JPEG-LS"), ("1.2.840.10008.1.2.4.81", "JPEG-LS"),
    ("1.2.840.10008.1.2.4.90", "JPEG 2000"), ("1.2.840.10008.1.2.4.91", "JPEG 2000"), ("1.2.840.10008.1.2.5", "RLE"),
)  # fmt: skip
_LONG_VALUES = {b"OB", b"OW", b"OD", b"OF", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"}
_PIXELS = (0x7FE0, 0x0010)
_EXPORT_AGAIN = "Export the images again."
_IDENTIFYING = (
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "AccessionNumber", "StudyID", "StudyDate",
    "SeriesDate", "AcquisitionDate", "ContentDate", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName",
    "DeviceSerialNumber", "StationName", "OtherPatientIDs",
)  # fmt: skip
_TAGS = [
    *_IDENTIFYING,
    "PatientID", "PatientName", "PatientBirthDate", "InstitutionName", "PatientSex", "PatientWeight",
    "Modality", "ImageType", "BurnedInAnnotation", "Manufacturer", "MagneticFieldStrength", "BodyPartExamined", "ProtocolName",
    "SeriesDescription", "StudyDescription", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "RescaleSlope", "RescaleIntercept", "PixelSpacing",
    "SliceThickness", "SpacingBetweenSlices", "ImageOrientationPatient", "ImagePositionPatient", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
_MOST_FRAMES = 100_000


@dataclass(frozen=True, kw_only=True)
class DicomImage:
    """What one file says of its images. ``tags`` holds free text, which leaves the readers as words of vocabularies alone.

    Attributes:
        series: UID of the series; instance: of the image or images.
        image_type: Words of ImageType, in capitals.
        identity: Whom it names.
        tags: The header's values by name.
        planes: Its images.
    """

    series: str
    instance: str
    image_type: tuple[str, ...]
    identity: Identity
    tags: dict[str, str]
    planes: list[Plane]


def is_dicom(begin: bytes) -> bool:
    """Say whether a file that begins so is DICOM."""
    return begin[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC


def read_dicom(path: Path, limits: ReadLimits) -> DicomImage:
    """Read a file's header, and find its pixels without reading them.

    Raises:
        ScanError: It is no DICOM image of grey magnitudes, is compressed, is damaged, or claims more than it has.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(min(size, limits.header_bytes))
    if not is_dicom(head):
        raise ScanError(path.name, "is no DICOM file", "Leave it out.")
    order = _byte_order(path.name, _transfer_syntax(head))
    with _reading(path.name):
        dataset, pixels_at, length = _parse(path.name, head, order)
        return _image(path, dataset, pixels_at, length, size, order, limits)


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Keep what pydicom says to itself: its warnings, notes and errors quote the header."""
    logger = logging.getLogger("pydicom")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except EchotrainError:
        raise
    except Exception as error:
        raise ScanError(f"{name}: {type(error).__name__}", "the header must be readable as DICOM", _EXPORT_AGAIN) from None
    finally:
        logger.disabled = was_disabled


def _transfer_syntax(head: bytes) -> str:
    """Return the UID of how the rest is written, "" where the file does not say; of group 2 alone, which is always written the same way."""
    at = _MAGIC_AT + len(_MAGIC)
    while head[at : at + 2] == b"\x02\x00":
        element, kind = int.from_bytes(head[at + 2 : at + 4], "little"), head[at + 4 : at + 6]
        begin, width = (at + 12, 4) if kind in _LONG_VALUES else (at + 8, 2)
        length = int.from_bytes(head[begin - width : begin], "little")
        if element == 0x10:
            return head[begin : begin + length].rstrip(b"\x00 ").decode("ascii", "replace")
        at = begin + length
    return ""


def _byte_order(name: str, syntax: str) -> str:
    order = _BYTE_ORDERS.get(syntax)
    if order is None:
        known = next((words for uid, words in _COMPRESSED if uid == syntax), "")
        raise ScanError(
            f"{name}: pixels that are {known or 'written in a way that is not known'}",
            "only uncompressed ones are read, whose sizes can be held against the file's",
            "Decompress it: gdcmconv --raw, or dcmdjpeg.",
        )
    return order


def _parse(name: str, head: bytes, order: str) -> tuple[Any, int, int]:
    """Return the header, where the pixels begin, and how many bytes of them are declared; no value can be longer than the head."""
    import pydicom

    stream = io.BytesIO(head)
    dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=_TAGS)
    at = stream.tell()
    is_implicit = bool(dataset.original_encoding[0])
    tag = struct.unpack(f"{order}HH", head[at : at + 4]) if at + 12 <= len(head) else None
    if tag != _PIXELS:
        raise ScanError(name, "holds no image of whole numbers, or its header is longer than is read", "Leave it out.")
    begin = at + (8 if is_implicit else 12)
    return dataset, begin, int(struct.unpack(f"{order}I", head[begin - 4 : begin])[0])


def _image(path: Path, dataset: Any, pixels_at: int, length: int, size: int, order: str, limits: ReadLimits) -> DicomImage:
    tags = {name: _text(dataset, name) for name in _TAGS if not name.endswith("Sequence")}
    form = pixel_format(path.name, tags, order)
    frames = int(tags["NumberOfFrames"] or 1)
    if not 1 <= frames <= _MOST_FRAMES:
        raise ScanError(f"{path.name}: {frames} frames", f"must be 1 to {_MOST_FRAMES}", _EXPORT_AGAIN)
    limits.check_array(path.name, (frames, form.height, form.width), 4, slice_axes=2)
    needed = frames * form.nbytes
    # An odd number of bytes is padded by one.
    if length not in (needed, needed + needed % 2) or pixels_at + needed > size:
        raise ScanError(
            f"{path.name}: {frames} images of {form.height} x {form.width}",
            f"take {human_bytes(needed)}; {human_bytes(length)} are declared and {human_bytes(max(size - pixels_at, 0))} are there",
            "Copy or download the file again.",
        )
    planes = [_plane(path, dataset, frame, frames, pixels_at + frame * form.nbytes, form) for frame in range(frames)]
    identity = Identity(
        patient_id=tags["PatientID"],
        patient_name=tags["PatientName"],
        birth_date=tags["PatientBirthDate"],
        institution=tags["InstitutionName"],
        others=tuple(tags[name] for name in _IDENTIFYING if tags[name]),
    )
    return DicomImage(
        series=tags["SeriesInstanceUID"],
        instance=tags["SOPInstanceUID"],
        image_type=tuple(tags["ImageType"].upper().split("\\")),
        identity=identity,
        tags=tags,
        planes=planes,
    )


def _plane(path: Path, dataset: Any, frame: int, frames: int, offset: int, form: PixelFormat) -> Plane:
    """Return a frame's place: from its functional groups, those that frames share, or the header itself where there is one frame."""
    places = [dataset] if frames == 1 else []
    for sequence, index in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", frame)):
        groups = dataset.get(sequence)
        if groups is not None and len(groups) > index:
            places = [*(item for element in groups[index] if element.VR == "SQ" for item in element.value), *places]

    def numbers(name: str, count: int, usual: tuple[float, ...] | None = None) -> tuple[float, ...]:
        text = next((text for place in places if (text := _text(place, name))), "")
        values = tuple(float(part) for part in text.split("\\")) if text else usual
        if values is None or len(values) != count or not all(math.isfinite(value) for value in values):
            raise ScanError(f"{path.name}: an image without {name}", "says where it lies, and how large its pixels are", "Leave it out.")
        return values

    return Plane(
        path=path,
        offset=offset,
        pixels=form,
        slope=numbers("RescaleSlope", 1, (1.0,))[0],
        intercept=numbers("RescaleIntercept", 1, (0.0,))[0],
        position=numbers("ImagePositionPatient", 3),
        axes=numbers("ImageOrientationPatient", 6),
        spacing=numbers("PixelSpacing", 2),
        thickness=numbers("SliceThickness", 1, (0.0,))[0],
    )


def _text(dataset: Any, name: str) -> str:
    """Return a value as text, several joined as DICOM does, "" where there is none."""
    value = dataset.get(name)
    if value is None:
        return ""
    many = value if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else [value]
    return "\\".join(str(each).strip() for each in many)
