"""Reconstructions as ``ray_jobs.reconstruct`` leaves them: found below a folder or an S3 prefix, and read piece by piece."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from echotrain.data.formats.hdf5 import Hdf5File, reading
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.sources import ScanSource, local_copy, opened_in_place
from echotrain.errors import ConfigError, ScanError
from echotrain.storage.open import local_path, open_store

__all__ = ["RECONSTRUCTION_ENDINGS", "Images", "find_files", "opened_images"]

RECONSTRUCTION_ENDINGS = (".h5", ".npy")
_KEY = "reconstruction"


class Images:
    """The images of one reconstruction, of which only what is asked for is read.

    Args:
        name: File name, for messages.
        array: An HDF5 dataset or an array mapped from its file.

    Attributes:
        shape: (slices, height, width) or (frames, slices, height, width).

    Raises:
        ScanError: They are not numbers.
    """

    def __init__(self, name: str, array: Any) -> None:
        if array.dtype.kind not in "fc":
            raise ScanError(f"{name}: images of type {array.dtype}", "must be floating-point or complex", "Reconstruct it again.")
        self.shape: tuple[int, ...] = tuple(array.shape)
        self._name, self._array = name, array

    def read(self, index: tuple[slice, ...] | int) -> np.ndarray:
        """Read a part as float32 magnitudes; a damaged file becomes a ``ScanError``."""
        with reading(self._name, "the images"):
            part = np.asarray(self._array[index])
        # What does not fit in single precision becomes infinite here, and is found by the check.
        with np.errstate(over="ignore", invalid="ignore"):
            return (np.abs(part) if part.dtype.kind == "c" else part).astype(np.float32)


def find_files(uri: str, endings: tuple[str, ...], what: str) -> dict[str, ScanSource]:
    """Find files by their endings, keyed by their place below a folder or S3 prefix.

    Args:
        uri: The folder or prefix.
        endings: Of the names, in lower case; hidden files are passed over.
        what: What they are, for the message.

    Raises:
        ConfigError: There is no such folder, or none of them in it.
        StorageError: The store cannot be listed.
    """
    store, path = open_store(uri), local_path(uri)
    if path is not None and not path.is_dir():
        raise ConfigError(uri, "is not a folder", f"Give the folder or s3:// prefix of the {what}.")
    found = {
        info.key: ScanSource(uri=f"{store.uri.rstrip('/')}/{info.key}", size=info.size, version=info.version)
        for info in store.list()
        if info.key.lower().endswith(endings) and not info.key.rpartition("/")[2].startswith(".")
    }
    if not found:
        raise ConfigError(uri, f"holds no {what}", f"They end in {' or '.join(endings)}.")
    return found


@contextlib.contextmanager
def opened_images(source: ScanSource) -> Iterator[Images]:
    """Open a reconstruction: the dataset ``reconstruction`` of an HDF5 file, or an array saved by ``numpy.save``.

    Raises:
        ScanError: It is damaged, or holds no images.
        StorageError: The store failed.
    """
    if source.name.lower().endswith(".npy"):
        with local_copy(source) as path:
            with reading(source.name, "the array"):
                array = np.lib.format.open_memmap(path, mode="r")
            yield Images(source.name, array)
        return
    with opened_in_place(source) as place, Hdf5File(place) as file:
        dataset = file.dataset(_KEY, ReadLimits(), slice_axes=2)
        if dataset is None:
            raise ScanError(f"{source.name}: no dataset {_KEY!r}", "a reconstruction holds one", "Give what ray_jobs.reconstruct wrote.")
        yield Images(source.name, dataset)
