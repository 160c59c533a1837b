"""The baseline of the stream benchmark: fastMRI's SliceDataset in a torch DataLoader, from a folder or from S3."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import torch
from torch.utils.data import DataLoader, Subset

from echotrain.errors import ResourceError
from echotrain.storage.s3 import s3_client

__all__ = ["RangedFile", "fastmri_loader"]

_BLOCK = 64 << 10


class RangedFile(io.RawIOBase):
    """A seekable object in S3, every read a ranged GET, as h5py wants it.

    Args:
        bucket: Of the object.
        key: Of the object.
        keeps_blocks: Serve small reads, which are metadata, from blocks of 64 KB that are kept: kinder to HDF5 than a plain file
            object, since every small read costs a round trip.
    """

    def __init__(self, bucket: str, key: str, *, keeps_blocks: bool) -> None:
        self._at = {"Bucket": bucket, "Key": key}
        self._keeps_blocks = keeps_blocks
        self._blocks: dict[int, bytes] = {}
        self._position = 0
        self._size = int(_client().head_object(**self._at)["ContentLength"])

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
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the position on."""
        view = memoryview(buffer).cast("B")
        count = min(len(view), self._size - self._position)
        if count <= 0:
            return 0
        view[:count] = self._small(count) if self._keeps_blocks and count < _BLOCK else self._get(self._position, count)
        self._position += count
        return count

    def _get(self, first: int, count: int) -> bytes:
        last = min(first + count, self._size) - 1
        return bytes(_client().get_object(**self._at, Range=f"bytes={first}-{last}")["Body"].read())

    def _small(self, count: int) -> bytes:
        first, last = self._position // _BLOCK, (self._position + count - 1) // _BLOCK
        for block in range(first, last + 1):
            if block not in self._blocks:
                self._blocks[block] = self._get(block * _BLOCK, _BLOCK)
        start = self._position - first * _BLOCK
        return b"".join(self._blocks[block] for block in range(first, last + 1))[start : start + count]


def fastmri_loader(
    scans: Path, *, rank: int, world_size: int, num_workers: int, bucket: str = "", keeps_blocks: bool = False
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield k-space and target of this rank's share of the slices, shuffled, batch by batch of one.

    Args:
        scans: Folder of fastMRI HDF5 files; with ``bucket``, only their names are taken from it.
        rank: Of this process.
        world_size: Number of ranks.
        num_workers: Loader processes of this rank.
        bucket: Read ``scans/<name>`` of this bucket instead of the files.
        keeps_blocks: See ``RangedFile``.

    Raises:
        ResourceError: The public fastMRI package is not installed.
    """
    try:
        from fastmri.data import mri_data
    except ImportError as error:
        raise ResourceError("the package fastmri", "is not installed", "Install it: pip install --no-deps fastmri") from error
    files = mock.Mock(File=lambda path, mode: h5py.File(RangedFile(bucket, f"scans/{Path(path).name}", keeps_blocks=keeps_blocks), mode))
    with mock.patch.object(mri_data, "h5py", files if bucket else h5py):
        dataset = mri_data.SliceDataset(scans, "multicoil", transform=_as_tensors)
        share = Subset(dataset, range(rank, len(dataset), world_size))
        loader = DataLoader(share, batch_size=1, shuffle=True, num_workers=num_workers, generator=torch.Generator().manual_seed(rank))
        yield from loader


def _as_tensors(kspace: Any, mask: Any, target: Any, attributes: Any, name: str, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(kspace), torch.from_numpy(target)


_clients: dict[tuple[int, str], Any] = {}


def _client() -> Any:
    """Return this process's client: a forked loader must not share its parent's connections."""
    key = (os.getpid(), os.environ.get("AWS_ENDPOINT_URL", ""))
    if key not in _clients:
        _clients[key] = s3_client()
    return _clients[key]
