"""From DICOM files to volumes: files are told apart by their series, and a series is taken where its images make one continuous volume."""

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from echotrain.data.formats.deidentify import Deidentifier, Identity, Witness
from echotrain.data.formats.dicom import DicomImage, read_dicom
from echotrain.data.formats.dicom_pixels import Plane, read_plane
from echotrain.data.formats.image_volume import ImageHeader, OpenedImages, Unusable, check_size
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.protocol import orientation_of, parse_protocol, vendor_name
from echotrain.data.formats.subject import sex_of, weight_bin_of
from echotrain.errors import ScanError

__all__ = ["DICOM_ENDINGS", "DicomVolume", "open_dicom", "stack"]

DICOM_ENDINGS = (".dcm", ".ima")
# Of directions, whose numbers are written with six digits or so, and of distances as a share of the usual one.
_SAME_DIRECTION, _SAME_STEP = 1e-3, 0.05
# Third word of ImageType: parts of a complex image, and what was computed from several.
_NO_MAGNITUDES = {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY", "VELOCITY", "VELOCITY MAP"}


class DicomVolume:
    """A series whose images make one continuous volume, in the order of the normal of its slices.

    In a slice, rows and columns are as the scanner shows them.
    """

    def __init__(self, files: Sequence[DicomImage], planes: Sequence[Plane], step: float, deidentifier: Deidentifier, place: str) -> None:
        """Describe a stack.

        Args:
            files: Of the series.
            planes: Its images, in order.
            step: Millimetres between them.
            deidentifier: Makes the pseudonyms.
            place: URI of the source, which says whose it is where no header does.
        """
        first, tags = planes[0], files[0].tags
        self.identity: Identity = files[0].identity
        witness = Witness(deidentifier, place)
        # What a folder holds is one person's, where no header says anything.
        patient = witness.patient(self.identity, PurePosixPath(place).name)
        words = " ".join((tags["ProtocolName"], tags["SeriesDescription"]))
        protocol = parse_protocol(anatomy=tags["BodyPartExamined"], words=f"{words} {tags['StudyDescription']}", name=words)
        self.is_by_place = witness.is_by_place
        self.part = files[0].series
        self.findings = _findings(planes)
        self._planes = planes
        self.header = ImageHeader(
            volume=deidentifier.pseudonym("volume", "series", files[0].series),
            patient=patient,
            protocol=dataclasses.replace(protocol, orientation=orientation_of(_normal(first)) or protocol.orientation),
            vendor=vendor_name(tags["Manufacturer"]),
            field_strength=_tesla(tags["MagneticFieldStrength"]),
            center=deidentifier.center(self.identity),
            sex=sex_of(tags["PatientSex"]),
            weight_bin_kg=weight_bin_of(_number(tags["PatientWeight"])),
            num_slices=len(planes),
            height=first.pixels.height,
            width=first.pixels.width,
            spacing_mm=(first.spacing[0], first.spacing[1], step),
        )

    def read_image(self, index: int, frame: int) -> NDArray[np.float32]:
        """Return one image, float32 (height, width)."""
        return read_plane(self._planes[index])


def open_dicom(path: Path, *, deidentifier: Deidentifier, limits: ReadLimits, place: str) -> OpenedImages:
    """Read the headers of a file, or of a folder's own files, and put them together by series.

    Args:
        path: A DICOM file, or a folder of them; folders within it are others.
        deidentifier: Makes the pseudonyms.
        limits: Memory limits.
        place: URI of the source.
    """
    series: dict[str, list[DicomImage]] = defaultdict(list)
    damaged: Counter[str] = Counter()
    unusable = []
    for file in _files_of(path):
        try:
            image = read_dicom(file, limits)
            series[image.series].append(image)
        except ScanError as error:
            damaged[f"{error.value.removeprefix(file.name).lstrip(': ') or 'the file'}: {error.limit}"] += 1
    volumes = []
    for uid, files in sorted(series.items()):
        try:
            planes, step = stack(files, limits)
            volumes.append(DicomVolume(files, planes, step, deidentifier, place))
        except ScanError as error:
            unusable.append(Unusable(uid, f"{error.value}: {error.limit}"))
    unusable += [Unusable(reason, f"{count} of its files {reason}") for reason, count in sorted(damaged.items())]
    return OpenedImages(list(volumes), unusable)


def stack(files: Sequence[DicomImage], limits: ReadLimits) -> tuple[list[Plane], float]:
    """Return a series' images in order, and the millimetres between them (the slice's thickness where there is one image).

    Raises:
        ScanError: They make no continuous volume of magnitudes; the message says why, and names nobody.
    """
    remedy = "Leave the series out."
    what = _kind_defect(files)
    if what:
        raise ScanError("a series", what, remedy)
    planes = [plane for file in files for plane in file.planes]
    for says, values in (
        ("matrices", {(plane.pixels.height, plane.pixels.width) for plane in planes}),
        ("pixel sizes", {tuple(round(size, 3) for size in plane.spacing) for plane in planes}),
        ("thicknesses", {round(plane.thickness, 3) for plane in planes}),
    ):
        if len(values) > 1:
            raise ScanError(f"a series of {len(planes)} images", f"has {len(values)} {says}", remedy)
    first = planes[0]
    if any(abs(a - b) > _SAME_DIRECTION for plane in planes for a, b in zip(plane.axes, first.axes, strict=True)):
        raise ScanError(f"a series of {len(planes)} images", "has several orientations, as localizers have", remedy)
    check_size("a series", (1, len(planes), first.pixels.height, first.pixels.width), 4, limits)
    return _ordered(planes, remedy)


def _kind_defect(files: Sequence[DicomImage]) -> str:
    """Return why a series is of the wrong kind, by what its headers say; "" where it is of the right one."""
    instances = Counter(file.instance for file in files)
    if max(instances.values()) > 1:
        return f"holds {sum(count - 1 for count in instances.values())} images twice"
    for file in files:
        third = file.image_type[2] if len(file.image_type) > 2 else ""
        words = " ".join((file.tags["ProtocolName"], file.tags["SeriesDescription"]))
        if file.tags["Modality"].upper() != "MR":
            return "is of another modality than MR"
        if "LOCALIZER" in file.image_type or "localizers" in parse_protocol(name=words).kinds:
            return "is a localizer"
        if file.image_type[0] == "DERIVED":
            return "is derived from other images"
        if third in _NO_MAGNITUDES:
            return "holds no magnitudes"
        if file.tags["BurnedInAnnotation"].upper() == "YES":
            return "has annotations burned into its pixels"
        if len({(each.identity.patient_id, each.identity.patient_name) for each in (file, files[0])}) > 1:
            return "names several patients"
    return ""


def _ordered(planes: list[Plane], remedy: str) -> tuple[list[Plane], float]:
    first = planes[0]
    row, column = np.array(first.axes[:3]), np.array(first.axes[3:])
    normal = np.cross(row, column)
    if not math.isclose(float(np.linalg.norm(normal)), 1, abs_tol=_SAME_DIRECTION * 10) or min(first.spacing) <= 0:
        raise ScanError("a series", "has axes that are not at right angles, or pixels without a size", remedy)
    positions = np.array([plane.position for plane in planes])
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order])
    if not len(steps):
        return planes, first.thickness
    usual = float(np.median(steps))
    twice = int((steps < _SAME_STEP * max(usual, first.thickness, _SAME_DIRECTION)).sum())
    if twice:
        raise ScanError(f"a series of {len(planes)} images", f"has {twice} more than one at a place: echoes, phases or copies", remedy)
    gaps = int((steps > (1 + 0.5) * usual).sum())
    if gaps:
        raise ScanError(f"a series of {len(planes)} images", f"lacks slices: {gaps} gaps of more than the usual {usual:.3g} mm", remedy)
    if (np.abs(steps - usual) > _SAME_STEP * usual).any():
        raise ScanError(f"a series of {len(planes)} images", f"is spaced unevenly, {steps.min():.3g} to {steps.max():.3g} mm", remedy)
    shifts = positions - positions[order[0]] - np.outer(along - along[order[0]], normal)
    if (np.abs(shifts) > 0.5 * min(first.spacing)).any():
        raise ScanError(f"a series of {len(planes)} images", "has slices that are shifted against each other", remedy)
    return [planes[index] for index in order], usual


def _findings(planes: Sequence[Plane]) -> tuple[str, ...]:
    findings = []
    if planes[0].pixels.is_inverted:
        findings.append("written with white as its smallest number (MONOCHROME1): turned over")
    if len({(plane.slope, plane.intercept) for plane in planes}) > 1:
        findings.append("its slices are written on several scales, which are undone")
    return tuple(findings)


def _normal(plane: Plane) -> tuple[float, ...]:
    return tuple(np.cross(plane.axes[:3], plane.axes[3:]).tolist())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _tesla(text: str) -> float:
    """Return a field strength, which some write in gauss; 0 where it is none."""
    value = _number(text)
    value = value / 10_000 if value > 100 else value
    return value if math.isfinite(value) and 0 < value < 25 else 0.0


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = (file for file in path.iterdir() if file.suffix.lower() in DICOM_ENDINGS and not file.name.startswith("."))
    return sorted(file for file in files if file.is_file())
