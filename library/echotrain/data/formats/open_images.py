"""Choose the reader of images by what a file begins with, never by its name."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from echotrain.data.formats.deidentify import Deidentifier
from echotrain.data.formats.dicom import is_dicom
from echotrain.data.formats.dicom_series import open_dicom
from echotrain.data.formats.image_volume import OpenedImages
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.nifti import is_nifti, open_nifti
from echotrain.errors import ScanError

__all__ = ["holds_images", "open_images"]

_BEGIN = 4096


class _Reader(NamedTuple):
    begins: Callable[[bytes], bool]
    opens: Callable[..., AbstractContextManager[OpenedImages]]


@contextlib.contextmanager
def _dicom(path: Path, *, deidentifier: Deidentifier, limits: ReadLimits, place: str) -> Iterator[OpenedImages]:
    yield open_dicom(path, deidentifier=deidentifier, limits=limits, place=place)


# A folder is one of DICOM files: the first reader's.
_READERS = (_Reader(is_dicom, _dicom), _Reader(is_nifti, open_nifti))


def holds_images(path: Path) -> bool:
    """Say whether a source is images without k-space: a folder, which one of DICOM files is, or a file that begins as such."""
    return path.is_dir() or _reader(path) is not None


@contextlib.contextmanager
def open_images(
    path: Path, *, deidentifier: Deidentifier | None = None, limits: ReadLimits | None = None, place: str = ""
) -> Iterator[OpenedImages]:
    """Yield all volumes of a source, and what of it is none.

    Args:
        path: A DICOM or NIfTI file, or a folder of DICOM files.
        deidentifier: Makes pseudonyms; the default one uses the public salt.
        limits: Memory limits.
        place: URI of the source, which says whose it is where no header does.

    Raises:
        ScanError: The file is of no known format, truncated, hostile, or no volume.
    """
    reader = _READERS[0] if path.is_dir() else _reader(path)
    if reader is None:
        raise ScanError(path.name, "is no format of images that can be read", "Give DICOM files or NIfTI volumes.")
    with reader.opens(path, deidentifier=deidentifier or Deidentifier(), limits=limits or ReadLimits(), place=place) as opened:
        yield opened


def _reader(path: Path) -> _Reader | None:
    with path.open("rb") as file:
        begin = file.read(_BEGIN)
    return next((reader for reader in _READERS if reader.begins(begin)), None)
