"""How much memory a scanner file may ask for; checked before any of it is taken."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from echotrain.errors import ScanError
from echotrain.units import human_bytes

__all__ = ["ReadLimits"]


@dataclass(frozen=True, kw_only=True)
class ReadLimits:
    """Bounds on what a file may declare. A file is read slice by slice, so only a slice has to fit in memory.

    Attributes:
        slice_bytes: Largest k-space of one slice (all coils), and largest chunk of a chunked dataset.
        volume_bytes: Largest k-space of one volume.
        header_bytes: Largest ISMRMRD header or protocol text.
    """

    slice_bytes: int = 2 << 30
    volume_bytes: int = 128 << 30
    header_bytes: int = 16 << 20

    def check_array(self, name: str, shape: Sequence[int], itemsize: int, *, slice_axes: int) -> None:
        """Raise ``ScanError`` where an array of this shape breaks a limit.

        Args:
            name: File and array, for the message.
            shape: Declared shape.
            itemsize: Bytes per element.
            slice_axes: How many of the last axes make up one slice.
        """
        total = math.prod(shape) * itemsize
        per_slice = math.prod(shape[len(shape) - slice_axes :]) * itemsize
        for size, limit, what in ((total, self.volume_bytes, "volume"), (per_slice, self.slice_bytes, "slice")):
            if size > limit:
                raise ScanError(
                    f"{name}: declares {what} of {human_bytes(size)} {tuple(shape)}",
                    f"at most {human_bytes(limit)} are read",
                    f"The file is damaged or hostile; if it is neither, raise ReadLimits.{what}_bytes.",
                )
