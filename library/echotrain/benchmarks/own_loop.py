"""A catalog in one's own loop against fastMRI's loader: a CatalogDataset from S3 beside SliceDataset and DataLoader on local files.

Both give the same training samples, with masks, as fastMRI's ``VarNetDataTransform`` makes them, batches of one in a new order every
epoch; they take turns in one process, warm. Ours reads from an S3 server that is throttled to 30 ms per first byte, 80 MB/s per connection
and 500 MB/s in all; the files of the other lie on this machine, in its page cache. The server's CPU time is on these CPUs, too.
"""

import contextlib
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echotrain.benchmarks.environment import environment
from echotrain.benchmarks.fastmri_loader import FastmriLoader
from echotrain.benchmarks.result import BenchResult
from echotrain.benchmarks.stream_data import BUCKET, PASSES, SMALL, StreamData, StreamShapes, write_stream_data
from echotrain.benchmarks.throttled import serve_throttled
from echotrain.data.config import StreamConfig
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.torch_dataset import CatalogDataset, CatalogLoader
from echotrain.physics.masks import MaskConfig

__all__ = ["run"]

FIRST_BYTE_S, CONNECTION_MB_S, NIC_MB_S = 0.03, 80.0, 500.0
_MASK = MaskConfig(kind="equispaced", accelerations=(4,), center_fractions=(0.08,))
_FILES, _S3, _LOCAL = "fastmri_files", "echotrain_s3", "echotrain_files"


@dataclass
class _Total:
    """What a side has done in all its turns."""

    samples: int = 0
    nbytes: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0


def run(
    *, quick: bool = False, gigabytes: float = 1.0, turns: int = 2, threads: int = 0, loader_processes: int = 4, folder: str = ""
) -> BenchResult:
    """Measure samples per second.

    Args:
        quick: Two volumes of small slices: a check that everything runs, not a measurement.
        gigabytes: Size of the slices; each epoch reads them four times.
        turns: Epochs of each side.
        threads: Concurrent reads of ours; 0 leaves the choice to the stream.
        loader_processes: Of the DataLoader.
        folder: For the data, removed afterwards; empty takes the system's temporary folder.

    Raises:
        ResourceError: fastMRI is not installed.
    """
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="echotrain-bench-", dir=folder or None)))
        data = write_stream_data(scratch, 0.0 if quick else gigabytes, SMALL if quick else StreamShapes())
        limits: dict[str, Any] = {"first_byte_s": FIRST_BYTE_S, "connection_mb_s": CONNECTION_MB_S, "nic_mb_s": NIC_MB_S}
        server = stack.enter_context(serve_throttled(scratch, **limits))
        # First, so that its processes are forked from one without threads.
        loader = stack.enter_context(_fastmri(data, loader_processes))
        sides: dict[str, Callable[[], Iterator[Any]]] = {_FILES: loader.epoch}
        _timed(loader.epoch, _Total(), loader.cpu_s)
        stack.enter_context(environment(server.env))
        for name, catalog in ((_S3, f"s3://{BUCKET}/{data.packed}"), (_LOCAL, str(data.bucket / data.packed))):
            dataset = CatalogDataset(LinesData(catalog=catalog, mask=_MASK), config=StreamConfig(threads=threads))
            stack.callback(dataset.close)
            sides[name] = CatalogLoader(dataset).__iter__
        totals = {name: _Total() for name in sides}
        for name in (_S3, _LOCAL):
            _timed(sides[name], _Total())
        for _ in range(turns):
            for name, epoch in sides.items():
                _timed(epoch, totals[name], loader.cpu_s if name == _FILES else lambda: 0.0)
    return _result(totals, data, {"quick": quick, "turns": turns, "threads": threads, "loader_processes": loader_processes})


def _fastmri(data: StreamData, processes: int) -> FastmriLoader:
    """Return the public loader of training samples; its masks have no seed, as in its own training."""
    from fastmri.data.subsample import create_mask_for_mask_type
    from fastmri.data.transforms import VarNetDataTransform

    mask = create_mask_for_mask_type(_MASK.kind, _MASK.center_fractions, _MASK.accelerations)
    transform = VarNetDataTransform(mask, use_seed=False)
    return FastmriLoader(data.scans, rank=0, world_size=1, num_workers=processes, prefetch=2, passes=PASSES, transform=transform)


def _timed(epoch: Callable[[], Iterator[Any]], total: _Total, cpu_of_others_s: Callable[[], float] = lambda: 0.0) -> None:
    """Take an epoch's batches, one word of each page of their k-space, and add up what that took."""
    started, cpu_started = time.perf_counter(), _cpu_s() + cpu_of_others_s()
    for batch in epoch():
        batch.masked_kspace.reshape(-1)[::1024].sum()
        total.samples += len(batch.fname)
        total.nbytes += batch.masked_kspace.nbytes + batch.target.nbytes
    total.cpu_s += _cpu_s() + cpu_of_others_s() - cpu_started
    total.seconds += time.perf_counter() - started


def _result(totals: dict[str, _Total], data: StreamData, settings: dict[str, Any]) -> BenchResult:
    rates = {name: total.samples / total.seconds for name, total in totals.items()}
    return BenchResult(
        name="own_loop",
        ours=rates[_S3],
        baseline=rates[_FILES],
        unit="samples/s",
        ratio=rates[_S3] / rates[_FILES],
        detail={
            "samples_s": rates,
            "mb_s": {name: total.nbytes / total.seconds / 1e6 for name, total in totals.items()},
            "cpu_ms_per_sample": {name: 1e3 * total.cpu_s / total.samples for name, total in totals.items()},
            "ratio_from_files": rates[_LOCAL] / rates[_FILES],
            "share_of_nic": totals[_S3].nbytes / totals[_S3].seconds / 1e6 / NIC_MB_S,
            "mb_per_sample": {name: total.nbytes / total.samples / 1e6 for name, total in totals.items()},
            "gigabytes": data.num_bytes / 1e9,
            **settings,
        },
    )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
