"""What preparing costs beside reading: scans of real size to packed slices on one core, against a bare read and hash of the same files.

Files, shards and scratch lie in memory where there is room (``folder=`` names another place), so that the core is measured and not a disk.
Sides take turns in one process of its own, which is pinned to one core as a task of ``prepare`` has one.
"""

import contextlib
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
import xxhash

from echotrain.benchmarks.environment import environment
from echotrain.benchmarks.result import BenchResult
from echotrain.benchmarks.scans import ScanSize, write_scans
from echotrain.data.formats.deidentify import Deidentifier
from echotrain.data.preparing.convert import ConvertConfig, convert_scan, scan_key
from echotrain.errors import ConfigError, ResourceError
from echotrain.storage.local import LocalStore

__all__ = ["run"]

_MEMORY = Path("/dev/shm")
_PIECE = 1 << 20
_SIDES = {"packed": ConvertConfig(), "index_only": ConvertConfig(payload="raw", index_only=True)}
_BARE = "bare"
# One thread wherever a library would start more by itself, as Ray sets it for a task of one CPU.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class _Rate(NamedTuple):
    """Bytes of the files by the second, in 1e6: of wall time, and of the core's."""

    mb_s: float
    cpu_mb_s: float


def run(*, quick: bool = False, scans: int = 2, repeats: int = 3, folder: str = "") -> BenchResult:
    """Convert, index and merely read the same files in turn.

    ``ours`` is the rate of converting to packed complex64, ``baseline`` that of reading the files and hashing them with xxh3.

    Args:
        quick: Small scans: a check that it works.
        scans: Files of 16 slices of 15 x 640 x 372, 0.46 GB each.
        repeats: Rounds that are timed, after one that is not.
        folder: For files and shards; empty takes memory, or the system's temporary folder where there is too little.
    """
    for name, value in (("scans", scans), ("repeats", repeats)):
        if value < 1:
            raise ConfigError(f"{name}={value}", "must be at least 1", "Leave it out.")
    size = ScanSize(slices=4, coils=4, height=64, width=48, image=32) if quick else ScanSize()
    with _scratch(folder, 2.2 * scans * size.nbytes) as scratch:
        paths = write_scans(scratch / "scans", scans, size)
        num_bytes = sum(path.stat().st_size for path in paths)
        rates = _measure(paths, scratch, repeats)
        place = str(scratch.parent)
    ours, bare = rates["packed"], rates[_BARE]
    return BenchResult(
        name="prepare",
        ours=ours.mb_s,
        baseline=bare.mb_s,
        unit="MB/s per core",
        ratio=ours.mb_s / bare.mb_s,
        detail={
            "index_only_mb_s": rates["index_only"].mb_s,
            "cpu_mb_s": {name: rate.cpu_mb_s for name, rate in rates.items()},
            "cpu_ratio": ours.cpu_mb_s / bare.cpu_mb_s,
            "scans": scans,
            "slices": size.slices,
            "shape": f"{size.coils} x {size.height} x {size.width}",
            "gigabytes": num_bytes / 1e9,
            "repeats": repeats,
            "place": place,
            "ours_is": "convert to packed complex64, curated and checked, targets verified, on one core",
            "baseline_is": "read and xxh3 of the same files, on the same core",
        },
    )


def _measure(paths: Sequence[Path], scratch: Path, repeats: int) -> dict[str, _Rate]:
    """Measure in a process of its own, whose libraries have not started threads yet."""
    context = multiprocessing.get_context("spawn")
    with environment(dict.fromkeys(_THREADS, "1")), ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_on_one_core, paths, scratch, repeats).result()


def _on_one_core(paths: Sequence[Path], scratch: Path, repeats: int) -> dict[str, _Rate]:
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    # Shards are spooled beside where they go, as they are where both are on the disk of a machine.
    tempfile.tempdir = str(scratch)
    sides: dict[str, Callable[[], None]] = {_BARE: lambda: _read_and_hash(paths)}
    sides |= {name: lambda config=config: _convert(paths, scratch / "prepared", config) for name, config in _SIDES.items()}  # type: ignore[misc]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(repeats + 1):
        for name, side in sides.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            side()
            times[name].append((time.perf_counter() - started, time.process_time() - cpu_started))
            shutil.rmtree(scratch / "prepared", ignore_errors=True)
    megabytes = sum(path.stat().st_size for path in paths) / 1e6
    medians = {name: [statistics.median(values) for values in zip(*found[1:], strict=True)] for name, found in times.items()}
    return {name: _Rate(*(megabytes / seconds for seconds in both)) for name, both in medians.items()}


def _read_and_hash(paths: Sequence[Path]) -> None:
    buffer = memoryview(bytearray(_PIECE))
    for path in paths:
        state = xxhash.xxh3_64()
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                state.update(buffer[:count])


def _convert(paths: Sequence[Path], to: Path, config: ConvertConfig) -> None:
    deidentifier, store = Deidentifier(safe_names=["file.*"]), LocalStore(to)
    for path in paths:
        key = scan_key(deidentifier, str(path), path.stat().st_size, "", config)
        record = convert_scan(path, uri=str(path), key=key, store=store, config=config, deidentifier=deidentifier)
        if record.rejections:
            raise AssertionError(f"a simulated scan was left out: {record.rejections[0].reason}")


@contextlib.contextmanager
def _scratch(folder: str, num_bytes: float) -> Iterator[Path]:
    """Yield a folder with that much room; of memory only a half is taken."""
    in_memory = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 2 * num_bytes
    with tempfile.TemporaryDirectory(prefix="echotrain-bench-", dir=folder or (_MEMORY if in_memory else None)) as path:
        free = shutil.disk_usage(path).free
        if free < num_bytes:
            raise ResourceError(
                f"{free / 1e9:.1f} GB free in {path}", f"is less than the {num_bytes / 1e9:.1f} GB needed", "Give folder= or lower scans=."
            )
        yield Path(path)
