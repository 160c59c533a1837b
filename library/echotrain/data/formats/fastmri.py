"""fastMRI- and MosaicMRI-layout HDF5: one volume per file, k-space already sorted.

``kspace`` is complex64 (slices, coils, height, width), or (slices, height, width) of a single coil; the target is
``reconstruction_rss``, of a single coil ``reconstruction_esc`` (single-coil files carry both: the other one is of all coils); test files
carry ``mask`` instead of a target. Files that store (phase, readout), as some of MosaicMRI's are said to, are turned to (readout, phase).
"""

import math
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

import h5py
import numpy as np

from echotrain.data.formats.checks.axes import AxisClaims, is_phase_first
from echotrain.data.formats.checks.energy import finite_energy
from echotrain.data.formats.checks.target import scale_of
from echotrain.data.formats.deidentify import Deidentifier, Identity, is_blank, safe_word
from echotrain.data.formats.hdf5 import Hdf5File, contiguous_offset
from echotrain.data.formats.header import VolumeHeader
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.protocol import parse_protocol, vendor_name
from echotrain.data.formats.public_names import acquisition_code, collection_name
from echotrain.data.formats.volume import ByteRange
from echotrain.data.formats.xml_header import ScanHeader, parse_header, refuse_other_than_lines
from echotrain.errors import ScanError
from echotrain.storage.ranged_file import RangedFile

__all__ = ["DEFAULT_DATASET", "FastmriVolume", "fov_mm", "identity_of"]

DEFAULT_DATASET = "scans"
_TARGETS = {True: ("reconstruction_rss", "reconstruction_esc"), False: ("reconstruction_esc", "reconstruction_rss")}
_MULTICOIL_RANK = 4
_EXPORT_AGAIN = "Export the scan again."


class FastmriVolume:
    """A fastMRI-layout file, opened."""

    def __init__(
        self,
        path: Path | RangedFile,
        *,
        dataset: str,
        deidentifier: Deidentifier,
        limits: ReadLimits,
        location: str = "",
        assume_full: bool = False,
    ) -> None:
        """Open a file and check all that it declares; of the k-space at most one slice is read, where sizes do not tell its axes.

        Args:
            path: The file; its stem becomes the volume's id where it is safe to write down.
            dataset: Collection the volume belongs to; "" takes the file's own ``dataset`` attribute.
            deidentifier: Makes the pseudonyms.
            limits: Memory limits.
            location: Where the file lies, as a catalog would say it.
            assume_full: Take a file that has neither a header nor a mask as fully sampled.

        Raises:
            ScanError: The file is not what it says it is.
        """
        self._name = path.name
        self._file = Hdf5File(path)
        self._told: list[str] = []
        try:
            self._kspace = self._open_kspace(limits)
            self._target = self._open_target(limits)
            scan = self._read_header(limits, assume_full)
            self._told += scan.notes
            self.num_partitions = scan.maximum_z + 1
            self.is_phase_first = self._find_axes(scan)
            if self.is_phase_first:
                self._told.append("stored (phase, readout): turned to (readout, phase)")
            self._mask = self._read_mask(limits)
            identity = identity_of(scan, self._file.identifier("patient_id"))
            self.header = self._build_header(scan, identity, dataset, deidentifier)
            self.is_location_safe = deidentifier.is_safe_location(location, identity)
        except BaseException:
            self._file.close()
            raise

    @property
    def findings(self) -> tuple[str, ...]:
        """What of the file was taken, corrected or taken on trust."""
        return tuple(self._told)

    @property
    def in_place_defect(self) -> str:
        """Nothing: the ranges say it slice by slice."""
        return ""

    @property
    def calibration(self) -> None:
        """None: this layout keeps no calibration lines apart."""

    def read_slice(self, index: int) -> np.ndarray:
        """Return k-space of one slice: complex64 (coils, height, width)."""
        return self._turned(self._read_stored(index))

    def read_target(self, index: int) -> np.ndarray | None:
        """Return the target of one slice, float32 (recon_height, recon_width), or None."""
        return None if self._target is None else self._turned(self._file.read(self._target, index).astype(np.float32, copy=False))

    def raw_slice_range(self, index: int) -> ByteRange | None:
        """Return where the slice lies as contiguous little-endian complex64, or None."""
        return None if self.is_phase_first else _row_range(self._kspace, index, "<c8")

    def raw_target_range(self, index: int) -> ByteRange | None:
        """Return where the target lies as contiguous little-endian float32, or None."""
        return None if self._target is None or self.is_phase_first else _row_range(self._target, index, "<f4")

    def mask(self, index: int) -> np.ndarray | None:
        """Return the acquired lines of a slice of an undersampled test file, bool (width,), or None."""
        return None if self._mask is None else self._mask[index if len(self._mask) > 1 else 0]

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
        is_multicoil = len(self._kspace.shape) == _MULTICOIL_RANK and self._kspace.shape[1] > 1
        for name in _TARGETS[is_multicoil]:
            target = self._file.dataset(name, limits, slice_axes=2)
            if target is None:
                continue
            if len(target.shape) != 3 or target.shape[0] != num_slices or target.dtype.kind != "f":
                self._told.append(f"the stored target of {target.shape}, {target.dtype} is none of {num_slices} slices: computed instead")
                continue
            if target.shape[1] <= height and target.shape[2] <= width:
                return target
            self._told.append(
                f"the stored target of {target.shape[1]} x {target.shape[2]} was interpolated: computed from the k-space instead"
            )
        return None

    def _read_header(self, limits: ReadLimits, assume_full: bool) -> ScanHeader:
        """Return the header; of a file without one what its shape says, where something says what was measured."""
        xml = self._file.dataset("ismrmrd_header", limits)
        if xml is not None:
            return parse_header(self._file.text(xml, limits), self._name)
        if not assume_full and self._file.dataset("mask", limits) is None:
            raise ScanError(
                f"{self._name}: no ismrmrd_header",
                "the header states which lines were measured",
                "Give --assume-full if all were; or store a 'mask' of those that were; or export the scan again.",
            )
        height, width = self._kspace.shape[-2:]
        mask = self._file.dataset("mask", limits)
        if mask is not None and height != width and mask.shape and mask.shape[-1] == height:
            height, width = width, height
            self._told.append("no header: sizes are those of the arrays, phase encodes those of the mask")
        else:
            self._told.append("no header: sizes are those of the arrays, the readout is taken to be the first axis")
        return ScanHeader(encoded=(height, width, 1), recon=(height, width, 1), center_y=width // 2, maximum_y=width - 1)

    def _find_axes(self, scan: ScanHeader) -> bool:
        """Return whether the phase encodes run along the first axis.

        Raises:
            ScanError: The header's matrix is not that of the k-space, in neither order of its axes.
        """
        stored = (int(self._kspace.shape[-2]), int(self._kspace.shape[-1]))
        if stored not in (scan.encoded[:2], scan.encoded[1::-1]):
            raise ScanError(
                f"{self._name}: header matrix {scan.encoded[0]} x {scan.encoded[1]}",
                f"the k-space is {stored[0]} x {stored[1]}",
                "Header and k-space are of different scans; export the scan again.",
            )
        claims = AxisClaims(
            encoded=scan.encoded[:2],
            recon=scan.recon[:2],
            padding=scan.padding(scan.encoded[1]),
            target=None if self._target is None else (int(self._target.shape[1]), int(self._target.shape[2])),
        )
        return is_phase_first(stored, claims, self._sample_energy, self._target_is_own)

    def _sample_energy(self) -> np.ndarray:
        """Return the energy of up to three slices that hold anything, with the file's own axes: (first, second)."""
        count = self._kspace.shape[0]
        wanted = list(dict.fromkeys((count // 2, count // 4, 3 * count // 4)))
        found: list[np.ndarray] = []
        for position, index in enumerate([*wanted, *(index for index in range(count) if index not in wanted)]):
            if position >= len(wanted) and found:
                break
            energy = finite_energy(self._read_stored(index))
            if energy.any():
                found.append(energy / energy.max())
        return np.sum(found, axis=0) if found else np.zeros(self._kspace.shape[-2:])

    def _target_is_own(self) -> bool:
        """Say whether the target in the middle is of the k-space beside it, both with the file's own axes."""
        index = self._kspace.shape[0] // 2
        if self._target is None:
            return False
        return scale_of(self._file.read(self._target, index).astype(np.float32), self._read_stored(index)) is not None

    def _read_stored(self, index: int) -> np.ndarray:
        """Return k-space of one slice with the file's own axes: complex64 (coils, first, second)."""
        kspace = self._file.read(self._kspace, index).astype(np.complex64, copy=False)
        return kspace if kspace.ndim == _MULTICOIL_RANK - 1 else kspace[None]

    def _turned(self, array: np.ndarray) -> np.ndarray:
        """Return an array (…, readout, phase) of one with the file's own axes."""
        return np.ascontiguousarray(array.swapaxes(-1, -2)) if self.is_phase_first else array

    def _read_mask(self, limits: ReadLimits) -> np.ndarray | None:
        dataset = self._file.dataset("mask", limits)
        if dataset is None:
            return None
        mask = self._file.read(dataset, ...)
        width = self._kspace.shape[-2 if self.is_phase_first else -1]
        lines = mask.reshape(-1, width) if mask.size and mask.size % width == 0 else mask.reshape(1, -1)
        if mask.dtype.kind not in "biuf" or lines.shape[1] != width or len(lines) not in (1, self._kspace.shape[0]):
            raise ScanError(
                f"{self._name}: mask of {' x '.join(map(str, mask.shape))} lines",
                f"the k-space has {width} phase encodes and {self._kspace.shape[0]} slices",
                _EXPORT_AGAIN,
            )
        return lines.astype(bool)

    def _build_header(self, scan: ScanHeader, identity: Identity, dataset: str, deidentifier: Deidentifier) -> VolumeHeader:
        shape = self._kspace.shape
        num_coils = shape[1] if len(shape) == _MULTICOIL_RANK else 1
        height, width = shape[-2:][:: -1 if self.is_phase_first else 1]
        refuse_other_than_lines(scan, self._name)
        words = {key: safe_word(str(self._file.attribute(key) or ""), identity) for key in ("acquisition", "dataset")}
        protocol = parse_protocol(
            anatomy=str(self._file.attribute("anatomy") or ""),
            contrast=str(self._file.attribute("contrast") or ""),
            acquisition=words["acquisition"],
            words=scan.protocol,
            name=scan.protocol_name,
        )
        stem = PurePosixPath(self._name).stem
        recon = self.stated_recon = (min(scan.recon[0], height), min(scan.recon[1], width))
        if self._target is not None:
            recon = self._target.shape[1:][:: -1 if self.is_phase_first else 1]
        padding = scan.padding(width)
        if padding is None:
            self._told.append(
                f"the header puts lines 0 to {scan.maximum_y} outside the matrix of {width}: the k-space says which were measured"
            )
        left, right = padding or (0, width)
        if scan.num_slices and scan.num_slices != shape[0]:
            self._told.append(f"the header announces {scan.num_slices} slices, the file holds {shape[0]}")
        return VolumeHeader(
            dataset=dataset or collection_name(words["dataset"]) or DEFAULT_DATASET,
            volume=deidentifier.volume(stem, identity),
            patient=deidentifier.patient(identity, stem),
            anatomy=protocol.anatomy,
            contrast=protocol.contrast,
            fat_suppressed=protocol.fat_suppressed,
            orientation=protocol.orientation,
            acquisition=acquisition_code(words["acquisition"]),
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
            protocol_kinds=protocol.kinds,
        )


def identity_of(scan: ScanHeader, patient_id: str = "") -> Identity:
    """Gather what an ISMRMRD header says about a person; a dataset's own patient id takes precedence, unless it was blanked."""
    named = {"patientID", "patientName", "patientBirthdate", "institutionName"}
    others = [text for key, text in scan.identifiers if key not in named]
    if patient_id:
        others.append(scan.identifier("patientID"))
    return Identity(
        patient_id=scan.identifier("patientID") if is_blank(patient_id) else patient_id,
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
