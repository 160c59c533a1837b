"""A file of a stranger's that gives no more than so many bytes at a time."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Self

__all__ = ["BoundedFile"]


class BoundedFile:
    """A file on this machine, for readers such as ``zipfile`` that read what the file says of itself in one piece.

    A zip's table of contents is read whole, whatever size the archive gives it.

    Args:
        path: The file.
        limit: Bytes at a time, at most.
        refusal: Makes the error to raise of the bytes that were asked for.
    """

    def __init__(self, path: Path, limit: int, refusal: Callable[[int], Exception]) -> None:
        self._file = path.open("rb")
        self._size, self._limit, self._refusal = path.stat().st_size, limit, refusal

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes; more than the limit at a time is refused."""
        wanted = self._size - self._file.tell() if size is None or size < 0 else size
        if wanted > self._limit:
            raise self._refusal(wanted)
        return self._file.read(wanted)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
