"""An object in a store as a seekable file, for libraries that read little of a large one."""

import io
import os
from pathlib import PurePosixPath
from typing import Any, Protocol

__all__ = ["RangedFile", "ReadsRanges"]

_BLOCK = 64 << 10
_MAX_BLOCKS = 256


class ReadsRanges(Protocol):
    """What a file needs of a ``RangeReader``."""

    def read_into(self, uri: str, offset: int, *buffers: memoryview) -> Any:
        """Fill the buffers, in order, with the object's bytes from ``offset`` on."""


class RangedFile(io.RawIOBase):
    """An object in S3, every read of it a ranged GET.

    Args:
        reader: Fetches; one serves many files.
        uri: Of the object.
        size: Of the object, in bytes.
        keeps_blocks: Serve small reads, which are a format's metadata, from blocks of 64 KB that are kept: without that, each costs
            a round trip.

    Attributes:
        name: Last part of the URI.
        size: Bytes.
    """

    def __init__(self, reader: ReadsRanges, uri: str, size: int, *, keeps_blocks: bool = True) -> None:
        super().__init__()
        self.name = PurePosixPath(uri).name
        self.size = size
        self._reader, self._uri, self._keeps_blocks = reader, uri, keeps_blocks
        self._blocks: dict[int, bytes] = {}
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the position on; return how many bytes there were.

        Raises:
            StorageError: The store failed.
        """
        view = memoryview(buffer).cast("B")
        count = max(min(len(view), self.size - self._position), 0)
        if count and self._keeps_blocks and count < _BLOCK:
            view[:count] = self._small(count)
        elif count:
            self._reader.read_into(self._uri, self._position, view[:count])
        self._position += count
        return count

    def _small(self, count: int) -> bytes:
        first, last = self._position // _BLOCK, (self._position + count - 1) // _BLOCK
        for number in range(first, last + 1):
            if number not in self._blocks:
                block = bytearray(min(_BLOCK, self.size - number * _BLOCK))
                self._reader.read_into(self._uri, number * _BLOCK, memoryview(block))
                self._blocks[number] = bytes(block)
        joined = b"".join(self._blocks[number] for number in range(first, last + 1))
        while len(self._blocks) > _MAX_BLOCKS:
            del self._blocks[next(iter(self._blocks))]
        return joined[self._position - first * _BLOCK :][:count]
