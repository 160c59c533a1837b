"""Raw ISMRMRD files: HDF5 with one compound row per readout, read without the ismrmrd package.

``<group>/xml`` is the header, ``<group>/data`` the readouts: ``head`` (a fixed struct), ``traj`` and ``data``
(variable-length float32, coil by coil, real and imaginary parts in turn).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from echotrain.data.formats.deidentify import Deidentifier
from echotrain.data.formats.fastmri import DEFAULT_DATASET, fov_mm, identity_of
from echotrain.data.formats.hdf5 import Hdf5File, reading
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.lines import Geometry, Line, LineVolume, check_lines, recon_size
from echotrain.data.formats.protocol import orientation_of, parse_protocol, vendor_name
from echotrain.data.formats.xml_header import ScanHeader, parse_header
from echotrain.data.header import VolumeHeader
from echotrain.errors import ScanError

__all__ = ["find_group", "open_ismrmrd"]

_EXPORT_AGAIN = "Export the scan again."
# ISMRMRD numbers its flags from 1: noise, calibration only, navigation, phase correction, feedback, dummy, surface-coil
# correction, phase stabilisation: readouts that are not lines of the image.
_OTHER_PURPOSES = sum(1 << (flag - 1) for flag in (19, 20, 23, 24, 26, 27, 28, 29, 30, 31))
_REVERSED = 1 << (22 - 1)
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
_FIRST_ONLY = ("contrast", "phase", "repetition", "set")
_MAX_GROUPS = 64
_BLOCK = 64


def find_group(file: h5py.File) -> str | None:
    """Return the group that holds ``xml`` and ``data`` (``dataset`` by convention), or None where this is no ISMRMRD file."""
    names = ["dataset", *(str(key) for key in list(file.keys())[:_MAX_GROUPS])]
    for name in names:
        if isinstance(file.get(name, getlink=True), h5py.HardLink):
            group = file.get(name)
            if isinstance(group, h5py.Group) and "xml" in group and "data" in group:
                return name
    return None


def open_ismrmrd(path: Path, *, dataset: str, deidentifier: Deidentifier, limits: ReadLimits) -> LineVolume:
    """Open a raw ISMRMRD file; headers of readouts are read, samples are not.

    Of several echoes, phases, repetitions or sets the first is taken.

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
    name, group = file.name, find_group(file.root)
    xml = None if group is None else file.dataset(f"{group}/xml", limits)
    data = None if group is None else file.dataset(f"{group}/data", limits, slice_axes=1)
    if xml is None or data is None:
        raise ScanError(f"{name}: no xml and data", "an ISMRMRD file holds both", _EXPORT_AGAIN)
    scan = parse_header(file.text(xml, limits), name)
    if scan.trajectory != "cartesian":
        raise ScanError(f"{name}: trajectory {scan.trajectory[:20]!r}", "only Cartesian k-space is read", "Leave this scan out.")
    heads = _read_heads(file, data)
    rows = _image_rows(heads)
    lines = [
        Line(int(head["idx"]["slice"]), int(head["idx"]["kspace_encode_step_1"]), int(row), bool(int(head["flags"]) & _REVERSED))
        for row, head in zip(rows.tolist(), heads[rows], strict=True)
    ]
    geometry = _geometry(scan, heads[rows], name)
    num_slices, left, right = check_lines(name, geometry, lines, limits)
    discard = int(heads[rows[0]]["discard_pre"]) if len(rows) else 0
    num_samples = heads["number_of_samples"].astype(int)
    header = _header(scan, name, dataset, deidentifier, geometry, num_slices, (left, right), heads[rows[0]])
    return LineVolume(
        name,
        header=header,
        geometry=geometry,
        lines=lines,
        read_lines=lambda refs: _read_lines(file, data, refs, geometry, discard, num_samples),
        close=file.close,
    )


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


def _image_rows(heads: np.ndarray) -> np.ndarray:
    is_image = ((heads["flags"] & np.uint64(_OTHER_PURPOSES)) == 0) & (heads["encoding_space_ref"] == 0)
    for counter in _FIRST_ONLY:
        is_image &= heads["idx"][counter] == 0
    return np.flatnonzero(is_image)


def _geometry(scan: ScanHeader, heads: np.ndarray, name: str) -> Geometry:
    if not len(heads):
        raise ScanError(f"{name}: no imaging readouts", "at least one slice is needed", "Check that this is the imaging scan.")
    samples = heads["number_of_samples"].astype(int) - heads["discard_pre"] - heads["discard_post"]
    for what, values in (
        ("samples per readout", samples),
        ("coils", heads["active_channels"]),
        ("discarded samples", heads["discard_pre"]),
    ):
        if values.min() != values.max():
            raise ScanError(f"{name}: {values.min()} to {values.max()} {what}", "all readouts must agree", _EXPORT_AGAIN)
    if samples[0] < 1 or samples[0] > scan.encoded[0]:
        raise ScanError(
            f"{name}: readouts of {samples[0]} samples", f"the header's matrix has {scan.encoded[0]}", "Header and data disagree."
        )
    return Geometry(
        height=scan.encoded[0],
        width=scan.encoded[1],
        center_step=scan.center_y,
        num_samples=int(samples[0]),
        center_sample=int(heads["center_sample"][0]) - int(heads["discard_pre"][0]),
        num_coils=int(heads["active_channels"][0]),
        num_partitions=max(scan.encoded[2], scan.maximum_z + 1, int(heads["idx"]["kspace_encode_step_2"].max()) + 1),
    )


def _read_lines(
    file: Hdf5File, data: h5py.Dataset, refs: Sequence[int], geometry: Geometry, discard: int, num_samples: np.ndarray
) -> list[np.ndarray]:
    lines = []
    for ref in refs:
        # One by one, and whole: many rows of a hostile file may share one large piece of it, and each would take memory of its own;
        # of a single field h5py would never free the others.
        pairs = np.ascontiguousarray(file.read(data, slice(ref, ref + 1))["data"][0], dtype=np.float32)
        expected = 2 * geometry.num_coils * int(num_samples[ref])
        if pairs.size != expected:
            raise ScanError(f"{file.name}: a readout of {pairs.size} numbers", f"its head declares {expected}", _EXPORT_AGAIN)
        line = pairs.view(np.complex64).reshape(geometry.num_coils, -1)
        lines.append(line[:, discard : discard + geometry.num_samples].copy())
    return lines


def _header(
    scan: ScanHeader,
    name: str,
    dataset: str,
    deidentifier: Deidentifier,
    geometry: Geometry,
    num_slices: int,
    measured: tuple[int, int],
    head: Any,
) -> VolumeHeader:
    identity, stem = identity_of(scan), Path(name).stem
    protocol = parse_protocol(words=scan.protocol)
    normal = tuple(float(value) for value in head["slice_dir"]) if "slice_dir" in head.dtype.names else (0.0, 0.0, 0.0)
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
        num_slices=num_slices,
        num_coils=geometry.num_coils,
        height=geometry.height,
        width=geometry.width,
        recon_height=recon_size(geometry.height, scan.encoded_fov[0], scan.recon_fov[0], scan.recon[0]),
        recon_width=recon_size(geometry.width, scan.encoded_fov[1], scan.recon_fov[1], scan.recon[1]),
        fov_mm=fov_mm(scan),
        padding_left=measured[0],
        padding_right=measured[1],
    )
