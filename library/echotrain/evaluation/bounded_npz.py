"""Archives of NumPy arrays from strangers: what they inflate to is known, and bounded, before memory is taken."""

import io
import math
import zipfile
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

__all__ = ["read_npz"]

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_SUFFIX = ".npy"


def read_npz(data: bytes, limit: int) -> dict[str, NDArray[Any]]:
    """Return the arrays of an archive that ``np.savez`` or ``np.savez_compressed`` made; none of pickled objects.

    Args:
        data: The archive.
        limit: Bytes that the arrays may take together.

    Raises:
        ValueError: They would take more, an array is not as long as its header says, or it holds something else.
        zipfile.BadZipFile: It is no archive, or damaged.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        # A member is never unpacked beyond the size that its entry declares.
        total = sum(member.file_size for member in members)
        if total > limit:
            raise ValueError(f"its arrays would take {total} bytes, and at most {limit} are read")
        for member in members:
            with archive.open(member) as file:
                version = npy.read_magic(file)
                if version not in _HEADERS:
                    raise ValueError(f"{member.filename} is of version {version}")
                shape, _, dtype = _HEADERS[version](file)
                # Pickled objects have no size of their own, and are refused below.
                if not dtype.hasobject and math.prod(shape) * dtype.itemsize > member.file_size:
                    raise ValueError(f"{member.filename} is no array of {member.file_size} bytes")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {member.filename.removesuffix(_SUFFIX): arrays[member.filename.removesuffix(_SUFFIX)] for member in members}
