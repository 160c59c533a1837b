"""BART's array files: ``name.hdr`` holds the sizes as text, ``name.cfl`` the numbers.

The numbers are little-endian complex64, the first dimension running fastest. The format is that of BART's
``src/misc/io.c`` and ``mmio.c``.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echotrain.errors import ConfigError, ScanError

__all__ = ["MAX_DIMENSIONS", "ComplexArray", "read_cfl", "write_cfl"]

ComplexArray = NDArray[np.complex64]

MAX_DIMENSIONS = 16
_HEADER_BYTES = 4096  # BART reads no more of one.
_DTYPE = np.dtype("<c8")


def write_cfl(name: Path, array: NDArray[Any]) -> None:
    """Write an array, at least one element in 1 to 16 dimensions, as ``name.hdr`` and ``name.cfl``.

    Raises:
        ConfigError: BART has no such array, or it is not complex64.
        OSError: The files cannot be written.
    """
    if array.dtype != np.complex64 or not 1 <= array.ndim <= MAX_DIMENSIONS or array.size == 0:
        raise ConfigError(
            f"{array.dtype} array of shape {array.shape}",
            f"BART's arrays are complex64, not empty, of 1 to {MAX_DIMENSIONS} dimensions",
            "Convert or reshape it.",
        )
    _header(name).write_text(f"# Dimensions\n{' '.join(str(size) for size in array.shape)}\n", encoding="ascii")
    with _body(name).open("wb") as file:
        file.write(np.ascontiguousarray(array.T, dtype=_DTYPE).data)


def read_cfl(name: Path) -> ComplexArray:
    """Read ``name.hdr`` and ``name.cfl``; trailing dimensions of size 1 are left out, as BART cannot tell them apart.

    The sizes are held against the length of the file before memory is taken.

    Raises:
        ScanError: A file is missing or malformed, or the two contradict each other.
    """
    try:
        shape, found = _dimensions(_header(name)), _body(name).stat().st_size
    except OSError as error:
        raise ScanError(str(name), f"cannot be read ({error.strerror})", "Name both files, without .hdr and .cfl.") from error
    expected = math.prod(shape) * _DTYPE.itemsize
    if found != expected:
        raise ScanError(
            f"{_body(name)}: {found} bytes", f"its header declares {expected}, for {shape}", "The file is damaged; make it again."
        )
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return np.fromfile(_body(name), dtype=_DTYPE).astype(np.complex64, copy=False).reshape(shape, order="F")


def _dimensions(header: Path) -> tuple[int, ...]:
    with header.open("rb") as file:
        lines = file.read(_HEADER_BYTES).decode("ascii", errors="replace").splitlines()
    try:
        shape = tuple(int(word) for word in lines[lines.index("# Dimensions") + 1].split())
    except (ValueError, IndexError):
        shape = ()
    if not 1 <= len(shape) <= MAX_DIMENSIONS or min(shape) < 1:
        raise ScanError(
            f"{header}: sizes {shape}",
            f"a line '# Dimensions' and then 1 to {MAX_DIMENSIONS} positive sizes are needed",
            "The file is damaged; make it again.",
        )
    return shape


def _header(name: Path) -> Path:
    return name.with_name(f"{name.name}.hdr")


def _body(name: Path) -> Path:
    return name.with_name(f"{name.name}.cfl")
