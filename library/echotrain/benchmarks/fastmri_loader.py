"""The baseline of the stream benchmark: fastMRI's SliceDataset in a torch DataLoader, from a folder or from S3."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import torch
from torch.utils.data import DataLoader, Subset

from echotrain.errors import ResourceError
from echotrain.storage.aws import s3_client
from echotrain.storage.ranged_file import RangedFile

__all__ = ["fastmri_loader"]


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
    _readers.clear()
    files = mock.Mock(File=lambda path, mode: h5py.File(_object(bucket, Path(path).name, keeps_blocks=keeps_blocks), mode))
    with mock.patch.object(mri_data, "h5py", files if bucket else h5py):
        dataset = mri_data.SliceDataset(scans, "multicoil", transform=_as_tensors)
        share = Subset(dataset, range(rank, len(dataset), world_size))
        loader = DataLoader(share, batch_size=1, shuffle=True, num_workers=num_workers, generator=torch.Generator().manual_seed(rank))
        yield from loader


def _as_tensors(kspace: Any, mask: Any, target: Any, attributes: Any, name: str, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(kspace), torch.from_numpy(target)


class _BotoReader:
    """Reads ranges as everybody does: by boto3, and not by the reader that is measured."""

    def __init__(self, bucket: str) -> None:
        self._bucket, self._client = bucket, s3_client()

    def size(self, key: str) -> int:
        return int(self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"])

    def read_into(self, uri: str, offset: int, *buffers: memoryview) -> None:
        key = uri.removeprefix(f"s3://{self._bucket}/")
        for buffer in buffers:
            byte_range = f"bytes={offset}-{offset + len(buffer) - 1}"
            buffer[:] = self._client.get_object(Bucket=self._bucket, Key=key, Range=byte_range)["Body"].read()
            offset += len(buffer)


_readers: dict[int, _BotoReader] = {}


def _object(bucket: str, name: str, *, keeps_blocks: bool) -> RangedFile:
    """Open a file in the bucket with this process's client: a forked loader must not share its parent's connections."""
    if os.getpid() not in _readers:
        _readers[os.getpid()] = _BotoReader(bucket)
    reader, key = _readers[os.getpid()], f"scans/{name}"
    return RangedFile(reader, f"s3://{bucket}/{key}", reader.size(key), keeps_blocks=keeps_blocks)
