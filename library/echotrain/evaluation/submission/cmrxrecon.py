"""CMRxRecon 2025: one MATLAB file per undersampled acquisition with ``img4ranking``, the part of the images that is ranked.

The crop is the organisers' ``run4Ranking_2025``, in MATLAB's arithmetic: it rounds halves away from zero, and a crop of
``n`` from ``size`` begins at ``floor(size / 2) - floor(n / 2)``, which differs from fastMRI's centre for an odd ``n`` in an
even ``size``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

import h5py
import numpy as np
from scipy.io import savemat

from echotrain.data.formats.hdf5 import Hdf5File, reading
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.matlab5 import MatFile
from echotrain.data.formats.sources import ScanSource, opened_in_place
from echotrain.errors import ConfigError, ScanError
from echotrain.evaluation.submission.challenge import ExpectedFile, Problem
from echotrain.evaluation.submission.reconstructions import RECONSTRUCTION_ENDINGS, Images, find_files
from echotrain.log import track

__all__ = ["CmrxreconChallenge", "ranking_crop", "ranking_window"]

_KEY = "img4ranking"
# Parts of a file's name, in the organisers' spelling: ``contains`` of MATLAB minds the case.
_SINGLE_FRAME = ("blackblood", "T1w", "T2w")
_ALL_FRAMES = ("T1map", "T2map", "T2smap", "T1rho")
_NUM_FRAMES, _NUM_SLICES = 3, 2
_FOLDER = re.compile(r"UnderSample_(Task\w+)")
_LAYOUT = "{Modality}/{Set}/UnderSample_{Task}/{Center}/{Vendor}/{Patient}/{name}_kus_….mat"
_MAX_VARIABLES = 64

Window = tuple[slice, slice, slice, slice]


@dataclass(frozen=True, kw_only=True)
class CmrxreconChallenge:
    """A file for each ``…_kus_….mat`` of the validation or test set, below ``{Task}/MultiCoil/…`` as the scorer looks for them.

    ``img4ranking`` is single precision and real, (readout, phase, slices, frames) to MATLAB, less the axes of one element
    at the end, which MATLAB drops and the scorer compares. A reconstruction is an HDF5 file with ``reconstruction``, or a
    ``.npy``, at the test file's place: (frames, slices, height, width), or (slices, height, width) of one frame, where height is
    readout (MATLAB's first axis, sx) and width the phase encodes (sy). Coils are combined already, so the root of the sum of
    squares is the magnitude.

    Assumed: a single slice of a single frame, for which the organisers' function returns nothing, is a 2D image.
    """

    title: ClassVar[str] = "CMRxRecon 2025"
    max_bytes: ClassVar[int | None] = None
    is_zip: ClassVar[bool] = False

    def expect(self, like: str) -> list[ExpectedFile]:
        """Read names and sizes from the test set; of each file, only the shape of its k-space."""
        files = {key: source for key, source in find_files(like, (".mat",), "undersampled .mat files").items() if _place(source)}
        if not files:
            raise ConfigError(like, "holds no undersampled k-space", f"Files of the challenge lie at {_LAYOUT}.")
        expected: dict[str, ExpectedFile] = {}
        for key, source in track(files.items(), "Reading the test set"):
            path, images_shape = _place(source), _images_shape(source)
            if path in expected:
                raise ConfigError(path, f"is there twice in {like}", "Give one copy of the test set.")
            stems = [str(PurePosixPath(place).with_suffix("")) for place in (key, path)]
            expected[path] = ExpectedFile(
                path=path,
                shape=_matlab_shape(ranking_window(images_shape, source.name)),
                images_shape=images_shape,
                source=source,
                names=tuple(f"{stem}{ending}" for stem in stems for ending in RECONSTRUCTION_ENDINGS),
            )
        return list(expected.values())

    def misfit(self, expected: ExpectedFile, images: Images) -> str:
        """Say which reconstruction is wanted instead, or ""."""
        frames, *rest = expected.images_shape
        if images.shape == expected.images_shape or (frames == 1 and images.shape == tuple(rest)):
            return ""
        return f"(frames, slices, readout, phase) {expected.images_shape}"

    def write(self, expected: ExpectedFile, images: Images, path: Path) -> None:
        """Write the ranked part of a reconstruction; only that is read."""
        window = ranking_window(expected.images_shape, expected.source.name)
        part = images.read(window[4 - len(images.shape) :])
        with path.open("wb") as file:
            savemat(file, {_KEY: _as_matlab(part)}, format="5", do_compression=True)

    def check(self, expected: ExpectedFile, path: Path) -> Iterator[Problem]:
        """Yield everything that is wrong with one file."""

        def problem(what: str, wanted: str) -> Problem:
            return Problem(file=expected.path, what=what, expected=wanted)

        file = MatFile(path)
        if extra := sorted({variable.name for variable in file.variables} - {_KEY})[:_MAX_VARIABLES]:
            yield problem(f"has {', '.join(map(repr, extra))} too", f"exactly the key {_KEY}")
        found = [variable for variable in file.variables if variable.name == _KEY]
        if len(found) != 1:
            yield problem(f"has {_KEY} {len(found)} times", f"exactly the key {_KEY}")
            return
        (images,) = found
        if images.kind != "single" or images.is_complex:
            yield problem(f"{_KEY} is {'complex ' if images.is_complex else ''}{images.kind}", "real single")
        if images.shape != expected.shape:
            yield problem(f"{_KEY} has shape {images.shape}", f"{expected.shape}")
        elif images.kind in ("single", "double") and not np.isfinite(file.read(images)).all():
            yield problem(f"{_KEY} is not finite", "finite values")


def ranking_window(shape: tuple[int, ...], name: str) -> Window:
    """Return the frames, slices, rows and columns that are ranked.

    Two slices at the centre (all, where there are fewer than three); the first three frames (all of a mapping series, one of
    a black-blood, T1w or T2w series); a third of the readout and half of the phase encodes, at the centre.

    Args:
        shape: (frames, slices, readout, phase).
        name: Name of the test file, which says what it is.

    Raises:
        ScanError: An axis is too short to be cropped.
    """
    frames, slices, readout, phase = shape
    rows, columns = _round(readout, 3), _round(phase, 2)
    if min(frames, slices, rows, columns) < 1:
        raise ScanError(f"{name}: images of shape {shape}", "are too small for the ranking crop", "Download the test set again.")
    if any(word in name for word in _SINGLE_FRAME):
        frames = 1
    elif not any(word in name for word in _ALL_FRAMES):
        frames = min(frames, _NUM_FRAMES)
    last = slices if slices <= _NUM_SLICES else _round(slices, 2)
    return slice(0, frames), slice(max(last - _NUM_SLICES, 0), last), _center(readout, rows), _center(phase, columns)


def ranking_crop(images: np.ndarray, name: str) -> np.ndarray:
    """Return what is ranked of magnitudes or coil-combined images, as ``img4ranking`` is stored.

    Args:
        images: (frames, slices, readout, phase), or (slices, readout, phase) of one frame.
        name: Name of the test file.

    Returns:
        float32 (readout, phase[, slices[, frames]]).

    Raises:
        ScanError: An axis is too short to be cropped.
    """
    shape = (1,) * (4 - images.ndim) + images.shape
    return _as_matlab(np.abs(images.reshape(shape)[ranking_window(shape, name)]).astype(np.float32))


def _as_matlab(part: np.ndarray) -> np.ndarray:
    """Reverse frames and slices behind the two axes of the image, and drop what MATLAB drops."""
    frames_last = part.reshape((1,) * (4 - part.ndim) + part.shape).transpose(2, 3, 1, 0)
    return frames_last.reshape(_without_trailing_ones(frames_last.shape))


def _matlab_shape(window: Window) -> tuple[int, ...]:
    frames, slices, rows, columns = (part.stop - part.start for part in window)
    return _without_trailing_ones((rows, columns, slices, frames))


def _without_trailing_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _round(numerator: int, denominator: int) -> int:
    """Round a positive fraction as MATLAB does, halves up."""
    return (2 * numerator + denominator) // (2 * denominator)


def _center(size: int, crop: int) -> slice:
    begin = size // 2 - crop // 2
    return slice(begin, begin + crop)


def _place(source: ScanSource) -> str:
    """Return where the scorer looks for the file that answers a test file; "" for a mask, or whatever else lies there."""
    parts = PurePosixPath(source.uri).parts
    task = _FOLDER.fullmatch(parts[-5]) if len(parts) >= 7 else None
    if task is None or "_kus_" not in source.name:
        return ""
    return "/".join((task[1], "MultiCoil", *parts[-7:]))


def _images_shape(source: ScanSource) -> tuple[int, ...]:
    """Return (frames, slices, readout, phase) of a test file: MATLAB v7.3, which HDF5 reads with its axes reversed."""
    with opened_in_place(source) as place, Hdf5File(place) as file:
        with reading(file.name):
            names = [name for name in list(file.root)[:_MAX_VARIABLES] if isinstance(file.root.get(name, getlink=True), h5py.HardLink)]
            names = [name for name in names if isinstance(file.root[name], h5py.Dataset) and file.root[name].ndim in (3, 4, 5)]
        dataset = file.dataset(names[0], ReadLimits(), slice_axes=3) if len(names) == 1 else None
        if dataset is None:
            raise ScanError(
                f"{file.name}: {len(names)} arrays of 3 to 5 axes", "an undersampled file holds one, its k-space", "Download it again."
            )
        frames, slices, _, phase, readout = (1,) * (5 - len(dataset.shape)) + tuple(dataset.shape)
    return (frames, slices, readout, phase)
