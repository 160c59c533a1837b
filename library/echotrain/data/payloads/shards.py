"""Writing shards: large objects of many slices, so that a store sees few keys and long reads."""

import contextlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from echotrain.data.payloads.slices import EncodedSlice
from echotrain.errors import StorageFullError
from echotrain.storage.store import Store

__all__ = ["ShardWriter"]


class ShardWriter:
    """Packs encoded slices into objects ``<prefix>-00000.bin``, ``<prefix>-00001.bin``, …; a context manager.

    A shard is spooled to local disk. When it is full it is uploaded while the next one fills, so that at most two lie there; the last
    one is uploaded at the end. The rows of ``add`` are good once the block has ended without an error; after one, no object of the
    shard in work appears.

    Args:
        store: Where the shards go.
        prefix: Key of the shards, unique to this writer: two writers never share a shard.
        max_bytes: A shard is closed once it has this many bytes; 128 to 512 MB suit object stores.
    """

    def __init__(self, store: Store, prefix: str, max_bytes: int = 256 << 20) -> None:
        self._store = store
        self._prefix = prefix
        self._max_bytes = max_bytes
        self._scratch = tempfile.TemporaryDirectory(prefix="echotrain-shard-")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="echotrain-shard")
        self._upload: Future[None] | None = None
        self._file: BinaryIO | None = None
        self._size = 0
        self._index = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._flush()
                self._finish_upload()
        finally:
            self._thread.shutdown(wait=True)
            with contextlib.suppress(OSError):
                if self._file is not None:
                    self._file.close()
            self._scratch.cleanup()

    @property
    def key(self) -> str:
        """Key of the shard in work."""
        return f"{self._prefix}-{self._index:05d}.bin"

    def add(self, encoded: EncodedSlice) -> dict[str, Any]:
        """Append a slice and return its catalog columns, the URI being the shard's key.

        Raises:
            StorageFullError: The local disk is full.
            StorageError: The shard before this one could not be uploaded.
        """
        if self._size >= self._max_bytes:
            self._flush()
        columns = encoded.columns_at(self.key, self._size)
        with self._typed():
            if self._file is None:
                self._file = self._path.open("wb")
            for part in encoded.parts:
                self._file.write(part.data)
        self._size += encoded.nbytes
        return columns

    @property
    def _path(self) -> Path:
        return Path(self._scratch.name) / f"{self._index:05d}"

    def _flush(self) -> None:
        """Close the shard in work, if there is one, and begin to upload it once the one before it has arrived."""
        if self._file is None:
            return
        with self._typed():
            self._file.close()
        self._file = None
        self._finish_upload()
        self._upload = self._thread.submit(self._send, self._path, self.key)
        self._index += 1
        self._size = 0

    def _send(self, path: Path, key: str) -> None:
        self._store.upload(path, key, consume=True)
        path.unlink(missing_ok=True)

    def _finish_upload(self) -> None:
        """Wait for the upload under way; an error that it met is raised here."""
        if self._upload is not None:
            self._upload.result()

    @contextlib.contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageFullError(
                self._scratch.name, f"could not be written ({error})", "Free space, or point TMPDIR to a larger disk."
            ) from error
