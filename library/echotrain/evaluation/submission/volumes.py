"""Submissions of one HDF5 file per volume, which is how fastMRI and MosaicMRI take them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from echotrain.data.formats.deidentify import Deidentifier
from echotrain.data.formats.fastmri import identity_of
from echotrain.data.formats.hdf5 import Hdf5File, reading
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.sources import ScanSource, find_sources, opened_in_place, place_suffixes, scans_root
from echotrain.data.formats.xml_header import parse_header
from echotrain.errors import ConfigError, ScanError
from echotrain.evaluation.submission.challenge import ExpectedFile, Problem
from echotrain.evaluation.submission.reconstructions import Images
from echotrain.log import track
from echotrain.physics.crop import center_crop

__all__ = ["HEADER", "VolumeFacts", "check_volume", "expect_volumes", "read_header", "volume_misfit", "write_volume"]

HEADER = "ismrmrd_header"
_ENDING = ".h5"
# Whoever compresses a volume may have made one chunk of it.
_MIN_CHUNK_BYTES = 256 << 20
_SOME_KEYS = 20


@dataclass(frozen=True, kw_only=True)
class VolumeFacts:
    """What a file of a test set says about the volume that is wanted.

    Attributes:
        kspace: Shape of the k-space, (slices, …, height, width), or None where the file holds none.
        target: Shape of ``reconstruction_rss``, or None where the file holds none.
        recon: (height, width) of the header's recon matrix.
    """

    kspace: tuple[int, ...] | None
    target: tuple[int, ...] | None
    recon: tuple[int, int]


def expect_volumes(like: str, shape_of: Callable[[VolumeFacts], tuple[int, ...]]) -> list[ExpectedFile]:
    """Read a test set of HDF5 files; of each, only the header and the shapes.

    A reconstruction lies at the test file's own place, or has the name that ``ray_jobs.reconstruct`` gave it: the file's own, or the
    pseudonym of one that no public data set gives, followed by that of its place where it came from a sub-folder.

    Args:
        like: Folder or S3 prefix of the test set.
        shape_of: The challenge's rule for the shape of a volume, (slices, height, width).

    Raises:
        ConfigError: There is no HDF5 file.
        ScanError: One is damaged, or says too little.
        StorageError: The store failed.
    """
    sources, root, deidentifier = find_sources(like), scans_root(like), Deidentifier.of_environment()
    found = [pair for pair in zip(sources, place_suffixes(like, sources, deidentifier), strict=True) if pair[0].name.endswith(_ENDING)]
    if not found:
        raise ConfigError(like, f"holds no test file that ends in {_ENDING}", "Give the folder of the challenge's test set.")
    expected = []
    for source, suffix in track(found, "Reading the test set"):
        key = source.uri.removeprefix(root)
        volume, name = _read_facts(source, deidentifier)
        shape = shape_of(volume)
        if len(shape) != 3 or min(shape) < 1:
            held = f"k-space {volume.kspace}, reconstruction_rss {volume.target}"
            raise ScanError(f"{key}: {held}", "must tell a volume (slices, height, width)", "Give the challenge's test set.")
        # Whether a name was safe by a pattern of the user's is not known here.
        names = (key, f"{name}{suffix}{_ENDING}", f"{PurePosixPath(source.name).stem}{suffix}{_ENDING}")
        expected.append(ExpectedFile(path=key, shape=shape, images_shape=shape, source=source, names=names))
    return expected


def read_header(source: ScanSource) -> bytes:
    """Return the ISMRMRD header of a test file, byte by byte as it stands there."""
    with opened_in_place(source) as place, Hdf5File(place) as file:
        return _header(file)


def volume_misfit(expected: ExpectedFile, images: Images) -> str:
    """Say what a reconstruction would have to be: all slices, none smaller than the submission's; "" where it is."""
    slices, height, width = expected.images_shape
    if len(images.shape) == 3 and images.shape[0] == slices and images.shape[1] >= height and images.shape[2] >= width:
        return ""
    return f"{slices} slices of at least {height} x {width}"


def write_volume(path: Path, key: str, images: Images, shape: tuple[int, ...], header: bytes | None = None) -> None:
    """Write the centre of every slice, one at a time, as float32.

    Args:
        path: Destination.
        key: Name of the dataset.
        images: (slices, height, width), of which ``shape`` is the centre.
        shape: Of the dataset.
        header: Stored as ``ismrmrd_header``; None for no such dataset.
    """
    with h5py.File(path, "w") as file:
        if header is not None:
            file.create_dataset(HEADER, data=header)
        volume = file.create_dataset(key, shape=shape, dtype=np.float32)
        for index in range(shape[0]):
            volume[index] = center_crop(images.read(index), (shape[1], shape[2]))


def check_volume(expected: ExpectedFile, path: Path, key: str, others: frozenset[str] = frozenset()) -> Iterator[Problem]:
    """Yield what is wrong with a volume: its keys, shape, type, and values that are not finite.

    Args:
        expected: What is wanted.
        path: The file.
        key: Name of the dataset of images.
        others: Further names, all of which have to be there.

    Raises:
        ScanError: The file is damaged or hostile.
    """

    def problem(what: str, wanted: str) -> Problem:
        return Problem(file=expected.path, what=what, expected=wanted)

    limits = ReadLimits(slice_bytes=max(16 * math.prod(expected.shape[1:]), _MIN_CHUNK_BYTES))
    with Hdf5File(path) as file:
        with reading(file.name):
            keys = set(file.root)
        wanted = {key, *others}
        if extra := sorted(keys - wanted)[:_SOME_KEYS]:
            yield problem(f"has {', '.join(map(repr, extra))} too", f"exactly the keys {', '.join(sorted(wanted))}")
        if missing := sorted(wanted - keys):
            yield problem(f"lacks {', '.join(missing)}", f"exactly the keys {', '.join(sorted(wanted))}")
        if HEADER in others & keys:
            try:
                _header(file)
            except ScanError as error:
                yield problem(f"{HEADER}: {error.value}", f"one that {error.limit}")
        dataset = file.dataset(key, limits, slice_axes=2)
        if dataset is None:
            return
        if dataset.dtype.newbyteorder("=") != np.float32:
            yield problem(f"{key} is {dataset.dtype}", "float32")
        if dataset.shape != expected.shape:
            yield problem(f"{key} has shape {dataset.shape}", f"{expected.shape}")
        elif dataset.dtype.kind in "fc":
            broken = [index for index in range(expected.shape[0]) if not np.isfinite(file.read(dataset, index)).all()]
            if broken:
                yield problem(f"{key} is not finite in {_slices(broken)}", "finite values")


def _read_facts(source: ScanSource, deidentifier: Deidentifier) -> tuple[VolumeFacts, str]:
    """Return what a test file says, and the name that its reconstruction was given."""
    limits = ReadLimits()
    with opened_in_place(source) as place, Hdf5File(place) as file:
        kspace = file.dataset("kspace", limits, slice_axes=3)
        target = file.dataset("reconstruction_rss", limits, slice_axes=2)
        scan = parse_header(_header(file), source.name)
        identity = identity_of(scan, str(file.attribute("patient_id") or ""))
        volume = VolumeFacts(
            kspace=None if kspace is None else tuple(kspace.shape),
            target=None if target is None else tuple(target.shape),
            recon=scan.recon[:2],
        )
    if volume.kspace is not None and len(volume.kspace) not in (3, 4):
        raise ScanError(
            f"{source.name}: k-space of shape {volume.kspace}", "must be (slices, [coils,] height, width)", "Download it again."
        )
    return volume, deidentifier.volume(PurePosixPath(source.name).stem, identity)


def _header(file: Hdf5File) -> bytes:
    limits = ReadLimits()
    dataset = file.dataset(HEADER, limits)
    if dataset is None:
        raise ScanError(f"{file.name}: no {HEADER}", "the test set's files carry one", "Download the test set again.")
    return file.text(dataset, limits)


def _slices(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:5]))
    return f"slice {shown}" if len(indices) == 1 else f"{len(indices)} slices ({shown}{', …' if len(indices) > 5 else ''})"
