"""MATLAB's two kinds of files behind one face: v7.3, which is HDF5, and version 5; of either, k-space is read image by image.

Arrays have their axes as HDF5 has them: MATLAB's, reversed.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from echotrain.data.formats.hdf5 import Hdf5File, reading
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.matlab5 import MatFile
from echotrain.errors import ScanError
from echotrain.units import human_bytes

__all__ = ["SAVE_AGAIN", "ComplexArray", "MatlabFile", "is_matlab_5", "is_matlab_73", "is_struct", "open_matlab", "variables_of"]

SAVE_AGAIN = "Save k-space as complex single or double, [nx, ny, nc, nz, nt], with save -v7.3."
_MATLAB_73, _MATLAB_5 = b"MATLAB 7.3", b"MATLAB 5.0 MAT-file"
_MAX_VARIABLES = 64
_STRUCT = {"real", "imag"}
# A chunk may hold a piece of every frame: without a cache of a slice with all its frames each would be inflated once for every frame, 10 to
# 30 times in all where that was measured.
_CACHE_BYTES = 256 << 20
_COMPLEX64 = np.dtype(np.complex64).itemsize


class ComplexArray(Protocol):
    """An array of complex numbers in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its axes."""

    @property
    def is_double(self) -> bool:
        """Whether it is stored in double precision."""

    def read(self, where: tuple[int, ...]) -> NDArray[np.complex64]:
        """Return what lies behind the first axes' indices; what is too large for single precision becomes infinite."""


class MatlabFile(Protocol):
    """A file, opened."""

    @property
    def names(self) -> Sequence[str]:
        """Names of its variables; only the first ones where there are many."""

    def complex_array(self, key: str, limits: ReadLimits, *, slice_axes: int) -> ComplexArray | None:
        """Return an array of complex numbers, its size held against the limits and the file; None where there is no such variable.

        Raises:
            ScanError: It breaks a limit, lies elsewhere, is larger than its file, or holds other numbers.
        """

    def numbers(self, key: str, limits: ReadLimits) -> NDArray[np.generic] | None:
        """Return a small array, held to ``limits.header_bytes``; None where there is no such variable."""

    def close(self) -> None:
        """Close the file."""


def open_matlab(path: Path) -> MatlabFile:
    """Open a file of either kind; HDF5 without MATLAB's block in front is taken as the newer.

    Raises:
        ScanError: It is damaged.
    """
    with path.open("rb") as file:
        begin = file.read(len(_MATLAB_5))
    return _File5(path) if is_matlab_5(begin) else _File73(path)


def is_matlab_73(begin: bytes) -> bool:
    """Say whether a file begins as MATLAB v7.3 files do, in front of their HDF5."""
    return begin.startswith(_MATLAB_73)


def is_matlab_5(begin: bytes) -> bool:
    """Say whether a file begins as MATLAB's before v7.3 do."""
    return begin.startswith(_MATLAB_5)


def variables_of(file: Hdf5File) -> list[str]:
    """Return the names of what lies in the file itself, only the first ones where there are many."""
    with reading(file.name):
        names = [str(name) for name in list(file.root)[:_MAX_VARIABLES]]
        return [name for name in names if isinstance(file.root.get(name, getlink=True), h5py.HardLink)]


def is_struct(dtype: np.dtype[np.generic]) -> bool:
    """Say whether numbers are complex as MATLAB v7.3 has them."""
    return set(dtype.names or ()) == _STRUCT


class _File73:
    def __init__(self, path: Path) -> None:
        self._file = Hdf5File(path, cache_bytes=_CACHE_BYTES)
        self.names: Sequence[str] = variables_of(self._file)

    def complex_array(self, key: str, limits: ReadLimits, *, slice_axes: int) -> ComplexArray | None:
        dataset = self._file.dataset(key, limits, slice_axes=slice_axes) if key in self.names else None
        if dataset is None:
            return None
        dtype = dataset.dtype
        parts = [dtype[part] for part in ("real", "imag")] if is_struct(dtype) else []
        is_pair = bool(parts) and all(part.kind == "f" and part.itemsize in (4, 8) and not part.shape for part in parts)
        if not is_pair and not (dtype.kind == "c" and dtype.itemsize in (8, 16)):
            raise _other_numbers(self._file.name, key, str(dtype)[:60])
        return _Array73(self._file, dataset)

    def numbers(self, key: str, limits: ReadLimits) -> NDArray[np.generic] | None:
        dataset = self._file.dataset(key, limits) if key in self.names else None
        if dataset is not None and dataset.dtype.kind not in "biuf":
            raise ScanError(f"{self._file.name}: {key} of type {str(dataset.dtype)[:60]}", "must be numbers", SAVE_AGAIN)
        return None if dataset is None else self._file.read(dataset, ...)

    def close(self) -> None:
        self._file.close()


class _Array73:
    def __init__(self, file: Hdf5File, dataset: h5py.Dataset) -> None:
        self._file, self._dataset = file, dataset
        self.shape = tuple(int(size) for size in dataset.shape)
        self.is_double = dataset.dtype.itemsize > _COMPLEX64

    def read(self, where: tuple[int, ...]) -> NDArray[np.complex64]:
        values = self._file.read(self._dataset, where)
        return _paired(values["real"], values["imag"]) if values.dtype.names else _paired(values.real, values.imag)


class _File5:
    def __init__(self, path: Path) -> None:
        self._name, self._file = path.name, MatFile(path)
        self._variables = {variable.name: variable for variable in self._file.variables[:_MAX_VARIABLES]}
        self.names: Sequence[str] = list(self._variables)

    def complex_array(self, key: str, limits: ReadLimits, *, slice_axes: int) -> ComplexArray | None:
        variable = self._variables.get(key)
        if variable is None:
            return None
        if not variable.is_complex or variable.kind not in ("single", "double"):
            raise _other_numbers(self._name, key, f"{variable.kind}, {'complex' if variable.is_complex else 'real'}")
        shape = variable.shape[::-1]
        itemsize = _COMPLEX64 * (2 if variable.kind == "double" else 1)
        limits.check_array(f"{self._name}: {key}", shape, itemsize, slice_axes=min(slice_axes, len(shape)))
        real, imag = self._file.mapped(variable)
        return _Array5(real, imag, is_double=variable.kind == "double")

    def numbers(self, key: str, limits: ReadLimits) -> NDArray[np.generic] | None:
        variable = self._variables.get(key)
        if variable is None:
            return None
        nbytes = 8 * math.prod(variable.shape)
        if nbytes > limits.header_bytes:
            raise ScanError(
                f"{self._name}: {key} of {human_bytes(nbytes)}", f"at most {human_bytes(limits.header_bytes)} are read", SAVE_AGAIN
            )
        return self._file.read(variable).T

    def close(self) -> None:
        self._file.close()


class _Array5:
    def __init__(self, real: NDArray[np.generic], imag: NDArray[np.generic], *, is_double: bool) -> None:
        self._real, self._imag = real, imag
        self.shape, self.is_double = real.shape, is_double

    def read(self, where: tuple[int, ...]) -> NDArray[np.complex64]:
        return _paired(self._real[where], self._imag[where])


def _paired(real: NDArray[np.generic], imag: NDArray[np.generic]) -> NDArray[np.complex64]:
    result = np.empty(real.shape, np.complex64)
    with np.errstate(over="ignore"):
        result.real, result.imag = real, imag
    return result


def _other_numbers(name: str, key: str, kind: str) -> ScanError:
    return ScanError(f"{name}: {key} of type {kind}", "must be complex, a struct of real and imag", SAVE_AGAIN)
