"""The ISMRMRD XML header: read from strangers, written for fastMRI-layout files."""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from echotrain.data.formats.header import VolumeHeader
from echotrain.data.formats.subject import sex_of, weight_bin_of
from echotrain.errors import ScanError

__all__ = ["ScanHeader", "header_xml", "parse_header", "refuse_other_than_lines"]

_NAMESPACE = "http://www.ismrm.org/ISMRMRD"
_MAX_MATRIX = 1 << 16
_ROUNDING = 0.01
# Elements whose text points at a person, a place or a moment; ``deidentify`` keeps them out of every name.
_IDENTIFYING = {
    "patientName",
    "patientID",
    "patientBirthdate",
    "institutionName",
    "stationName",
    "deviceID",
    "deviceSerialNumber",
    "studyID",
    "studyDate",
    "seriesDate",
    "accessionNumber",
    "referringPhysicianName",
    "studyInstanceUID",
    "seriesInstanceUIDRoot",
    "frameOfReferenceUID",
    "measurementID",
}


@dataclass(frozen=True, kw_only=True)
class ScanHeader:
    """What an ISMRMRD header says, **not yet de-identified**; it never leaves ``data.formats``.

    Attributes:
        encoded, recon: Matrix (x readout, y phase, z slice) in k-space and of the image.
        encoded_fov, recon_fov: Millimetres; 0 where unknown.
        center_y, maximum_y: ``kspace_encoding_step_1``: the line of zero frequency and the last line.
        maximum_z: Last ``kspace_encoding_step_2``; above 0 for a 3D encode.
        trajectory: ``cartesian`` for what can be read here.
        identifiers: Texts that point at a person, keyed by element name.
        protocol: Protocol name and study description, for reading anatomy and contrast from.
        num_slices: Slices that the limits announce, 0 where they do not.
        calibration: ``embedded``, ``separate``, ``external``, …: how calibration lines were measured; "" where it does not say.
        echo_train: Readouts after one excitation, 1 where it does not say.
        sequence: Type of the sequence, as the vendor writes it, in lower case.
        multiband: Slices that were excited at once.
        notes: What was read against the letter, a phrase each.
        protocol_name: The protocol's name alone, for reading from it what the scan is for.
        sex, weight_bin_kg: As ``data.formats.subject`` has them; the weight itself is not kept even here.
    """

    encoded: tuple[int, int, int]
    recon: tuple[int, int, int]
    encoded_fov: tuple[float, float, float] = (0.0, 0.0, 0.0)
    recon_fov: tuple[float, float, float] = (0.0, 0.0, 0.0)
    center_y: int
    maximum_y: int
    maximum_z: int = 0
    trajectory: str = "cartesian"
    vendor: str = ""
    field_strength: float = 0.0
    identifiers: tuple[tuple[str, str], ...] = ()
    protocol: str = ""
    num_slices: int = 0
    calibration: str = ""
    echo_train: int = 1
    sequence: str = ""
    multiband: int = 1
    notes: tuple[str, ...] = ()
    protocol_name: str = ""
    sex: str | None = None
    weight_bin_kg: int | None = None

    def padding(self, width: int) -> tuple[int, int] | None:
        """Return the measured lines [left, right) by fastMRI's formula: ``left = encoded_y // 2 - center``.

        One line of overhang, from an odd matrix, is cut. None where the limits do not fit ``width``: then only the k-space can tell.
        """
        left = self.encoded[1] // 2 - self.center_y
        right = left + self.maximum_y + 1
        if left < -1 or right > width + 1 or right <= max(left, 0):
            return None
        return max(left, 0), min(right, width)

    def identifier(self, key: str) -> str:
        """Return one identifying text, or an empty one."""
        return dict(self.identifiers).get(key, "")


def parse_header(xml: bytes, name: str) -> ScanHeader:
    """Parse an ISMRMRD header; entities, external references and DTDs are refused.

    Raises:
        ScanError: It is not well-formed, tries to expand entities, or lacks its encoded matrix.
    """
    root, notes = _parse(xml.rstrip(b"\x00").strip(), name)
    encoded = _matrix(root, "encodedSpace", name, notes)
    if encoded is None:
        raise ScanError(f"{name}: header", "must state encoding/encodedSpace/matrixSize", "Export the scan again.")
    limits = {key: _integer(_text(root, f"encoding/encodingLimits/{key}"), name, notes) for key in _LIMIT_PATHS}
    maximum_y = limits["kspace_encoding_step_1/maximum"]
    center_y = limits["kspace_encoding_step_1/center"]
    recon_fov = _fov(root, "reconSpace")
    return ScanHeader(
        encoded=encoded,
        recon=_matrix(root, "reconSpace", name, notes) or encoded,
        encoded_fov=_fov(root, "encodedSpace"),
        recon_fov=recon_fov,
        center_y=encoded[1] // 2 if center_y is None else center_y,
        maximum_y=encoded[1] - 1 if maximum_y is None else maximum_y,
        maximum_z=_last_partition(limits["kspace_encoding_step_2/maximum"], encoded[2]),
        trajectory=(_text(root, "encoding/trajectory") or "cartesian").lower(),
        vendor=_text(root, "acquisitionSystemInformation/systemVendor"),
        field_strength=_number(_text(root, "acquisitionSystemInformation/systemFieldStrength_T")),
        identifiers=tuple(_identifiers(root)),
        protocol=" ".join(_protocol_texts(root)),
        num_slices=0 if limits["slice/maximum"] is None else limits["slice/maximum"] + 1,
        calibration=_text(root, "encoding/parallelImaging/calibrationMode").lower(),
        echo_train=int(min(_number(_text(root, "encoding/echoTrainLength")), _MAX_MATRIX)) or 1,
        sequence=_text(root, "sequenceParameters/sequence_type").lower(),
        multiband=_multiband(root, name, notes),
        notes=tuple(notes),
        protocol_name=" ".join((_text(root, "measurementInformation/protocolName"), *_user_texts(root, "tProtocolName"))),
        sex=sex_of(_text(root, "subjectInformation/patientGender")),
        weight_bin_kg=weight_bin_of(_number(_text(root, "subjectInformation/patientWeight_kg"))),
    )


_LIMIT_PATHS = (
    "kspace_encoding_step_1/center",
    "kspace_encoding_step_1/maximum",
    "kspace_encoding_step_2/maximum",
    "slice/maximum",
)


def refuse_other_than_lines(scan: ScanHeader, name: str) -> None:
    """Refuse what the header itself says is no Cartesian scan of single slices, line by line.

    Raises:
        ScanError: Naming what it is.
    """
    if scan.trajectory != "cartesian":
        raise ScanError(f"{name}: trajectory {scan.trajectory[:20]!r}", "only Cartesian k-space is read", "Leave this scan out.")
    if scan.multiband > 1:
        raise ScanError(
            f"{name}: multiband factor {scan.multiband}",
            "slices that were excited together lie on top of each other, and are not told apart here",
            "Leave this scan out, or export it with its slices separated.",
        )
    if scan.sequence in ("epi", "ep2d", "echoplanar", "echo planar"):
        raise ScanError(f"{name}: an echo-planar sequence", "its lines need phase correction", "Leave this scan out.")


def _last_partition(maximum: int | None, depth: int) -> int:
    """Return the last phase encode along the slice direction: of the limits, or of the matrix where there are none.

    Some converters write the number of slices of a 2D scan into the matrix; its limits then say that there is one partition.
    """
    return depth - 1 if maximum is None else max(maximum, 0)


def _multiband(root: ET.Element, name: str, notes: list[str]) -> int:
    """Return how many slices were excited at once, as the header or a converter's parameter says."""
    texts = [_text(root, "encoding/parallelImaging/multiband/multiband_factor")]
    for parameter in root.iter():
        spelled = re.sub(r"[^a-z]", "", _text(parameter, "name").lower()) if _local(parameter.tag) == "userParameterLong" else ""
        if spelled in ("multibandfactor", "lmultibandfactor", "smsfactor"):
            texts.append(_text(parameter, "value"))
    return max((_integer(text, name, notes) or 1 for text in texts), default=1)


def _parse(xml: bytes, name: str) -> tuple[ET.Element, list[str]]:
    """Parse the text, as Latin-1 where it says UTF-8 and is not: names and places are where the odd letters are."""
    try:
        return fromstring(xml, forbid_dtd=True), []
    except DefusedXmlException as error:
        raise ScanError(
            f"{name}: header with {type(error).__name__}", "entities and DTDs are never expanded", "Remove them from the header."
        ) from error
    except (ET.ParseError, ValueError, LookupError) as error:
        try:
            xml.decode("utf-8")
        except UnicodeDecodeError:
            declared = re.compile(rb"""(<\?xml[^>]{0,80}?encoding\s{0,8}=\s{0,8})["'][A-Za-z0-9._-]{1,40}["']""")
            recoded = declared.sub(rb'\1"utf-8"', xml.decode("latin-1").encode("utf-8"), count=1)
            if recoded != xml:
                return _parse(recoded, name)[0], ["the header says UTF-8 and is Latin-1: read as Latin-1"]
        where = getattr(error, "position", "an unknown place")  # The error's own words may quote the header.
        raise ScanError(f"{name}: header ({type(error).__name__} at {where})", "must be ISMRMRD XML", "Export the scan again.") from error


def header_xml(header: VolumeHeader, *, protocol: str) -> bytes:
    """Write the ISMRMRD header of a de-identified volume, as fastMRI-layout files carry it.

    Args:
        header: Sizes, field of view and system.
        protocol: Text of ``protocolName``.
    """
    root = ET.Element("ismrmrdHeader", xmlns=_NAMESPACE)
    _add(root, "measurementInformation", {"protocolName": protocol})
    system = {
        "systemVendor": header.vendor,
        "systemFieldStrength_T": f"{header.field_strength:g}",
        "receiverChannels": str(header.num_coils),
    }
    _add(root, "acquisitionSystemInformation", system)
    encoding = ET.SubElement(root, "encoding")
    oversampling = header.height / header.recon_height
    encoded_fov = (header.fov_mm[0] * oversampling, header.fov_mm[1] * header.width / header.recon_width, header.fov_mm[2])
    _add_space(encoding, "encodedSpace", (header.height, header.width, 1), encoded_fov)
    _add_space(encoding, "reconSpace", (header.recon_height, header.recon_width, 1), header.fov_mm)
    limits = ET.SubElement(encoding, "encodingLimits")
    lines = header.padding_right - header.padding_left
    center = header.width // 2 - header.padding_left
    _add(limits, "kspace_encoding_step_1", {"minimum": "0", "maximum": str(lines - 1), "center": str(center)})
    _add(limits, "kspace_encoding_step_2", {"minimum": "0", "maximum": "0", "center": "0"})
    _add(limits, "slice", {"minimum": "0", "maximum": str(header.num_slices - 1), "center": str(header.num_slices // 2)})
    ET.SubElement(encoding, "trajectory").text = "cartesian"
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _add(parent: ET.Element, tag: str, values: dict[str, str]) -> None:
    element = ET.SubElement(parent, tag)
    for key, value in values.items():
        ET.SubElement(element, key).text = value


def _add_space(parent: ET.Element, tag: str, matrix: tuple[int, int, int], fov: tuple[float, float, float]) -> None:
    space = ET.SubElement(parent, tag)
    _add(space, "matrixSize", dict(zip("xyz", map(str, matrix), strict=True)))
    _add(space, "fieldOfView_mm", dict(zip("xyz", (f"{value:g}" for value in fov), strict=True)))


def _text(root: ET.Element, path: str) -> str:
    # Any namespace, or none: files in the wild have both.
    found = root.find("/".join(f"{{*}}{part}" for part in path.split("/")))
    return (found.text or "").strip() if found is not None else ""


def _local(tag: object) -> str:
    return str(tag).rsplit("}", 1)[-1]


def _identifiers(root: ET.Element) -> Iterator[tuple[str, str]]:
    for element in root.iter():
        text = (element.text or "").strip()
        tag = _local(element.tag)
        if text and (tag in _IDENTIFYING or tag.lower().endswith("uid")):
            yield tag, text


def _protocol_texts(root: ET.Element) -> Iterator[str]:
    yield _text(root, "measurementInformation/protocolName")
    yield _text(root, "studyInformation/studyDescription")
    yield _text(root, "studyInformation/bodyPartExamined")
    yield from _user_texts(root, "tProtocolName", "tStudyDescription")


def _user_texts(root: ET.Element, *names: str) -> Iterator[str]:
    for parameter in root.iter():
        if _local(parameter.tag) == "userParameterString" and _text(parameter, "name") in names:
            yield _text(parameter, "value")


def _matrix(root: ET.Element, space: str, name: str, notes: list[str]) -> tuple[int, int, int] | None:
    x, y, z = (_integer(_text(root, f"encoding/{space}/matrixSize/{axis}"), name, notes) for axis in "xyz")
    if x is None or y is None:
        return None
    sizes = (x, y, 1 if z is None else z)
    if not all(1 <= size <= _MAX_MATRIX for size in sizes):
        raise ScanError(f"{name}: {space} matrix {sizes}", f"each size must lie in 1 to {_MAX_MATRIX}", "Export the scan again.")
    return sizes


def _fov(root: ET.Element, space: str) -> tuple[float, float, float]:
    x, y, z = (_number(_text(root, f"encoding/{space}/fieldOfView_mm/{axis}")) for axis in "xyz")
    return x, y, z


def _integer(text: str, name: str, notes: list[str]) -> int | None:
    """Return a whole number, None of no text; ``256.0`` and ``35.9996`` are ones that went through arithmetic, and are noted."""
    if not text:
        return None
    try:
        value = float(text[:40])
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value - round(value)) > _ROUNDING:
        raise ScanError(f"{name}: header value {text[:20]!r}", "must be a whole number", "Export the scan again.")
    if value != round(value):
        notes.append(f"the header's {text[:20]} is read as {round(value)}")
    return int(min(max(round(value), -_MAX_MATRIX * _MAX_MATRIX), _MAX_MATRIX * _MAX_MATRIX))


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value >= 0 else 0.0
