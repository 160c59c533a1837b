"""The baseline of the stream benchmark: fastMRI's SliceDataset in a torch DataLoader, from a folder or S3, as a good user has it.

Loader processes live as long as the loader. SliceDataset opens its file anew for every slice, so from S3 each process keeps one file
object per file, with the blocks of metadata that it has read: an opening then costs no request.
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

import h5py
import torch
from torch.utils.data import DataLoader, Sampler, Subset

from echotrain.errors import ResourceError
from echotrain.storage.aws import s3_client
from echotrain.storage.ranged_file import RangedFile

__all__ = ["FastmriLoader"]

_PIECE = 1 << 20


class FastmriLoader:
    """K-space and target of one rank's share of the slices, batches of one, shuffled anew for every epoch; a context manager.

    Args:
        scans: Folder of fastMRI HDF5 files; with ``bucket``, only their names are taken from it.
        rank: Of this process.
        world_size: Number of ranks.
        num_workers: Loader processes of this rank.
        prefetch: Batches that each of them reads ahead.
        passes: How often an epoch has every slice.
        bucket: Read ``scans/<name>`` of this bucket instead of the files.
        transform: What the public dataset makes of a slice; None takes k-space and target as they are.

    Raises:
        ResourceError: The public fastMRI package is not installed.
    """

    def __init__(
        self,
        scans: Path,
        *,
        rank: int,
        world_size: int,
        num_workers: int,
        prefetch: int,
        passes: int = 1,
        bucket: str = "",
        transform: Callable[..., Any] | None = None,
    ) -> None:
        try:
            from fastmri.data import mri_data
        except ImportError as error:
            raise ResourceError("the package fastmri", "is not installed", "Install it: pip install --no-deps fastmri") from error
        _readers.clear()
        files = mock.Mock(File=lambda path, mode: h5py.File(_object(bucket, Path(path).name), mode))
        # In force when the processes are forked, which is when the first epoch begins.
        self._patch = mock.patch.object(mri_data, "h5py", files if bucket else h5py)
        self._patch.start()
        try:
            dataset = mri_data.SliceDataset(scans, "multicoil", transform=transform or _as_tensors)
        except BaseException:
            self._patch.stop()
            raise
        share = Subset(dataset, list(range(rank, len(dataset), world_size)) * passes)
        self._order = _Shuffled(len(share), seed=rank)
        with _any_number_of_processes():
            self._loader = DataLoader(
                share, batch_size=1, sampler=self._order, num_workers=num_workers, prefetch_factor=prefetch, persistent_workers=True
            )
        self._processes: list[int] = []

    def epoch(self, share: float = 1.0) -> Iterator[Any]:
        """Yield the batches of an epoch, or of a share of one."""
        self._order.count = max(1, round(share * self._order.size))
        with _any_number_of_processes():
            batches: Any = iter(self._loader)
        self._processes = [process.pid for process in batches._workers]
        yield from batches

    def cpu_s(self) -> float:
        """Return the CPU seconds of the loader processes, where the system tells them (Linux)."""
        return sum(_cpu_s(process) for process in self._processes)

    def close(self) -> None:
        """End the loader processes."""
        self._patch.stop()
        batches: Any = self._loader._iterator
        self._loader._iterator = None
        if batches is not None:
            batches._shutdown_workers()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@contextlib.contextmanager
def _any_number_of_processes() -> Iterator[None]:
    """Silence PyTorch's advice to have no more processes than CPUs: these wait for the network."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        yield


class _Shuffled(Sampler[int]):
    """A new order every time, cut after ``count``."""

    def __init__(self, size: int, *, seed: int) -> None:
        self.size = self.count = size
        self._generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[int]:
        order: list[int] = torch.randperm(self.size, generator=self._generator)[: self.count].tolist()
        return iter(order)

    def __len__(self) -> int:
        return self.count


def _as_tensors(kspace: Any, mask: Any, target: Any, attributes: Any, name: str, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(kspace), torch.from_numpy(target)


class _BotoReader:
    """Reads ranges as everybody does: by boto3, and not by the reader that is measured."""

    def __init__(self, bucket: str) -> None:
        self._bucket, self._client = bucket, s3_client()
        self._files: dict[str, RangedFile] = {}

    def open(self, key: str) -> RangedFile:
        """Return an object as a file, the same one every time."""
        if key not in self._files:
            size = int(self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"])
            self._files[key] = RangedFile(self, f"s3://{self._bucket}/{key}", size)
        return self._files[key]

    def read_into(self, uri: str, offset: int, *buffers: memoryview) -> None:
        """Fill the buffers from the object."""
        key = uri.removeprefix(f"s3://{self._bucket}/")
        byte_range = f"bytes={offset}-{offset + sum(map(len, buffers)) - 1}"
        body = self._client.get_object(Bucket=self._bucket, Key=key, Range=byte_range)["Body"]
        for buffer in buffers:
            at = 0
            while at < len(buffer):
                count = body.readinto(buffer[at : at + _PIECE])
                if not count:
                    raise EOFError(f"{uri} at byte {offset} ends early")
                at += count


# By process: a forked loader must not share its parent's connections.
_readers: dict[int, _BotoReader] = {}


def _object(bucket: str, name: str) -> RangedFile:
    """Open a file in the bucket with this process's client."""
    if os.getpid() not in _readers:
        _readers[os.getpid()] = _BotoReader(bucket)
    return _readers[os.getpid()].open(f"scans/{name}")


def _cpu_s(process: int) -> float:
    try:
        # Behind the name, which may hold spaces: user and system time are fields 14 and 15 of all.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
