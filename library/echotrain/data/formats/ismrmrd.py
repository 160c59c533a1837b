"""Raw ISMRMRD files: HDF5 with one compound row per readout, read without the ismrmrd package.

``<group>/xml`` is the header, ``<group>/data`` the readouts: ``head`` (a fixed struct), ``traj`` and ``data``
(variable-length float32, coil by coil, real and imaginary parts in turn).
"""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from echotrain.data.formats.deidentify import Deidentifier
from echotrain.data.formats.fastmri import DEFAULT_DATASET, fov_mm, identity_of
from echotrain.data.formats.hdf5 import Hdf5File, reading
from echotrain.data.formats.header import VolumeHeader
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.lines import Claim, Geometry, LineVolume, Matrix, place_lines, recon_size
from echotrain.data.formats.protocol import orientation_of, parse_protocol, vendor_name
from echotrain.data.formats.readouts import READOUT, Purpose, Readouts, Selected, select_readouts
from echotrain.data.formats.xml_header import ScanHeader, parse_header, refuse_other_than_lines
from echotrain.errors import ScanError

__all__ = ["find_groups", "open_ismrmrd"]

_EXPORT_AGAIN = "Export the scan again."
# ISMRMRD numbers its flags from 1. Calibration lines that are image lines as well carry 21.
_NOISE, _CALIBRATION, _CALIBRATION_AND_IMAGE, _REVERSED, _PHASE_CORRECTION = (np.uint64(1 << (flag - 1)) for flag in (19, 20, 21, 22, 24))
# Navigation, feedback, dummy, surface-coil correction, phase stabilisation.
_OTHER = np.uint64(sum(1 << (flag - 1) for flag in (23, 26, 27, 28, 29, 30, 31)))
_HEAD_FIELDS = {
    "flags",
    "number_of_samples",
    "active_channels",
    "discard_pre",
    "discard_post",
    "center_sample",
    "encoding_space_ref",
    "idx",
}
_COUNTERS = ("average", "slice", "contrast", "phase", "repetition", "set", "segment")
# Lines that reach further beyond the matrix are not phase oversampling.
_MOST_OVERSAMPLING = 1.5
# Where Siemens' converter keeps the scanner's own CenterLin.
_CENTER_LINE_FIELD = 5
_MAX_GROUPS = 64
_BLOCK = 64


def find_groups(file: h5py.File) -> list[str]:
    """Return the groups that hold ``xml`` and ``data``, ``dataset`` by convention first; none where this is no ISMRMRD file."""
    found = []
    for name in dict.fromkeys(("dataset", *(str(key) for key in list(file.keys())[:_MAX_GROUPS]))):
        if isinstance(file.get(name, getlink=True), h5py.HardLink):
            group = file.get(name)
            if isinstance(group, h5py.Group) and "xml" in group and "data" in group:
                found.append(name)
    return found


def open_ismrmrd(path: Path, *, dataset: str, deidentifier: Deidentifier, limits: ReadLimits) -> LineVolume:
    """Open a raw ISMRMRD file; of its samples one image is read, to see where the zero frequency lies.

    Phases of the heart are frames; of several echoes, repetitions or sets the first is taken, and told.

    Raises:
        ScanError: The file is not what it says it is.
    """
    file = Hdf5File(path)
    try:
        return _open(file, dataset, deidentifier, limits)
    except BaseException:
        file.close()
        raise


def _open(file: Hdf5File, dataset: str, deidentifier: Deidentifier, limits: ReadLimits) -> LineVolume:
    name = file.name
    xml, data, heads, num_groups = _first_image(file, limits)
    scan = parse_header(file.text(xml, limits), name)
    refuse_other_than_lines(scan, name)
    readouts = _readouts(heads)
    _refuse_other_encoding(name, heads)
    normal = _vector(heads, "slice_dir", readouts[readouts["purpose"] == Purpose.IMAGE]["ref"])
    selected = select_readouts(name, readouts, calibration=scan.calibration, echo_train=scan.echo_train, normal=normal)
    left_out = int((heads["encoding_space_ref"] != 0).sum())

    def read_lines(refs: Sequence[int]) -> list[np.ndarray]:
        return _read_lines(file, data, refs, heads)

    geometry, told = place_lines(
        name,
        selected,
        read_lines,
        matrix=Matrix(scan.encoded[0], scan.recon[0]),
        claims=lambda last, peak: _claims(scan, heads, selected, last, peak),
        limits=limits,
    )
    findings = [*scan.notes, *([f"left out {left_out} readouts of further encodings"] if left_out else []), *selected.findings, *told]
    if num_groups > 1:
        findings.append(f"took 1 of {num_groups} measurements in the file, the others are left out")
    if _has_several_orientations(heads, selected):
        findings.append("slices of several orientations are taken as one volume")
    if scan.num_slices not in (0, selected.num_slices):
        findings.append(f"the header announces {scan.num_slices} slices, the file holds {selected.num_slices}")
    return LineVolume(
        name,
        header=_header(scan, name, dataset, deidentifier, geometry, normal),
        geometry=geometry,
        selected=selected,
        num_partitions=max(scan.maximum_z, int(selected.lines["partition"].max())) + 1,
        read_lines=read_lines,
        close=file.close,
        findings=findings,
    )


def _first_image(file: Hdf5File, limits: ReadLimits) -> tuple[h5py.Dataset, h5py.Dataset, np.ndarray, int]:
    """Return header, readouts and their heads of the first group with readouts of an image, else of the first; and how many have some."""
    found: list[tuple[bool, h5py.Dataset, h5py.Dataset, np.ndarray]] = []
    for group in find_groups(file.root):
        xml, data = file.dataset(f"{group}/xml", limits), file.dataset(f"{group}/data", limits, slice_axes=1)
        if xml is not None and data is not None:
            heads = _read_heads(file, data)
            found.append((bool((_readouts(heads)["purpose"] == Purpose.IMAGE).any()), xml, data, heads))
    if not found:
        raise ScanError(f"{file.name}: no xml and data", "an ISMRMRD file holds both", _EXPORT_AGAIN)
    _, xml, data, heads = next((entry for entry in found if entry[0]), found[0])
    return xml, data, heads, sum(entry[0] for entry in found)


def _refuse_other_encoding(name: str, heads: np.ndarray) -> None:
    """Refuse a file whose image lies in another encoding than the first, which alone is read."""
    flags = heads["flags"]
    is_image = (flags & (_NOISE | _CALIBRATION | _PHASE_CORRECTION | _OTHER)) == 0
    spaces, counts = np.unique(heads["encoding_space_ref"][is_image], return_counts=True)
    if len(spaces) and spaces[int(np.argmax(counts))] != 0:
        raise ScanError(
            f"{name}: most lines are of encoding {spaces[int(np.argmax(counts))]}",
            "only the first encoding of a file is read, which here is a reference",
            "Export the image alone.",
        )


def _has_several_orientations(heads: np.ndarray, selected: Selected) -> bool:
    if "slice_dir" not in (heads.dtype.names or ()):
        return False
    normals = np.nan_to_num(heads["slice_dir"][selected.lines["ref"]].astype(float))
    return bool((np.abs(normals @ normals[0]) < 0.9 * np.linalg.norm(normals[0]) ** 2).any())


def _read_heads(file: Hdf5File, data: h5py.Dataset) -> np.ndarray:
    name = file.name
    names = data.dtype.names or ()
    fields = (data.dtype["head"].names or ()) if "head" in names else ()
    if len(data.shape) != 1 or "data" not in names or not _HEAD_FIELDS.issubset(fields):
        raise ScanError(f"{name}: data of type {str(data.dtype)[:60]}", "must be ISMRMRD acquisitions", _EXPORT_AGAIN)
    if h5py.check_vlen_dtype(data.dtype["data"]) != np.dtype(np.float32):
        raise ScanError(f"{name}: samples of type {data.dtype['data']}", "must be variable-length float32", _EXPORT_AGAIN)
    with reading(name, "the heads of the readouts"):
        return _stored_heads(data)


def _stored_heads(data: h5py.Dataset) -> np.ndarray:
    """Return the heads of all readouts. Asking h5py for that field alone makes it read every sample too, and keep it for ever."""
    kind = data.id.get_type()
    index = kind.get_member_index(b"head")
    dtype, offset, size = data.dtype["head"], kind.get_member_offset(index), kind.get_size()
    is_plain = data.chunks is not None and not data.id.get_create_plist().get_nfilters()
    if not is_plain or dtype.itemsize != kind.get_member_type(index).get_size():
        blocks = (data[first : first + _BLOCK]["head"].copy() for first in range(0, len(data), _BLOCK))
        return np.concatenate([np.empty(0, dtype), *blocks])
    heads = np.empty(len(data), dtype)
    for first in range(0, len(data), data.chunks[0]):
        _, chunk = data.id.read_direct_chunk((first,))
        rows = np.frombuffer(chunk, np.uint8).reshape(-1, size)[: len(data) - first, offset : offset + dtype.itemsize]
        heads[first : first + len(rows)] = np.ascontiguousarray(rows).view(dtype)[:, 0]
    return heads


def _readouts(heads: np.ndarray) -> Readouts:
    """Describe the readouts of the first encoding."""
    rows = np.flatnonzero(heads["encoding_space_ref"] == 0)
    heads, idx = heads[rows], heads["idx"][rows]
    flags = heads["flags"]
    readouts = np.zeros(len(rows), READOUT)
    readouts["ref"] = rows
    is_calibration = ((flags & _CALIBRATION) != 0) & ((flags & _CALIBRATION_AND_IMAGE) == 0)
    purposes = (
        ((flags & _OTHER) != 0, Purpose.OTHER),
        (is_calibration, Purpose.CALIBRATION),
        ((flags & _PHASE_CORRECTION) != 0, Purpose.PHASE_CORRECTION),
        ((flags & _NOISE) != 0, Purpose.NOISE),
    )
    for applies, purpose in purposes:
        readouts["purpose"][applies] = purpose
    readouts["is_reversed"] = (flags & _REVERSED) != 0
    readouts["num_samples"] = heads["number_of_samples"].astype(int) - heads["discard_pre"] - heads["discard_post"]
    readouts["center_sample"] = heads["center_sample"].astype(int) - heads["discard_pre"]
    readouts["num_coils"] = heads["active_channels"]
    readouts["step"], readouts["partition"] = idx["kspace_encode_step_1"], idx["kspace_encode_step_2"]
    for counter in _COUNTERS:
        readouts[counter] = idx[counter]
    if "position" in (heads.dtype.names or ()):
        readouts["position"] = np.nan_to_num(heads["position"].astype(float))
    return readouts[(readouts["num_samples"] > 0) & (readouts["num_coils"] > 0)]


def _claims(scan: ScanHeader, heads: np.ndarray, selected: Selected, last: int, peak: int) -> list[Claim]:
    """Return what may be the counter of the zero frequency, the header's word first, the energy's last.

    Where lines reach beyond the header's matrix (phase oversampling that it does not count), the matrix is as wide as they need.
    """
    width = scan.encoded[1]
    claims = [Claim("as the header says", scan.center_y, width)]
    if int(selected.lines["step"].min()) == 1:
        claims.append(Claim("since counters begin at 1", scan.center_y + 1, width))
    if "user" in (heads["idx"].dtype.names or ()):
        lines = heads["idx"]["user"][selected.lines["ref"]].reshape(len(selected.lines), -1)
        own = np.unique(lines[:, _CENTER_LINE_FIELD]) if lines.shape[1] > _CENTER_LINE_FIELD else np.zeros(0)
        if len(own) == 1 and own[0] > 0:
            claims.append(Claim("as the scanner's own counter says", int(own[0]), width))
    claims += [Claim("the middle of the matrix", width // 2, width), Claim("where the energy lies", peak, width, needs_peak=True)]
    if width < last + 1 <= _MOST_OVERSAMPLING * width:
        wide = "since lines reach beyond the matrix"
        claims += [Claim(wide, center, 2 * max(center, last + 1 - center), needs_peak=True) for center in (scan.center_y, peak)]
    return claims


def _vector(heads: np.ndarray, field: str, rows: np.ndarray) -> tuple[float, float, float]:
    """Return a direction of the first of some readouts, zeros where heads have none."""
    if field not in (heads.dtype.names or ()) or not len(rows):
        return 0.0, 0.0, 0.0
    x, y, z = (float(value) for value in np.nan_to_num(heads[field][rows[0]].astype(float)))
    return x, y, z


def _read_lines(file: Hdf5File, data: h5py.Dataset, refs: Sequence[int], heads: np.ndarray) -> list[np.ndarray]:
    lines = []
    for ref in refs:
        # One by one, and whole: many rows of a hostile file may share one large piece of it, and each would take memory of its own;
        # of a single field h5py would never free the others.
        pairs = np.ascontiguousarray(file.read(data, slice(ref, ref + 1))["data"][0], dtype=np.float32)
        head = heads[ref]
        expected = 2 * int(head["active_channels"]) * int(head["number_of_samples"])
        if pairs.size != expected:
            raise ScanError(f"{file.name}: a readout of {pairs.size} numbers", f"its head declares {expected}", _EXPORT_AGAIN)
        line = pairs.view(np.complex64).reshape(int(head["active_channels"]), -1)
        lines.append(line[:, int(head["discard_pre"]) : int(head["number_of_samples"]) - int(head["discard_post"])].copy())
    return lines


def _header(
    scan: ScanHeader, name: str, dataset: str, deidentifier: Deidentifier, geometry: Geometry, normal: tuple[float, float, float]
) -> VolumeHeader:
    identity, stem = identity_of(scan), Path(name).stem
    protocol = parse_protocol(words=scan.protocol, name=scan.protocol_name)
    # A matrix that is not the header's (oversampling removed, or not counted) covers another field of view than the header's.
    readout_mm = scan.encoded_fov[0] * geometry.height / scan.encoded[0]
    phase_mm = scan.encoded_fov[1] * geometry.width / scan.encoded[1]
    return VolumeHeader(
        dataset=dataset or DEFAULT_DATASET,
        volume=deidentifier.volume(stem, identity),
        patient=deidentifier.patient(identity, stem),
        anatomy=protocol.anatomy,
        contrast=protocol.contrast,
        fat_suppressed=protocol.fat_suppressed,
        orientation=protocol.orientation or orientation_of(normal),
        vendor=vendor_name(scan.vendor),
        field_strength=scan.field_strength,
        center=deidentifier.center(identity),
        sex=scan.sex,
        weight_bin_kg=scan.weight_bin_kg,
        num_slices=geometry.num_slices,
        num_frames=geometry.num_frames,
        num_coils=geometry.num_coils,
        height=geometry.height,
        width=geometry.width,
        recon_height=recon_size(geometry.height, readout_mm, scan.recon_fov[0], scan.recon[0]),
        recon_width=recon_size(geometry.width, phase_mm, scan.recon_fov[1], scan.recon[1]),
        fov_mm=fov_mm(scan),
        padding_left=geometry.left,
        padding_right=geometry.right,
        protocol_kinds=protocol.kinds,
    )
