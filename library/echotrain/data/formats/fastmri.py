"""fastMRI- and MosaicMRI-layout HDF5: one volume per file, k-space already sorted.

``kspace`` is complex64 (slices, coils, height, width), or (slices, height, width) of a single coil; the target is
``reconstruction_rss`` (``reconstruction_esc`` of a single coil); test files carry ``mask`` instead of a target.
"""

import math
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

import h5py
import numpy as np

from echotrain.data.formats.deidentify import Deidentifier, Identity, reads_as_identifier, safe_word
from echotrain.data.formats.hdf5 import Hdf5File, contiguous_offset
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.protocol import parse_protocol, vendor_name
from echotrain.data.formats.volume import ByteRange
from echotrain.data.formats.xml_header import ScanHeader, parse_header
from echotrain.data.header import VolumeHeader
from echotrain.errors import ScanError
from echotrain.storage.ranged_file import RangedFile

__all__ = ["DEFAULT_DATASET", "FastmriVolume", "fov_mm", "identity_of"]

DEFAULT_DATASET = "scans"
_TARGETS = ("reconstruction_rss", "reconstruction_esc")
_MULTICOIL_RANK = 4
_EXPORT_AGAIN = "Export the scan again."


class FastmriVolume:
    """A fastMRI-layout file, opened."""

    def __init__(
        self, path: Path | RangedFile, *, dataset: str, deidentifier: Deidentifier, limits: ReadLimits, location: str = ""
    ) -> None:
        """Open a file and check all that it declares; no k-space is read.

        Args:
            path: The file; its stem becomes the volume's id.
            dataset: Collection the volume belongs to; "" takes the file's own ``dataset`` attribute.
            deidentifier: Makes the pseudonyms.
            limits: Memory limits.
            location: Where the file lies, as a catalog would say it.

        Raises:
            ScanError: The file is not what it says it is.
        """
        self._name = name = path.name
        self._file = Hdf5File(path)
        try:
            self._kspace = self._open_kspace(limits)
            self._target = self._open_target(limits)
            self._mask = self._read_mask(limits)
            xml = self._file.dataset("ismrmrd_header", limits)
            if xml is None:
                raise ScanError(f"{name}: no ismrmrd_header", "the header states which lines were measured", _EXPORT_AGAIN)
            scan = parse_header(self._file.text(xml, limits), name)
            self.num_partitions = max(scan.encoded[2], scan.maximum_z + 1)
            identity = identity_of(scan, str(self._file.attribute("patient_id") or ""))
            self.header = self._build_header(scan, identity, dataset, deidentifier)
            # A stem that had to become a pseudonym must not come back as part of a location.
            is_named_safely = self.header.volume == PurePosixPath(name).stem
            self.is_location_safe = is_named_safely and not identity.occurs_in(location) and not reads_as_identifier(location)
        except BaseException:
            self._file.close()
            raise

    def read_slice(self, index: int) -> np.ndarray:
        """Return k-space of one slice: complex64 (coils, height, width)."""
        kspace = self._file.read(self._kspace, index).astype(np.complex64, copy=False)
        return kspace.reshape(self.header.num_coils, self.header.height, self.header.width)

    def read_target(self, index: int) -> np.ndarray | None:
        """Return the target of one slice, float32 (recon_height, recon_width), or None."""
        return None if self._target is None else self._file.read(self._target, index).astype(np.float32, copy=False)

    def raw_slice_range(self, index: int) -> ByteRange | None:
        """Return where the slice lies as contiguous little-endian complex64, or None."""
        return _row_range(self._kspace, index, "<c8")

    def raw_target_range(self, index: int) -> ByteRange | None:
        """Return where the target lies as contiguous little-endian float32, or None."""
        return None if self._target is None else _row_range(self._target, index, "<f4")

    def mask(self) -> np.ndarray | None:
        """Return the acquired lines of an undersampled test file, bool (width,), or None."""
        return self._mask

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open_kspace(self, limits: ReadLimits) -> h5py.Dataset:
        kspace = self._file.dataset("kspace", limits, slice_axes=3)
        if kspace is None:
            raise ScanError(f"{self._name}: no dataset 'kspace'", "fastMRI-layout files hold one", "Check that this is a k-space file.")
        if len(kspace.shape) not in (_MULTICOIL_RANK, _MULTICOIL_RANK - 1) or math.prod(kspace.shape) == 0:
            raise ScanError(
                f"{self._name}: kspace of shape {kspace.shape}",
                "must be (slices, coils, height, width) or (slices, height, width)",
                _EXPORT_AGAIN,
            )
        if kspace.dtype.kind != "c":
            raise ScanError(f"{self._name}: kspace of type {kspace.dtype}", "must be complex", "Store it as complex64.")
        return kspace

    def _open_target(self, limits: ReadLimits) -> h5py.Dataset | None:
        """Return the target dataset; None where there is none, or where it is wider than the k-space (interpolated)."""
        num_slices, (height, width) = self._kspace.shape[0], self._kspace.shape[-2:]
        for name in _TARGETS:
            target = self._file.dataset(name, limits, slice_axes=2)
            if target is None:
                continue
            if len(target.shape) != 3 or target.shape[0] != num_slices or target.dtype.kind != "f":
                raise ScanError(
                    f"{self._name}: {name} of shape {target.shape}, {target.dtype}",
                    f"must be ({num_slices}, height, width) of float",
                    "Remove it: prepare computes targets.",
                )
            if target.shape[1] <= height and target.shape[2] <= width:
                return target
        return None

    def _read_mask(self, limits: ReadLimits) -> np.ndarray | None:
        dataset = self._file.dataset("mask", limits)
        if dataset is None:
            return None
        mask = self._file.read(dataset, ...).reshape(-1)
        if mask.size != self._kspace.shape[-1] or mask.dtype.kind not in "biuf":
            raise ScanError(f"{self._name}: mask of {mask.size} lines", f"the k-space has {self._kspace.shape[-1]}", _EXPORT_AGAIN)
        return mask.astype(bool)

    def _build_header(self, scan: ScanHeader, identity: Identity, dataset: str, deidentifier: Deidentifier) -> VolumeHeader:
        shape = self._kspace.shape
        num_coils = shape[1] if len(shape) == _MULTICOIL_RANK else 1
        height, width = shape[-2:]
        if scan.encoded[:2] != (height, width):
            raise ScanError(
                f"{self._name}: header matrix {scan.encoded[0]} x {scan.encoded[1]}",
                f"the k-space is {height} x {width}",
                "Header and k-space are of different scans; export the scan again.",
            )
        if scan.trajectory != "cartesian":
            raise ScanError(f"{self._name}: trajectory {scan.trajectory[:20]!r}", "only Cartesian k-space is read", "Leave this scan out.")
        words = {
            key: safe_word(str(self._file.attribute(key) or ""), identity) for key in ("acquisition", "anatomy", "contrast", "dataset")
        }
        protocol = parse_protocol(
            anatomy=words["anatomy"], contrast=words["contrast"], acquisition=words["acquisition"], words=scan.protocol
        )
        stem = PurePosixPath(self._name).stem
        recon = self._target.shape[1:] if self._target is not None else (min(scan.recon[0], height), min(scan.recon[1], width))
        left, right = scan.padding(width, self._name)
        return VolumeHeader(
            dataset=dataset or words["dataset"] or DEFAULT_DATASET,
            volume=deidentifier.volume(stem, identity),
            patient=deidentifier.patient(identity, stem),
            anatomy=protocol.anatomy,
            contrast=protocol.contrast,
            fat_suppressed=protocol.fat_suppressed,
            orientation=protocol.orientation,
            acquisition=words["acquisition"],
            vendor=vendor_name(scan.vendor),
            field_strength=scan.field_strength,
            center=deidentifier.center(identity),
            sex=scan.sex,
            weight_bin_kg=scan.weight_bin_kg,
            num_slices=shape[0],
            num_coils=num_coils,
            height=height,
            width=width,
            recon_height=int(recon[0]),
            recon_width=int(recon[1]),
            fov_mm=fov_mm(scan),
            padding_left=left,
            padding_right=right,
            max_value=_positive(self._file.attribute("max")),
            norm=_positive(self._file.attribute("norm")),
        )


def identity_of(scan: ScanHeader, patient_id: str = "") -> Identity:
    """Gather what an ISMRMRD header says about a person; a dataset's own patient id takes precedence."""
    named = {"patientID", "patientName", "patientBirthdate", "institutionName"}
    others = [text for key, text in scan.identifiers if key not in named]
    if patient_id:
        others.append(scan.identifier("patientID"))
    return Identity(
        patient_id=patient_id or scan.identifier("patientID"),
        patient_name=scan.identifier("patientName"),
        birth_date=scan.identifier("patientBirthdate"),
        institution=scan.identifier("institutionName"),
        others=tuple(others),
    )


def fov_mm(scan: ScanHeader) -> tuple[float, float, float]:
    """Return the reconstructed field of view, or the encoded one where that is not stated."""
    return scan.recon_fov if any(scan.recon_fov) else scan.encoded_fov


def _row_range(dataset: h5py.Dataset, index: int, dtype: str) -> ByteRange | None:
    offset = contiguous_offset(dataset)
    if offset is None or dataset.dtype != np.dtype(dtype):
        return None
    nbytes = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    return ByteRange(offset + index * nbytes, nbytes)


def _positive(value: str | float | None) -> float:
    return float(value) if isinstance(value, float) and math.isfinite(value) and value > 0 else 0.0
