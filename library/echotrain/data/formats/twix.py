"""Siemens twix files (VB, VD, VE): protocol text, then one measurement data header before each readout.

twixtools defines the structures and the meaning of their flags. The chain of headers is walked here, because a
stranger's file may claim lengths that a trusting reader would follow; the protocol is searched for a few keys
instead of being evaluated.
"""

import ctypes
import mmap
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from twixtools import mdh_def
from twixtools.hdr_def import MrParcRaidFileEntry

from echotrain.data.formats.deidentify import Deidentifier, Identity
from echotrain.data.formats.fastmri import DEFAULT_DATASET
from echotrain.data.formats.limits import ReadLimits, human_bytes
from echotrain.data.formats.lines import Geometry, Line, LineVolume, check_lines
from echotrain.data.formats.protocol import orientation_of, parse_protocol
from echotrain.data.header import VolumeHeader
from echotrain.errors import ScanError

__all__ = ["open_twix"]

_EXPORT_AGAIN = "Export the scan again."
# VB files begin with the length of their header; VD and VE files with a small id and the number of measurements.
_MAX_VD_ID = 10000
_MIN_HEADER = 32
_OTHER_PURPOSES = sum(
    1 << mdh_def.mask_dict[flag]
    for flag in (
        *("ACQEND", "RTFEEDBACK", "HPFEEDBACK", "SYNCDATA", "REFPHASESTABSCAN", "PHASESTABSCAN", "PHASCOR", "NOISEADJSCAN", "noname60"),
        *("RETRO_DUMMYSCAN", "B1_CONTROLLOOP", "PACE", "SLICE_ACCEL_REFSCAN", "SLICE_ACCEL_PHASCOR"),
    )
)
_NO_SAMPLES = (1 << mdh_def.mask_dict["ACQEND"]) | (1 << mdh_def.mask_dict["SYNCDATA"])
_CALIBRATION, _CALIBRATION_AND_IMAGE = 1 << mdh_def.mask_dict["PATREFSCAN"], 1 << mdh_def.mask_dict["PATREFANDIMASCAN"]
_REFLECTED = 1 << mdh_def.mask_dict["REFLECT"]
_NAME_KEYS = ("tPatientName", "PatientName", "tPatientsName")
_OTHER_KEYS = ("tPerfPhysiciansName", "DeviceSerialNumber", "FrameOfReference", "StudyLOID", "PatientLOID", "InstitutionAddress")


# Every repetition is bounded: a protocol of nothing but blanks must not take quadratic time.
_BEGIN, _EQUALS, _END = r"^[ \t]{0,8}", r"[ \t]{0,64}=[ \t]{0,64}", r"[ \t\r]{0,8}$"


class _Readout(NamedTuple):
    line: Line
    num_samples: int
    num_coils: int
    center_sample: int
    center_step: int
    partition: int


def open_twix(path: Path, *, dataset: str, deidentifier: Deidentifier, limits: ReadLimits) -> LineVolume:
    """Open the last measurement of a twix file; earlier ones are adjustments.

    Of several echoes, phases, repetitions or sets the first is taken.

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
    readouts = list(_walk(content, start + header_bytes, end, is_vd, name))
    geometry = _geometry(protocol, readouts, name)
    lines = [readout.line for readout in readouts]
    num_slices, left, right = check_lines(name, geometry, lines, limits)
    header = _header(protocol, name, dataset, deidentifier, geometry, num_slices, (left, right))
    return LineVolume(
        name,
        header=header,
        geometry=geometry,
        lines=lines,
        read_lines=lambda refs: _read_lines(content, refs, geometry, is_vd),
        close=content.close,
    )


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


def _walk(content: mmap.mmap, position: int, end: int, is_vd: bool, name: str) -> Iterator[_Readout]:
    """Yield the imaging readouts up to the end mark; every length is checked before it is followed."""
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
        if _is_image(mdh, flags):
            yield _readout(mdh, flags, position)
        position += length
    raise ScanError(
        f"{name}: no end mark; the chain of readouts stops at byte {position} of {end}",
        "a twix file ends with ACQEND",
        "The scan was aborted or the file truncated; copy or export it again.",
    )


def _is_image(mdh: Any, flags: int) -> bool:
    counter = mdh.Counter
    is_other = flags & _OTHER_PURPOSES or (flags & _CALIBRATION and not flags & _CALIBRATION_AND_IMAGE)
    return not (is_other or counter.Eco or counter.Phs or counter.Rep or counter.Set) and bool(mdh.SamplesInScan and mdh.UsedChannels)


def _readout(mdh: Any, flags: int, position: int) -> _Readout:
    return _Readout(
        Line(int(mdh.Counter.Sli), int(mdh.Counter.Lin), position, bool(flags & _REFLECTED)),
        num_samples=int(mdh.SamplesInScan),
        num_coils=int(mdh.UsedChannels),
        center_sample=int(mdh.CenterCol),
        center_step=int(mdh.CenterLin),
        partition=int(mdh.Counter.Par),
    )


def _read_lines(content: mmap.mmap, refs: Sequence[int], geometry: Geometry, is_vd: bool) -> list[np.ndarray]:
    skip = ctypes.sizeof(mdh_def.Channel_header if is_vd else mdh_def.VB17_header)
    first = ctypes.sizeof(mdh_def.Scan_header) if is_vd else 0
    block = np.dtype([("skip", f"V{skip}"), ("samples", "<c8", (geometry.num_samples,))])
    nbytes = block.itemsize * geometry.num_coils
    return [np.frombuffer(content[ref + first : ref + first + nbytes], block)["samples"] for ref in refs]


def _geometry(protocol: "_ProtocolText", readouts: Sequence[_Readout], name: str) -> Geometry:
    if not readouts:
        raise ScanError(f"{name}: no imaging readouts", "at least one slice is needed", "Check that this is the imaging scan.")
    first = readouts[0]
    for what in ("num_samples", "num_coils", "center_step"):
        values = {getattr(readout, what) for readout in readouts}
        if len(values) > 1:
            raise ScanError(f"{name}: {what} {min(values)} to {max(values)}", "all readouts must agree", _EXPORT_AGAIN)
    steps = max(readout.line.step for readout in readouts) + 1
    lines = int(protocol.number("sKSpace.lPhaseEncodingLines") or steps)
    # The matrix is symmetric about the centre line: where the protocol says less than was measured, the data decide.
    width = max(lines, steps, 2 * (steps - first.center_step), 2 * first.center_step if first.center_step < steps else 0)
    base = int(protocol.number("sKSpace.lBaseResolution") or 0)
    height = first.num_samples
    # An asymmetric echo of an oversampled readout: the full readout would be twice the base resolution.
    if base and first.center_sample != first.num_samples // 2 and first.num_samples < 2 * base:
        height = 2 * base
    return Geometry(
        height=height,
        width=width,
        center_step=first.center_step,
        num_samples=first.num_samples,
        center_sample=first.center_sample,
        num_coils=first.num_coils,
        num_partitions=max(readout.partition for readout in readouts) + 1,
    )


def _header(
    protocol: "_ProtocolText",
    name: str,
    dataset: str,
    deidentifier: Deidentifier,
    geometry: Geometry,
    num_slices: int,
    measured: tuple[int, int],
) -> VolumeHeader:
    stem = Path(name).stem
    identity = Identity(
        patient_id=protocol.real_id("PatientID") or protocol.text("PatientLOID"),
        patient_name=next((text for key in _NAME_KEYS if (text := protocol.text(key))), ""),
        birth_date=protocol.text("PatientBirthDay"),
        institution=protocol.text("InstitutionName"),
        others=tuple(protocol.text(key) for key in _OTHER_KEYS),
    )
    protocol_name = protocol.text("tProtocolName")
    words = parse_protocol(
        words=f"{protocol_name} {protocol.text('tStudyDescription')} {protocol.text('tBodyPartExamined')}", name=protocol_name
    )
    normal = tuple(protocol.number(f"sSliceArray.asSlice[0].sNormal.{axis}") or 0.0 for axis in ("dSag", "dCor", "dTra"))
    fov = tuple(protocol.number(f"sSliceArray.asSlice[0].{side}") or 0.0 for side in ("dReadoutFOV", "dPhaseFOV", "dThickness"))
    base = int(protocol.number("sKSpace.lBaseResolution") or geometry.height)
    # Siemens oversamples the readout by exactly two or not at all.
    recon_height = geometry.height // 2 if 2 * base <= geometry.height else geometry.height
    oversampling = protocol.number("sKSpace.dPhaseOversamplingForDialog") or 0.0
    return VolumeHeader(
        dataset=dataset or DEFAULT_DATASET,
        volume=deidentifier.volume(stem, identity),
        patient=deidentifier.patient(identity, stem),
        anatomy=words.anatomy,
        contrast=words.contrast,
        fat_suppressed=words.fat_suppressed,
        orientation=words.orientation or orientation_of(normal),
        vendor="Siemens",
        field_strength=protocol.number("sProtConsistencyInfo.flNominalB0") or protocol.number("flMagneticFieldStrength") or 0.0,
        center=deidentifier.center(identity),
        num_slices=num_slices,
        num_coils=geometry.num_coils,
        height=geometry.height,
        width=geometry.width,
        recon_height=recon_height,
        recon_width=max(1, round(geometry.width / (1 + max(oversampling, 0.0)))),
        fov_mm=(fov[0], fov[1], fov[2]),
        padding_left=measured[0],
        padding_right=measured[1],
        protocol_kinds=words.kinds,
    )


class _ProtocolText:
    """A few values out of the protocol's two dialects: ``key = value`` lines and ``<ParamString."key"> { "value" }``."""

    def __init__(self, text: str) -> None:
        self._text = text

    def number(self, key: str) -> float | None:
        """Return a number, or None where it is absent or not finite."""
        found = re.search(rf"{_BEGIN}{re.escape(key)}{_EQUALS}([-+0-9.eExXa-f]{{1,24}}){_END}", self._text, re.MULTILINE)
        text = found[1] if found else self._param(key.rsplit(".", 1)[-1], "Double|Long")
        try:
            value = float(int(text, 16)) if text.lower().startswith("0x") else float(text)
        except ValueError:
            return None
        return value if np.isfinite(value) else None

    def text(self, key: str) -> str:
        """Return a text, or "" where it is absent."""
        found = re.search(rf'{_BEGIN}{re.escape(key)}{_EQUALS}"{{0,2}}([^"\n]{{1,256}})"{{0,2}}{_END}', self._text, re.MULTILINE)
        return (found[1] if found else self._param(key, "String|Long|Double")).strip()

    def real_id(self, key: str) -> str:
        """Return a text, or "" where an anonymiser overwrote it with one repeated character."""
        text = self.text(key)
        return "" if len(set(text)) <= 1 else text

    def _param(self, key: str, kinds: str) -> str:
        begin = rf'<Param(?:{kinds})\."{re.escape(key)}">\s{{0,64}}{{\s{{0,64}}(?:<Precision>\s{{0,8}}\d{{1,3}}\s{{0,64}})?'
        pattern = begin + r'"?([^"{}\n]{1,256}?)"?\s{0,64}}'
        found = re.search(pattern, self._text)
        return found[1].strip() if found else ""
