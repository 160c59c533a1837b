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
from echotrain.storage.open import open_store
from echotrain.storage.ranged import RangeReader
from echotrain.storage.ranged_file import RangedFile
from echotrain.storage.store import Store

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
    _clients.clear()
    files = mock.Mock(File=lambda path, mode: h5py.File(_object(bucket, Path(path).name, keeps_blocks=keeps_blocks), mode))
    with mock.patch.object(mri_data, "h5py", files if bucket else h5py):
        dataset = mri_data.SliceDataset(scans, "multicoil", transform=_as_tensors)
        share = Subset(dataset, range(rank, len(dataset), world_size))
        loader = DataLoader(share, batch_size=1, shuffle=True, num_workers=num_workers, generator=torch.Generator().manual_seed(rank))
        yield from loader


def _as_tensors(kspace: Any, mask: Any, target: Any, attributes: Any, name: str, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(kspace), torch.from_numpy(target)


_clients: dict[int, tuple[Store, RangeReader]] = {}


def _object(bucket: str, name: str, *, keeps_blocks: bool) -> RangedFile:
    """Open a file in the bucket with this process's clients: a forked loader must not share its parent's connections."""
    if os.getpid() not in _clients:
        _clients[os.getpid()] = open_store(f"s3://{bucket}"), RangeReader()
    store, reader = _clients[os.getpid()]
    # Its size costs a round trip, as with any other file object on S3.
    size = store.size(f"scans/{name}")
    return RangedFile(reader, f"s3://{bucket}/scans/{name}", size or 0, keeps_blocks=keeps_blocks)
