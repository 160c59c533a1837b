"""Does the storage feed the trainer? Streaming against the network's own rate and against fastMRI's DataLoader.

All sides read the same slices as often, in one Ray Train run of several ranks, warm epochs only: from an S3 server throttled to 30 ms per
first byte, 80 MB/s per connection and 500 MB/s in all, from the same server unthrottled, over plain HTTP and over TLS, and from local
files. ``ratio`` is the share of the throttled network that the stream fills; everything else is in ``detail``. The DataLoader runs as a
good user would have it: processes that stay, and file objects that keep metadata.

With ``catalog=s3://…`` it measures your own store instead: the stream against bare ranged GETs of the very ranges that it reads, by turns.
"""

import contextlib
import os
import shutil
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from echotrain.benchmarks.environment import environment
from echotrain.benchmarks.result import BenchResult
from echotrain.benchmarks.stream_data import BUCKET, PASSES, SMALL, StreamData, StreamShapes, index_hdf5, write_stream_data
from echotrain.benchmarks.stream_own import measure_own_store
from echotrain.benchmarks.stream_sides import R4, Measured, Side, measure_sides
from echotrain.benchmarks.throttled import serve_throttled
from echotrain.data.catalog.containment import absolute_trusted
from echotrain.data.catalog.rows import SCHEMA
from echotrain.data.catalog.selection import select
from echotrain.data.catalog.store import load_catalog
from echotrain.data.plan.order import epoch_order, rank_rows
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import ResourceError

__all__ = ["run"]

FIRST_BYTE_S, CONNECTION_MB_S, NIC_MB_S = 0.03, 80.0, 500.0


def run(
    *,
    quick: bool = False,
    gigabytes: float = 2.0,
    workers: int = 2,
    threads: int = 0,
    loader_processes: int = 8,
    loader_prefetch: int = 2,
    folder: str = "",
    catalog: str = "",
    trusted: tuple[str, ...] = (),
) -> BenchResult:
    """Measure the stream.

    Args:
        quick: Two volumes of small slices and single epochs: a check that everything runs, not a measurement.
        gigabytes: Size of the slices at full precision; about 3.6 times that is written. Of ``catalog``, how much of it is read.
        workers: Ranks.
        threads: Concurrent reads per rank; 0 leaves the choice to the stream.
        loader_processes: Of the DataLoader, over all ranks. Twice as many were no faster from the throttled server, at more CPU time.
        loader_prefetch: Batches that each of these reads ahead.
        folder: For the data, removed afterwards; empty takes the system's temporary folder.
        catalog: Measure this catalog's store instead.
        trusted: As ``data.trusted``: what its rows may point to outside of it.

    Raises:
        ResourceError: The folder has too little space, or fastMRI is not installed.
    """
    if catalog:
        return _own_store(catalog, absolute_trusted(trusted), gigabytes=gigabytes, workers=workers, threads=threads)
    gigabytes = 0.0 if quick else gigabytes
    with _scratch(folder, gigabytes) as scratch:
        data = write_stream_data(scratch / "data", gigabytes, SMALL if quick else StreamShapes())
        loader = {"processes": -(-loader_processes // workers), "prefetch": loader_prefetch, "passes": PASSES}
        measured, detail = _measure(data, scratch, loader, workers=workers, threads=threads, is_quick=quick)
        detail |= _index_rate(data) | _fraction_bytes(data) | _plan_cost()
    conditions = {
        "conditions": f"epochs of {PASSES} passes, {workers} ranks, {os.cpu_count()} CPUs; "
        f"throttled to {FIRST_BYTE_S * 1e3:.0f} ms first byte, {CONNECTION_MB_S:.0f} MB/s per connection, {NIC_MB_S:.0f} MB/s in all",
        "stream_settings": f"{threads or '16 (S3), 4 (folder)'} reads per rank, the rest by default",
        "loader_settings": f"SliceDataset, {loader['processes']} persistent processes per rank, prefetch_factor={loader_prefetch}; "
        "from S3 one file object with its metadata per file and process, ranges by boto3",
        "gigabytes": data.num_bytes / 1e9,
        "slices": data.num_slices,
        "is_quick": quick,
    }
    ours = measured["throttled"].fetched_mb_s
    return BenchResult(name="stream", ours=ours, baseline=NIC_MB_S, unit="MB/s", ratio=ours / NIC_MB_S, detail=detail | conditions)


def _own_store(catalog: str, trusted: tuple[str, ...], *, gigabytes: float, workers: int, threads: int) -> BenchResult:
    table = load_catalog(catalog, trusted=trusted).table
    train = table.filter(pc.equal(table["split"], "train"))
    fraction = min(1.0, gigabytes * 1e9 / max(1, pc.sum(train["nbytes"]).as_py() or 0))
    env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    side = Side(name="own", kind="stream", env=env, source=catalog, trusted=trusted, fraction=fraction, threads=threads)
    with tempfile.TemporaryDirectory() as scratch:
        found = measure_own_store(side, workers=workers, folder=Path(scratch))
    ours, bare = found.stream, found.gets
    detail = {
        "slices_s": ours.slices_s,
        "kspace_mb_s": ours.mb_s,
        "cpu_s_per_gb": ours.cpu_s_per_gb,
        "baseline_cpu_s_per_gb": bare.cpu_s_per_gb,
        "data_wait_share": ours.wait_share,
        "requests_per_turn": found.requests,
        "gigabytes_per_turn": found.num_bytes / 1e9,
        "turns": "one epoch was read to note its ranges; then bare, stream, stream, bare",
    }
    ratio = ours.fetched_mb_s / bare.fetched_mb_s
    return BenchResult(name="stream", ours=ours.fetched_mb_s, baseline=bare.fetched_mb_s, unit="MB/s", ratio=ratio, detail=detail)


def _measure(
    data: StreamData, scratch: Path, loader: dict[str, Any], *, workers: int, threads: int, is_quick: bool
) -> tuple[dict[str, Measured], dict[str, Any]]:
    """Measure every side that moves bytes, and compare them."""
    limits: dict[str, Any] = {"first_byte_s": FIRST_BYTE_S, "connection_mb_s": CONNECTION_MB_S, "nic_mb_s": NIC_MB_S}
    with (
        serve_throttled(data.folder, **limits) as slow,
        serve_throttled(data.folder) as quick,
        serve_throttled(data.folder, tls=True) as tls,
    ):
        uri, scans = f"s3://{BUCKET}", str(data.scans)
        packed = f"{uri}/{data.packed}"
        ours: dict[str, Any] = {"kind": "stream", "threads": threads}
        local = {**ours, "source": str(data.bucket / data.packed)}
        often = 1 if is_quick else 4
        theirs: dict[str, Any] = {"kind": "loader", "source": scans, "bucket": BUCKET, **loader}
        over_tls: dict[str, Any] = {"env": tls.env, "source": packed, "epochs": often, "threads": threads}
        sides = [
            # Ray Data starts an actor with the first dataset, on the very cores that are measured.
            Side(name="unused", epochs=often, **local),
            Side(name="local", epochs=often, **local),
            Side(name="local_loader", kind="loader", source=scans, **loader),
            Side(name="loopback", env=quick.env, source=packed, epochs=often, **ours),
            Side(name="boto3", kind="boto3", env=quick.env, source=packed, epochs=often, threads=threads),
            Side(name="loopback_loader", env=quick.env, **theirs),
            Side(name="throttled", env=slow.env, source=packed, **ours),
            Side(name="throttled_loader", env=slow.env, **theirs),
            Side(name="hdf5", env=slow.env, source=uri, **ours),
            Side(name="half", env=slow.env, source=f"{uri}/{data.half}", **ours),
            Side(name="lines", env=slow.env, source=f"{uri}/{data.lines}", **ours),
            Side(name="tls", kind="stream", **over_tls),
            Side(name="tls_gets", kind="gets", **over_tls),
            Side(name="tls_boto3", kind="boto3", **over_tls),
            Side(name="tls_loader", env=tls.env, **theirs),
        ]
        found = measure_sides(sides, workers=workers, folder=scratch)
    full_slices_s = NIC_MB_S * 1e6 * data.num_slices / data.num_bytes
    detail: dict[str, Any] = {}
    for place in ("throttled", "loopback", "local", "tls"):
        stream, baseline = found[place], found[f"{place}_loader"]
        detail |= {
            f"{place}_stream_mb_s": stream.mb_s,
            f"{place}_loader_mb_s": baseline.mb_s,
            f"{place}_ratio": stream.mb_s / baseline.mb_s,
            f"{place}_stream_cpu_s_per_gb": stream.cpu_s_per_gb,
            f"{place}_loader_cpu_s_per_gb": baseline.cpu_s_per_gb,
        }
    for name in ("tls_gets", "tls_boto3"):
        detail |= {f"{name}_mb_s": found[name].fetched_mb_s, f"{name}_cpu_s_per_gb": found[name].cpu_s_per_gb}
    detail |= {
        "tls_stream_ratio_to_boto3": found["tls"].fetched_mb_s / found["tls_boto3"].fetched_mb_s,
        "tls_gets_ratio_to_boto3": found["tls_gets"].fetched_mb_s / found["tls_boto3"].fetched_mb_s,
        "throttled_data_wait_share": found["throttled"].wait_share,
        "throttled_loader_wait_share": found["throttled_loader"].wait_share,
        "throttled_hdf5_without_conversion_mb_s": found["hdf5"].mb_s,
        "boto3_mb_s": found["boto3"].fetched_mb_s,
        "boto3_cpu_s_per_gb": found["boto3"].cpu_s_per_gb,
        "half_effective_mb_s": found["half"].mb_s,
        "half_ratio_to_nic": found["half"].mb_s / NIC_MB_S,
        "lines_r4_slices_s": found["lines"].slices_s,
        "full_slices_s_at_nic": full_slices_s,
        "lines_r4_ratio": found["lines"].slices_s / full_slices_s,
        "lines_r4_is_bit_exact": _is_bit_exact(data),
    }
    return found, detail


def _is_bit_exact(data: StreamData) -> bool:
    """Compare slices read by line with the same slices read whole and masked."""
    kinds = [LinesData(catalog=str(data.bucket / key), mask=R4) for key in (data.lines, data.packed)]
    streams = [PlannedStream(kind, seed=0, batch_size=1) for kind in kinds]
    same = []
    for (number, one), two in zip(enumerate(streams[0].steps(1)), streams[1].steps(1), strict=False):
        by_line, whole = one.batches[0], two.batches[0]
        same.append(by_line.ids == whole.ids and bool((by_line.kspace * whole.mask == whole.kspace * whole.mask).all()))
        if number == 15:
            break
    return all(same) and len(same) > 0


def _index_rate(data: StreamData) -> dict[str, float]:
    """Index the HDF5 files as shards of their own."""
    started = time.perf_counter()
    rows = index_hdf5(data.bucket)
    return {"hdf5_index_slices_s": len(rows) / (time.perf_counter() - started)}


def _fraction_bytes(data: StreamData) -> dict[str, float]:
    """Compare the bytes that the server sent for an epoch of a tenth of the volumes with those volumes' own."""
    with serve_throttled(data.folder) as server, environment(server.env):
        stream = PlannedStream(LinesData(catalog=f"s3://{BUCKET}", fraction=0.1, mask=R4), seed=0, batch_size=1)
        own = sum(
            row.nbytes + row.target_nbytes for row in stream.catalog.rows(select(stream.catalog.table, splits=("train",), fraction=0.1))
        )
        server.reset()
        for step in stream.steps(0):
            del step
        return {"fraction_fetched_over_own_bytes": server.stats().bytes / own}


def _plan_cost(num_rows: int = 100_000) -> dict[str, float]:
    """Plan an epoch of a large catalog: selection, order, and one rank's rows of it."""
    names = pa.array([f"file{i // 30:07d}" for i in range(num_rows)])
    constant = {"dataset": "simulated", "split": "train", "anatomy": "knee", "contrast": "PD"}
    columns = {
        name: pa.DictionaryArray.from_arrays(pa.array(np.zeros(num_rows, np.int32)), [word]).cast(pa.string())
        for name, word in constant.items()
    }
    columns |= {"volume": names, "slice": pa.array(np.arange(num_rows) % 30, pa.int32())}
    table = pa.table([columns.get(f.name, pa.nulls(num_rows, f.type)) for f in SCHEMA], schema=SCHEMA)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    started = time.perf_counter()
    chosen = select(table, splits=("train",), fraction=0.9)
    mine = rank_rows(epoch_order(len(chosen), 0, 1), 0, batch_size=8, rank=0, world_size=1)
    planned = table.take(pa.array(chosen[mine.indices]))
    seconds = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes() - before
    tracemalloc.stop()
    del planned
    return {"plan_100k_slices_s": seconds, "plan_100k_slices_mb": peak / 1e6}


@contextlib.contextmanager
def _scratch(folder: str, gigabytes: float) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="echotrain-bench-", dir=folder or None) as path:
        needed, free = gigabytes * 4e9, shutil.disk_usage(path).free
        if free < needed:
            raise ResourceError(
                f"{free / 1e9:.1f} GB free in {path}", f"is less than the {needed / 1e9:.1f} GB needed", "Give folder= or lower gigabytes=."
            )
        yield Path(path)
