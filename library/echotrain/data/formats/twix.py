"""Siemens twix files (VB, VD, VE): protocol text, then one measurement data header before each readout.

twixtools defines the structures and the meaning of their flags. The chain of headers is walked here, because a
stranger's file may claim lengths that a trusting reader would follow; the protocol is searched for a few keys
instead of being evaluated.
"""

import contextlib
import ctypes
import mmap
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from twixtools import mdh_def
from twixtools.hdr_def import MrParcRaidFileEntry

from echotrain.data.formats.deidentify import Deidentifier, Identity, is_blank
from echotrain.data.formats.fastmri import DEFAULT_DATASET
from echotrain.data.formats.header import VolumeHeader
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.lines import Claim, Geometry, LineVolume, Matrix, place_lines
from echotrain.data.formats.protocol import orientation_of, parse_protocol
from echotrain.data.formats.readouts import READOUT, Purpose, Readouts, Selected, select_readouts
from echotrain.data.formats.subject import weight_bin_of
from echotrain.errors import ScanError
from echotrain.units import human_bytes

__all__ = ["open_twix"]

_EXPORT_AGAIN = "Export the scan again."
# VB files begin with the length of their header; VD and VE files with a small id and the number of measurements.
_MAX_VD_ID = 10000
_MIN_HEADER = 32
_PHASE_CORRECTION = (1 << mdh_def.mask_dict["PHASCOR"]) | (1 << mdh_def.mask_dict["SLICE_ACCEL_PHASCOR"])
_NOISE = 1 << mdh_def.mask_dict["NOISEADJSCAN"]
_OTHER_PURPOSES = sum(
    1 << mdh_def.mask_dict[flag]
    for flag in (
        *("ACQEND", "RTFEEDBACK", "HPFEEDBACK", "SYNCDATA", "REFPHASESTABSCAN", "PHASESTABSCAN", "noname60"),
        *("RETRO_DUMMYSCAN", "B1_CONTROLLOOP", "PACE", "SLICE_ACCEL_REFSCAN"),
    )
)
_NO_SAMPLES = (1 << mdh_def.mask_dict["ACQEND"]) | (1 << mdh_def.mask_dict["SYNCDATA"])
_CALIBRATION, _CALIBRATION_AND_IMAGE = 1 << mdh_def.mask_dict["PATREFSCAN"], 1 << mdh_def.mask_dict["PATREFANDIMASCAN"]
_REFLECTED = 1 << mdh_def.mask_dict["REFLECT"]
# Source: the parameter map of siemens_to_ismrmrd, which takes everything else for "O" as well.
_SEX = {1.0: "F", 2.0: "M", 3.0: "O"}
_NAME_KEYS = ("tPatientName", "PatientName", "tPatientsName")
_OTHER_KEYS = ("tPerfPhysiciansName", "DeviceSerialNumber", "FrameOfReference", "StudyLOID", "PatientLOID", "InstitutionAddress")


# Every repetition is bounded: a protocol of nothing but blanks must not take quadratic time.
_INDENT = 8
_BEGIN, _EQUALS, _END = rf"^[ \t]{{0,{_INDENT}}}", r"[ \t]{0,64}=[ \t]{0,64}", r"[ \t\r]{0,8}$"


# sPat.ucRefScanMode: where calibration lines are measured.
_CALIBRATION_MODES = {2: "embedded", 4: "separate", 8: "external"}
_TRAJECTORIES = {2: "radial", 4: "spiral", 8: "PROPELLER"}
_3D = 4
# Adjustments (shim, transmitter) measure fewer lines than any image.
_FEWEST_LINES = 32


def open_twix(path: Path, *, dataset: str, deidentifier: Deidentifier, limits: ReadLimits) -> LineVolume:
    """Open the last measurement of a twix file; earlier ones are adjustments.

    Phases of the heart are frames; of several echoes, repetitions or sets the first is taken, and told. One image is read, to see where
    the zero frequency lies.

    Raises:
        ScanError: The file is truncated, or not what it says it is.
    """
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return _open(content, path.name, dataset, deidentifier, limits)
    except BaseException:
        content.close()
        raise


def _open(content: mmap.mmap, name: str, dataset: str, deidentifier: Deidentifier, limits: ReadLimits) -> LineVolume:
    start, end, is_vd = _measurement(content, name)
    header_bytes = int.from_bytes(content[start : start + 4], "little")
    if header_bytes > limits.header_bytes or header_bytes < _MIN_HEADER or start + header_bytes > end:
        raise ScanError(
            f"{name}: protocol of {human_bytes(header_bytes)}",
            f"the measurement has {human_bytes(end - start)}, at most {human_bytes(limits.header_bytes)} are read",
            "Copy the file again.",
        )
    protocol = _ProtocolText(content[start : start + header_bytes].decode("latin-1"))
    _refuse_other_than_lines(protocol, name)
    readouts, center_lines = _readouts(content, start + header_bytes, end, is_vd, name)
    num_images = 1 + _count_earlier_images(content, is_vd)
    normal = [protocol.number(f"sSliceArray.asSlice[0].sNormal.{axis}") or 0.0 for axis in ("dSag", "dCor", "dTra")]
    mode = _CALIBRATION_MODES.get(int(protocol.number("sPat.ucRefScanMode") or 0), "")
    echo_train = 1 if protocol.is_pulseq else int(protocol.number("sFastImaging.lEPIFactor") or 1)
    selected = select_readouts(name, readouts, calibration=mode, echo_train=echo_train, normal=normal)

    def read_lines(refs: Sequence[int]) -> list[np.ndarray]:
        return _read_lines(content, refs, is_vd)

    geometry, told = place_lines(
        name,
        selected,
        read_lines,
        matrix=_matrix(protocol, selected),
        claims=lambda last, peak: _claims(protocol, _center_line(name, selected, center_lines), last, peak),
        limits=limits,
    )
    return LineVolume(
        name,
        header=_header(protocol, name, dataset, deidentifier, geometry, normal, _table_names(content, is_vd)),
        geometry=geometry,
        selected=selected,
        num_partitions=_num_partitions(protocol, selected),
        read_lines=read_lines,
        close=content.close,
        findings=[
            *([f"took the last of {num_images} measurements in the file, the others are left out"] if num_images > 1 else []),
            *selected.findings,
            *told,
        ],
    )


def _refuse_other_than_lines(protocol: "_ProtocolText", name: str) -> None:
    """Refuse what the protocol itself says is no Cartesian scan of single slices, line by line."""
    if protocol.is_pulseq:  # Its protocol is the console's, and says nothing of the sequence.
        return
    trajectory = _TRAJECTORIES.get(int(protocol.number("sKSpace.ucTrajectory") or 1))
    if trajectory is not None:
        raise ScanError(f"{name}: trajectory {trajectory}", "only Cartesian k-space is read", "Leave this scan out.")
    if (factor := int(protocol.number("sFastImaging.lEPIFactor") or 1)) > 1:
        raise ScanError(f"{name}: echo-planar, {factor} lines per excitation", "its lines need phase correction", "Leave this scan out.")
    if (factor := int(protocol.number("sSliceAcceleration.lMultiBandFactor") or 1)) > 1:
        raise ScanError(
            f"{name}: multiband factor {factor}",
            "slices that were excited together lie on top of each other, and are not told apart here",
            "Leave this scan out, or export it with its slices separated.",
        )


def _num_partitions(protocol: "_ProtocolText", selected: Selected) -> int:
    """Return the phase encodes along the slice direction; a 2D protocol may state partitions that mean nothing."""
    is_3d = protocol.number("sKSpace.ucDimension") == _3D and not protocol.is_pulseq
    stated = int(protocol.number("sKSpace.lPartitions") or 1) if is_3d else 1
    return max(stated, int(selected.lines["partition"].max()) + 1)


def _measurement(content: mmap.mmap, name: str) -> tuple[int, int, bool]:
    """Return the bytes [start, end) of the last measurement, and whether the file is VD or later."""
    first, count = np.frombuffer(content[:8], "<u4").tolist()
    if first >= _MAX_VD_ID:
        return 0, len(content), False
    table = np.frombuffer(content[8 : 8 + count * MrParcRaidFileEntry.itemsize], MrParcRaidFileEntry)
    start, length = int(table[-1]["off_"]), int(table[-1]["len_"])
    end = start + length if length else len(content)
    if start + _MIN_HEADER > end or end > len(content):
        raise ScanError(
            f"{name}: measurement at bytes {start} to {end}", f"the file has {len(content)}", "It is truncated; copy or export it again."
        )
    return start, end, True


def _table(content: mmap.mmap, is_vd: bool) -> NDArray[Any]:
    """Return the table of a file's measurements, an empty one before version VD."""
    count = int.from_bytes(content[4:8], "little") if is_vd else 0
    return np.frombuffer(content[8 : 8 + count * MrParcRaidFileEntry.itemsize], MrParcRaidFileEntry)


def _table_names(content: mmap.mmap, is_vd: bool) -> tuple[str, ...]:
    """Return the patients' names that the table of measurements holds."""
    names = {bytes(name).split(b"\x00")[0].decode("latin-1").strip() for name in _table(content, is_vd)["patName_"]}
    return tuple(sorted(names - {""}))


def _count_earlier_images(content: mmap.mmap, is_vd: bool) -> int:
    """Count the measurements before the last that hold lines of an image and not an adjustment's few."""
    found = 0
    for entry in _table(content, is_vd)[:-1]:
        start, end = int(entry["off_"]), min(int(entry["off_"]) + int(entry["len_"]), len(content))
        if start + _MIN_HEADER > end:
            continue
        begin = start + int.from_bytes(content[start : start + 4], "little")
        with contextlib.suppress(ScanError):  # An adjustment may be anything.
            readouts, _ = _readouts(content, begin, end, is_vd, "an earlier measurement")
            found += len(np.unique(readouts["step"][readouts["purpose"] == Purpose.IMAGE])) >= _FEWEST_LINES
    return found


def _readouts(content: mmap.mmap, position: int, end: int, is_vd: bool, name: str) -> tuple[Readouts, dict[int, int]]:
    """Describe all readouts, and where each says that the centre of k-space is, by its ``ref``."""
    rows, center_lines = [], {}
    for mdh, flags, at in _walk(content, position, end, is_vd, name):
        if not (mdh.SamplesInScan and mdh.UsedChannels):
            continue
        counter, place = mdh.Counter, mdh.SliceData.SlicePos
        samples = (at, _purpose(flags), bool(flags & _REFLECTED), mdh.SamplesInScan, mdh.UsedChannels, mdh.CenterCol)
        lines = (counter.Sli, counter.Lin, counter.Par, counter.Ave, counter.Seg)
        series = (counter.Eco, counter.Phs, counter.Rep, counter.Set)
        # In the order of READOUT.
        rows.append((*samples, *lines, *series, (place.Sag, place.Cor, place.Tra)))
        center_lines[at] = int(mdh.CenterLin)
    readouts = np.array(rows, READOUT)
    readouts["position"] = np.nan_to_num(readouts["position"])
    return readouts, center_lines


def _walk(content: mmap.mmap, position: int, end: int, is_vd: bool, name: str) -> Iterator[tuple[Any, int, int]]:
    """Yield header, flags and position of every readout up to the end mark; every length is checked before it is followed."""
    struct = mdh_def.Scan_header if is_vd else mdh_def.VB17_header
    size, per_coil = ctypes.sizeof(struct), ctypes.sizeof(mdh_def.Channel_header if is_vd else mdh_def.VB17_header)
    while position + size <= end:
        mdh = struct.from_buffer_copy(content, position)
        flags = int(mdh.EvalInfoMask)
        if flags & 1:
            return
        if flags & _NO_SAMPLES:
            length = int(mdh_def.get_dma_len(mdh))
        else:
            length = int(mdh.UsedChannels) * (per_coil + 8 * int(mdh.SamplesInScan)) + (size if is_vd else 0)
        if length < size or position + length > end:
            break
        if not flags & _NO_SAMPLES:
            yield mdh, flags, position
        position += length
    raise ScanError(
        f"{name}: no end mark; the chain of readouts stops at byte {position} of {end}",
        "a twix file ends with ACQEND",
        "The scan was aborted or the file truncated; copy or export it again.",
    )


def _purpose(flags: int) -> Purpose:
    if flags & _NOISE:
        return Purpose.NOISE
    if flags & _PHASE_CORRECTION:
        return Purpose.PHASE_CORRECTION
    if flags & _OTHER_PURPOSES:
        return Purpose.OTHER
    return Purpose.CALIBRATION if flags & _CALIBRATION and not flags & _CALIBRATION_AND_IMAGE else Purpose.IMAGE


def _read_lines(content: mmap.mmap, refs: Sequence[int], is_vd: bool) -> list[np.ndarray]:
    struct = mdh_def.Scan_header if is_vd else mdh_def.VB17_header
    skip = ctypes.sizeof(mdh_def.Channel_header if is_vd else mdh_def.VB17_header)
    first = ctypes.sizeof(mdh_def.Scan_header) if is_vd else 0
    lines = []
    for ref in refs:
        mdh = struct.from_buffer_copy(content, ref)
        block = np.dtype([("skip", f"V{skip}"), ("samples", "<c8", (int(mdh.SamplesInScan),))])
        lines.append(np.frombuffer(content[ref + first : ref + first + block.itemsize * int(mdh.UsedChannels)], block)["samples"])
    return lines


def _center_line(name: str, selected: Selected, center_lines: Mapping[int, int]) -> int:
    """Return the counter of the zero frequency that all readouts agree on."""
    values = {center_lines[ref] for ref in selected.lines["ref"].tolist()}
    if len(values) > 1:
        raise ScanError(f"{name}: center_step {min(values)} to {max(values)}", "all readouts must agree", _EXPORT_AGAIN)
    return values.pop()


def _claims(protocol: "_ProtocolText", center: int, last: int, peak: int) -> list[Claim]:
    """Return what may be the counter of the zero frequency: the readouts' word, the middle of the lines, where the energy lies.

    The matrix is symmetric about the centre line: where the protocol says less than was measured, the data decide. Of a Pulseq
    sequence the protocol is the console's, not the sequence's, and says nothing.
    """
    steps = last + 1
    lines = 0 if protocol.is_pulseq else int(protocol.number("sKSpace.lPhaseEncodingLines") or 0)

    def width(center: int) -> int:
        return max(lines, steps, 2 * (steps - center), 2 * center if center < steps else 0)

    middles = {lines // 2: "the middle of the protocol's lines", steps // 2: "the middle of the measured lines"}
    claims = [Claim("as the readouts say", center, width(center))]
    claims += [Claim(source, middle, width(middle)) for middle, source in middles.items() if middle]
    return [*claims, Claim("where the energy lies", peak, width(peak), needs_peak=True)]


def _matrix(protocol: "_ProtocolText", selected: Selected) -> Matrix:
    """Return the readout matrix. Under an asymmetric echo of an oversampled readout the full one would be twice the base resolution."""
    first = selected.lines[0]
    base, num_samples = int(protocol.number("sKSpace.lBaseResolution") or 0), int(first["num_samples"])
    is_asymmetric = abs(int(first["center_sample"]) - num_samples // 2) > 1
    is_partial = base and not protocol.is_pulseq and is_asymmetric and num_samples < 2 * base
    return Matrix(2 * base if is_partial else num_samples, base)


def _header(
    protocol: "_ProtocolText",
    name: str,
    dataset: str,
    deidentifier: Deidentifier,
    geometry: Geometry,
    normal: Sequence[float],
    table_names: Sequence[str],
) -> VolumeHeader:
    stem = Path(name).stem
    identity = Identity(
        patient_id=protocol.real_id("PatientID") or protocol.text("PatientLOID"),
        patient_name=next((text for text in (*map(protocol.text, _NAME_KEYS), *table_names) if text), ""),
        birth_date=protocol.text("PatientBirthDay"),
        institution=protocol.text("InstitutionName"),
        # A twix file is called by the numbers of its measurement in the scanner's own book.
        others=(*(protocol.text(key) for key in _OTHER_KEYS), *re.findall(r"[MF]ID\d+", stem), *table_names),
    )
    protocol_name = protocol.text("tProtocolName")
    words = parse_protocol(
        words=f"{protocol_name} {protocol.text('tStudyDescription')} {protocol.text('tBodyPartExamined')}", name=protocol_name
    )
    fov = tuple(protocol.number(f"sSliceArray.asSlice[0].{side}") or 0.0 for side in ("dReadoutFOV", "dPhaseFOV", "dThickness"))
    base = int(protocol.number("sKSpace.lBaseResolution") or geometry.height)
    # Siemens oversamples the readout by exactly two or not at all.
    recon_height = geometry.height // 2 if 2 * base <= geometry.height and not protocol.is_pulseq else geometry.height
    oversampling = 0.0 if protocol.is_pulseq else protocol.number("sKSpace.dPhaseOversamplingForDialog") or 0.0
    return VolumeHeader(
        dataset=dataset or DEFAULT_DATASET,
        volume=deidentifier.volume(stem, identity),
        patient=deidentifier.patient(identity, stem),
        anatomy=words.anatomy,
        contrast=words.contrast,
        fat_suppressed=words.fat_suppressed,
        orientation=words.orientation or orientation_of(tuple(normal)),
        vendor="Siemens",
        field_strength=protocol.number("sProtConsistencyInfo.flNominalB0") or protocol.number("flMagneticFieldStrength") or 0.0,
        center=deidentifier.center(identity),
        sex=_SEX.get(protocol.number("lPatientSex") or 0.0),
        weight_bin_kg=weight_bin_of(protocol.number("flUsedPatientWeight") or 0.0),
        num_slices=geometry.num_slices,
        num_frames=geometry.num_frames,
        num_coils=geometry.num_coils,
        height=geometry.height,
        width=geometry.width,
        recon_height=recon_height,
        recon_width=max(1, round(geometry.width / (1 + max(oversampling, 0.0)))),
        fov_mm=(fov[0], fov[1], fov[2]),
        padding_left=geometry.left,
        padding_right=geometry.right,
        protocol_kinds=words.kinds,
    )


class _ProtocolText:
    """A few values out of the protocol's two dialects: ``key = value`` lines and ``<ParamString."key"> { "value" }``."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.is_pulseq = "pulseq" in self.text("tSequenceFileName").lower()

    def number(self, key: str) -> float | None:
        """Return a number, or None where it is absent or not finite."""
        found = self._line(key, rf"{_BEGIN}{re.escape(key)}{_EQUALS}([-+0-9.eExXa-f]{{1,24}}){_END}")
        text = found or self._param(key.rsplit(".", 1)[-1], "Double|Long")
        try:
            value = float(int(text, 16)) if text.lower().startswith("0x") else float(text)
        except ValueError:
            return None
        return value if np.isfinite(value) else None

    def text(self, key: str) -> str:
        """Return a text, or "" where it is absent."""
        found = self._line(key, rf'{_BEGIN}{re.escape(key)}{_EQUALS}"{{0,2}}([^"\n]{{1,256}})"{{0,2}}{_END}')
        return (found or self._param(key, "String|Long|Double")).strip()

    def real_id(self, key: str) -> str:
        """Return a text, or "" where an anonymiser overwrote it."""
        text = self.text(key)
        return "" if is_blank(text) else text

    def _line(self, key: str, pattern: str) -> str:
        """Return the first group of a pattern on the first line that begins with the key and fits, "" where none does."""
        compiled, at = re.compile(pattern, re.MULTILINE), self._text.find(key)
        while at >= 0:
            begin = self._text.rfind("\n", max(at - _INDENT - 1, 0), at) + 1
            found = compiled.match(self._text, begin or max(at - _INDENT, 0))
            if found:
                return found[1]
            at = self._text.find(key, at + len(key))
        return ""

    def _param(self, key: str, kinds: str) -> str:
        begin = rf'<Param(?:{kinds})\."{re.escape(key)}">\s{{0,64}}{{\s{{0,64}}(?:<Precision>\s{{0,8}}\d{{1,3}}\s{{0,64}})?'
        pattern = begin + r'"?([^"{}\n]{1,256}?)"?\s{0,64}}'
        begins = f'."{key}">'
        if begins not in self._text:
            return ""
        found = re.search(pattern, self._text)
        return found[1].strip() if found else ""
