"""MATLAB files of version 5 (``save -v7`` and older), read without believing what they declare.

The format: MathWorks, "MAT-File Format". A file is a header of 128 bytes and one element for each variable; an
element is a tag (type, number of bytes) and its data, and may be a deflated element. Nothing is inflated beyond the size
that its shape accounts for. ``scipy.io.loadmat`` takes the memory that a tag declares, so it is not used on strangers' files.
Large arrays are mapped: in the file itself, or where they are deflated in a scratch file.
"""

import math
import mmap
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echotrain.data.formats.hdf5 import reading
from echotrain.errors import ScanError, StorageFullError
from echotrain.units import human_bytes

__all__ = ["MatFile", "MatVariable"]

_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_KINDS = ("", "cell", "struct", "object", "char", "sparse", "double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32")
_COMPLEX = 0x0800
# Flags, shape and name come first; MATLAB's names have at most 63 letters.
_FRONT_BYTES = 4096
_BLOCK_BYTES = 256 << 10
_MAX_VARIABLES = 1000
_SAVE_AGAIN = "Save it again with scipy.io.savemat or save -v7."


@dataclass(frozen=True, kw_only=True)
class MatVariable:
    """What a variable declares.

    Attributes:
        name: Its name.
        kind: MATLAB's class: ``single``, ``double``, ``struct``, …
        shape: As MATLAB sees it.
        is_complex: Whether it has an imaginary part.
        element: Its bytes, from its tag on, deflated or not.
        is_deflated: Which of the two.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    is_complex: bool
    element: memoryview
    is_deflated: bool


class MatFile:
    """The variables of a file, which is mapped and not read.

    Args:
        path: The file.

    Attributes:
        variables: In the file's order.

    Raises:
        ScanError: It is damaged, or of another version.
    """

    def __init__(self, path: Path) -> None:
        self._name, data = path.name, _mapped(path)
        if bytes(data[:10]) == b"MATLAB 7.3":
            raise ScanError(f"{self._name}: a MATLAB file of version 7.3", "must be of version 5", _SAVE_AGAIN)
        mark = bytes(data[_HEADER_BYTES - 2 : _HEADER_BYTES])
        if mark not in (b"IM", b"MI"):
            raise ScanError(f"{self._name}: no MATLAB file", "must be one of version 5", _SAVE_AGAIN)
        self._order = "<" if mark == b"IM" else ">"
        with reading(self._name, "the variables"):
            self.variables = self._parse(data)

    def read(self, variable: MatVariable) -> np.ndarray:
        """Return a numeric variable; it takes no more memory than its shape accounts for.

        Raises:
            ScanError: It is not numeric, or its data are not of its shape.
        """
        count = math.prod(variable.shape)
        with reading(self._name, variable.name):
            data = _inflated(variable.element, _FRONT_BYTES + 8 * count) if variable.is_deflated else variable.element
            position = 8
            for _ in range(3):
                _, _, position = self._element(data, position)
            kind, payload, _ = self._element(data, position)
            if kind not in _NUMBERS or len(payload) != count * np.dtype(_NUMBERS[kind]).itemsize:
                raise ScanError(
                    f"{self._name}: {variable.name} of shape {variable.shape} holds {human_bytes(len(payload))}",
                    "must hold one number for each element",
                    _SAVE_AGAIN,
                )
            return np.frombuffer(payload, self._order + _NUMBERS[kind]).reshape(variable.shape, order="F")

    def mapped(self, variable: MatVariable) -> tuple[np.ndarray, np.ndarray]:
        """Return real and imaginary parts with reversed axes, (nt, nz, nc, ny, nx) of [nx, ny, nc, nz, nt], mapped and not in memory.

        The caller has looked at the size that the variable declares: a deflated one takes as much of the scratch disk.

        Raises:
            ScanError: It is not complex, or its data are not of its shape.
            StorageFullError: The scratch disk is full.
        """
        count = math.prod(variable.shape)
        with reading(self._name, variable.name):
            data = _inflated_on_disk(variable.element, _FRONT_BYTES + 16 * count) if variable.is_deflated else variable.element
            position = 8
            for _ in range(3):
                _, _, position = self._element(data, position)
            parts = []
            for _ in range(2):
                kind, payload, position = self._element(data, position)
                if kind not in _NUMBERS or len(payload) != count * np.dtype(_NUMBERS[kind]).itemsize:
                    raise ScanError(
                        f"{self._name}: {variable.name} of shape {variable.shape} holds {human_bytes(len(payload))} of one part",
                        "must hold a real and an imaginary number for each element",
                        _SAVE_AGAIN,
                    )
                parts.append(np.frombuffer(payload, self._order + _NUMBERS[kind]).reshape(variable.shape[::-1]))
        return parts[0], parts[1]

    def close(self) -> None:
        """Let go of the file; arrays that were mapped keep what they need of it."""
        self.variables = []

    def _parse(self, data: memoryview) -> list[MatVariable]:
        variables: list[MatVariable] = []
        position = _HEADER_BYTES
        while position < len(data):
            kind, size = struct.unpack(f"{self._order}II", data[position : position + 8])
            end = position + 8 + size
            if kind not in (_MATRIX, _COMPRESSED) or end > len(data) or len(variables) == _MAX_VARIABLES:
                raise ScanError(
                    f"{self._name}: an element of type {kind} with {human_bytes(size)} at byte {position}",
                    f"must be one of {_MAX_VARIABLES} variables within the file's {human_bytes(len(data))}",
                    "Copy it again, or save it again.",
                )
            is_deflated = kind == _COMPRESSED
            variables.append(self._describe(data[position + 8 : end] if is_deflated else data[position:end], is_deflated))
            position = end
        return variables

    def _describe(self, element: memoryview, is_deflated: bool) -> MatVariable:
        # What is not inflated would be copied.
        begin = element[:_BLOCK_BYTES]
        front = memoryview(zlib.decompressobj().decompress(begin, _FRONT_BYTES)) if is_deflated else begin[:_FRONT_BYTES]
        (kind,) = struct.unpack(f"{self._order}I", front[:4])
        if kind != _MATRIX:
            raise ScanError(f"{self._name}: an element of type {kind}", "must be an array", _SAVE_AGAIN)
        _, flags, position = self._element(front, 8)
        _, dimensions, position = self._element(front, position)
        _, name, position = self._element(front, position)
        (bits,) = struct.unpack(f"{self._order}I", flags[:4])
        number = bits & 0xFF
        return MatVariable(
            name=bytes(name).decode("ascii"),
            kind=_KINDS[number] if number < len(_KINDS) else f"class {number}",
            shape=tuple(max(size, 0) for (size,) in struct.iter_unpack(f"{self._order}i", dimensions)),
            is_complex=bool(bits & _COMPLEX),
            element=element,
            is_deflated=is_deflated,
        )

    def _element(self, data: memoryview, position: int) -> tuple[int, memoryview, int]:
        """Return type, data and end of the element at ``position``; one of up to four bytes lies within its tag."""
        first, size = struct.unpack(f"{self._order}II", data[position : position + 8])
        if first >> 16:
            kind, size, begin, end = first & 0xFFFF, min(first >> 16, 4), position + 4, position + 8
        else:
            kind, begin = first, position + 8
            end = begin + -(-size // 8) * 8
        payload = data[begin : begin + size]
        if len(payload) != size:
            raise ScanError(
                f"{self._name}: an element declares {human_bytes(size)}", f"but {human_bytes(len(payload))} are there", _SAVE_AGAIN
            )
        return kind, payload, end


def _inflated(data: memoryview, limit: int) -> memoryview:
    """Inflate a variable that may not be larger than ``limit``; what is beyond that is not there."""
    return memoryview(zlib.decompressobj().decompress(data, limit))


def _inflated_on_disk(data: memoryview, limit: int) -> memoryview:
    """Inflate a variable into a scratch file without a name and map that; what is more than a block beyond ``limit`` is not there."""
    inflater, written = zlib.decompressobj(), 0
    try:
        with tempfile.TemporaryFile(prefix="echotrain-scan-") as scratch:
            for start in range(0, len(data), _BLOCK_BYTES):
                rest = bytes(data[start : start + _BLOCK_BYTES])
                while rest and written < limit:
                    written += scratch.write(inflater.decompress(rest, _BLOCK_BYTES))
                    rest = inflater.unconsumed_tail
            scratch.flush()
            return memoryview(mmap.mmap(scratch.fileno(), 0, access=mmap.ACCESS_READ)) if written else memoryview(b"")
    except OSError as error:
        raise StorageFullError(
            tempfile.gettempdir(), f"could not hold an inflated scan ({error})", "Free space, or point TMPDIR to a larger disk."
        ) from error


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if path.stat().st_size else memoryview(b"")
