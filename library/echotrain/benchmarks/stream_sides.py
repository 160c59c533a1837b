"""The measured sides of the stream benchmark, all in one Ray Train run."""

import json
import resource
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray.train
import torch
import torch.distributed as dist

from echotrain.benchmarks.environment import environment
from echotrain.benchmarks.fastmri_loader import FastmriLoader
from echotrain.data.catalog.rows import SliceRow
from echotrain.data.catalog.selection import select
from echotrain.data.catalog.store import load_catalog
from echotrain.data.config import StreamConfig
from echotrain.data.fetch import default_threads
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.log import setup_logging
from echotrain.orchestration.runtime.cluster import connect
from echotrain.orchestration.runtime.streaming import RayStream
from echotrain.orchestration.runtime.trainer import ERRORS_ONLY, quiet_trainer
from echotrain.physics.masks import MaskConfig
from echotrain.storage.aws import s3_client
from echotrain.storage.open import join_uri
from echotrain.storage.ranged import RangeReader

__all__ = ["R4", "Count", "Measured", "Side", "Source", "Total", "measure_sides", "rank_stream"]

# The epoch before the first one that is measured: connections, processes, threads and memory are there before the clock starts, as they are
# in the middle of any training. Of ours and of bare reads a few steps are enough; the loader's processes have seen every file after a pass.
_WARM_UP, _WARM_STEPS = 0, 48
_PIECE = 1 << 20
R4 = MaskConfig(kind="equispaced", accelerations=(4,), center_fractions=(0.08,))


@dataclass(frozen=True, kw_only=True)
class Side:
    """One thing to measure.

    Attributes:
        name: In the report.
        kind: ``stream``: ours; ``loader``: fastMRI's DataLoader; ``gets``: range reads with a checksum; ``boto3``: the same ranges by
            boto3, read into the same memory.
        env: Environment while it runs: the S3 endpoint.
        source: Catalog URI, or the folder of the HDF5 files for the loader.
        trusted: What the catalog's rows may point to outside of it.
        fraction: Share of the catalog's volumes that are read.
        bucket: The loader reads from this bucket.
        processes: The loader's, per rank.
        prefetch: Batches that each of these reads ahead.
        passes: How often the loader's epoch has every slice; the catalogs of the others say it themselves.
        epochs: Measured ones, after some steps that are not.
        threads: Concurrent reads per rank; 0 for the stream's own choice.
    """

    name: str
    kind: Literal["stream", "loader", "gets", "boto3"]
    env: dict[str, str] = field(default_factory=dict)
    source: str
    trusted: tuple[str, ...] = ()
    fraction: float = 1.0
    bucket: str = ""
    processes: int = 8
    prefetch: int = 2
    passes: int = 1
    epochs: int = 1
    threads: int = 0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one side did, over all ranks.

    Attributes:
        mb_s: Full-precision bytes of k-space and targets that reached the consumer, 1e6 per second.
        fetched_mb_s: Bytes that crossed the network or left the disk, likewise.
        slices_s: Slices per second.
        wait_share: Share of the time in which a rank waited for data.
        cpu_s_per_gb: CPU seconds of the ranks and their loader processes per 1e9 fetched bytes.
    """

    mb_s: float
    fetched_mb_s: float
    slices_s: float
    wait_share: float
    cpu_s_per_gb: float


@dataclass
class Count:
    """What one rank has consumed: slices, their bytes, bytes fetched, and seconds of waiting."""

    slices: int = 0
    nbytes: int = 0
    fetched: int = 0
    wait_s: float = 0.0


def measure_sides(sides: list[Side], *, workers: int, folder: Path) -> dict[str, Measured]:
    """Measure every side, one after the other, in one Ray Train run of ``workers`` ranks.

    Args:
        sides: In the order of measuring.
        workers: Ranks; they must share ``folder``, so that one machine is meant.
        folder: For the report and Ray's own files.
    """
    connect()
    report = folder / "sides.json"
    quiet_trainer(
        _rank_main,
        train_loop_config={"sides": [asdict(side) for side in sides], "report": str(report)},
        scaling_config=ray.train.ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
        run_config=ray.train.RunConfig(name="stream", storage_path=str(folder / "ray"), logging_config=ERRORS_ONLY),
    ).fit()
    return {name: Measured(**values) for name, values in json.loads(report.read_text()).items()}


def _rank_main(config: dict[str, Any]) -> None:
    setup_logging("WARNING")
    torch.set_num_threads(1)
    results = {}
    for values in config["sides"]:
        side = Side(**values)
        with environment(side.env):
            measured = _measure(side)
        if measured is not None:
            results[side.name] = asdict(measured)
    if dist.get_rank() == 0:
        Path(config["report"]).write_text(json.dumps(results))
    dist.barrier()


def _measure(side: Side) -> Measured | None:
    """Run one side on this rank; rank 0 gets the sum."""
    rank, world = dist.get_rank(), dist.get_world_size()
    source = {"stream": rank_stream, "loader": _loader, "gets": _gets, "boto3": _gets}[side.kind](side, rank, world)
    for _ in source.epoch(_WARM_UP):
        pass
    total = Total()
    for epoch in range(_WARM_UP + 1, _WARM_UP + 1 + side.epochs):
        total.add_epoch(source, epoch)
    source.close()
    return total.over_ranks()


@dataclass(frozen=True)
class Source:
    """A side at work on a rank.

    Attributes:
        epoch: Consumes an epoch, or of the first one what warms up.
        close: Ends it.
        cpu_of_others_s: CPU seconds of the processes that work for this one.
    """

    epoch: Callable[[int], Generator[Count, None, None]]
    close: Callable[[], None]
    cpu_of_others_s: Callable[[], float] = lambda: 0.0


class Total:
    """What a side has done on this rank, in all measured epochs."""

    def __init__(self) -> None:
        self._count, self._seconds, self._cpu_s = Count(), 0.0, 0.0

    def add_epoch(self, source: Source, epoch: int) -> None:
        """Run an epoch on all ranks at once, from the first one's start to the last one's end."""
        dist.barrier()
        started, cpu_started = time.perf_counter(), _cpu_s() + source.cpu_of_others_s()
        for more in source.epoch(epoch):
            self._count.slices += more.slices
            self._count.nbytes += more.nbytes
            self._count.fetched += more.fetched
            self._count.wait_s += more.wait_s
        self._cpu_s += _cpu_s() + source.cpu_of_others_s() - cpu_started
        dist.barrier()
        self._seconds += time.perf_counter() - started

    def over_ranks(self) -> Measured | None:
        """Return the sum over all ranks, on the first of them."""
        count, seconds = self._count, self._seconds
        totals = torch.tensor([count.slices, count.nbytes, count.fetched, count.wait_s, self._cpu_s], dtype=torch.float64)
        dist.reduce(totals, 0)
        if dist.get_rank() != 0:
            return None
        slices, nbytes, fetched, wait_s, cpu_s = totals.tolist()
        return Measured(
            mb_s=nbytes / seconds / 1e6,
            fetched_mb_s=fetched / seconds / 1e6,
            slices_s=slices / seconds,
            wait_share=wait_s / seconds / dist.get_world_size(),
            cpu_s_per_gb=cpu_s / fetched * 1e9 if fetched else 0.0,
        )


def rank_stream(side: Side, rank: int, world: int) -> Source:
    """Return our stream at work on a rank."""
    config = StreamConfig(threads=side.threads)
    data = LinesData(catalog=side.source, trusted=side.trusted, fraction=side.fraction, mask=R4)
    stream = RayStream(data, seed=0, batch_size=world, rank=rank, world_size=world, config=config)

    def epoch_of(epoch: int) -> Generator[Count, None, None]:
        first_step = max(0, stream.num_steps(epoch) - _WARM_STEPS) if epoch == _WARM_UP else 0
        for step in stream.steps(epoch, first_step):
            count = Count(fetched=step.num_bytes, wait_s=step.wait_s)
            for batch in step.batches:
                if batch.weight.any():
                    _touch(batch.kspace)
                    count.slices += len(batch.ids)
                    count.nbytes += batch.kspace.nbytes + batch.target.nbytes
            yield count

    return Source(epoch_of, stream.close)


def _loader(side: Side, rank: int, world: int) -> Source:
    loader = FastmriLoader(
        Path(side.source),
        rank=rank,
        world_size=world,
        num_workers=side.processes,
        prefetch=side.prefetch,
        passes=side.passes,
        bucket=side.bucket,
    )

    def epoch_of(epoch: int) -> Generator[Count, None, None]:
        waiting = time.perf_counter()
        for kspace, target in loader.epoch(1 / side.passes if epoch == _WARM_UP else 1.0):
            wait_s = time.perf_counter() - waiting
            _touch(kspace)
            nbytes = kspace.nbytes + target.nbytes
            yield Count(slices=1, nbytes=nbytes, fetched=nbytes, wait_s=wait_s)
            waiting = time.perf_counter()

    return Source(epoch_of, loader.close, loader.cpu_s)


def _gets(side: Side, rank: int, world: int) -> Source:
    catalog = load_catalog(side.source, trusted=side.trusted)
    rows = catalog.rows(select(catalog.table, splits=("train",), fraction=side.fraction)[rank::world])
    num_threads = side.threads or default_threads(catalog.root)
    reader, threads = RangeReader(), ThreadPoolExecutor(num_threads)
    memory = np.empty(max(row.nbytes for row in rows) * num_threads, np.uint8).reshape(num_threads, -1)

    client: Any = s3_client() if side.kind == "boto3" else None

    def read(number: int, row: SliceRow) -> int:
        # Two reads may meet in one buffer: nobody looks at the bytes.
        buffer, uri = memoryview(memory[number % num_threads][: row.nbytes]), join_uri(catalog.root, row.uri)
        if side.kind == "gets":
            reader.read_into(uri, row.offset, buffer)
            return row.nbytes
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        byte_range = f"bytes={row.offset}-{row.offset + row.nbytes - 1}"
        body, at = client.get_object(Bucket=bucket, Key=key, Range=byte_range)["Body"], 0
        while at < row.nbytes:
            at += body.readinto(buffer[at : at + _PIECE])
        return row.nbytes

    def epoch_of(epoch: int) -> Generator[Count, None, None]:
        wanted = rows[:_WARM_STEPS] if epoch == _WARM_UP else rows
        for nbytes in threads.map(read, range(len(wanted)), wanted):
            yield Count(slices=1, nbytes=nbytes, fetched=nbytes)

    def close() -> None:
        threads.shutdown()
        reader.close()

    return Source(epoch_of, close)


def _touch(kspace: torch.Tensor) -> None:
    """Read one word of each page, so that the bytes must be there."""
    kspace.reshape(-1)[::512].real.sum()


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
