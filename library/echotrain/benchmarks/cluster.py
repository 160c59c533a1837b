"""What does it cost to have samples made on other CPUs? ``stream.where=cluster`` against the same function in bare processes.

Both sides make the same slices, on as many CPUs, of local files: each is fetched, checked and worked on for about 0.2 s of CPU. ``ratio``
is slices/s of the stream, which carries the samples through Ray's object store to the one process that takes them, over those of
processes that throw theirs away. ``nic_share`` is the rate without any work, from an S3 server throttled as in ``stream``, over that of
its network.

Rates are those after the first samples, since a start is paid once a run; ``first_s`` says what it was.
"""

import dataclasses
import functools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from echotrain.benchmarks.environment import environment
from echotrain.benchmarks.result import BenchResult
from echotrain.benchmarks.stream import CONNECTION_MB_S, FIRST_BYTE_S, NIC_MB_S
from echotrain.benchmarks.stream_data import BUCKET, PASSES, SMALL, StreamData, StreamShapes, write_stream_data
from echotrain.benchmarks.throttled import serve_throttled
from echotrain.data.config import StreamConfig
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.kspace_lines import LinesBatch, LinesData, LinesFormat
from echotrain.data.samples.sample_format import Begun, MakeFormat, StepRows
from echotrain.data.stream import StepData
from echotrain.orchestration.runtime.cluster import connect
from echotrain.orchestration.runtime.cluster_stream import ClusterStream

__all__ = ["WorkedLines", "run"]

# One shape, so that every slice is as much work.
_SHAPES = StreamShapes(kspace=((8, 384, 320),), image=320)
_GIGABYTES = 0.5
# Of either side, not counted: processes start, and what was made meanwhile is taken at once.
_WARM_UP = 64


def run(*, quick: bool = False, makers: int = 0, cpu_s: float = 0.2, slices: int = 200) -> BenchResult:
    """Measure it.

    Args:
        quick: Small slices, and few: a check that everything runs, not a measurement.
        makers: Processes of either side; 0 takes a CPU each.
        cpu_s: Work on each slice.
        slices: That are counted, of each side.
    """
    makers, slices, cpu_s = makers or os.cpu_count() or 1, 24 if quick else slices, 0.01 if quick else cpu_s
    rounds = _rounds(cpu_s)  # Before Ray, which works a while as it starts.
    connect()
    with tempfile.TemporaryDirectory(prefix="echotrain-bench-") as scratch:
        written = write_stream_data(Path(scratch), 0.0 if quick else _GIGABYTES, SMALL if quick else _SHAPES)
        os.sync()  # What is still to be written to a disk would be written while it is read.
        worked = WorkedLines(catalog=str(written.bucket / written.packed), rounds=rounds)
        config = StreamConfig(where="cluster", makers=makers, threads=1)
        ours = _timed(_cluster_steps(worked, config), slices)
        bare = _bare_rate(worked, makers, slices)
        share = _nic_share(written, config, slices)
    detail = {
        "nic_share": share.mb_s / NIC_MB_S,
        "plain_mb_s": share.mb_s,
        "first_s": ours.first_s,
        "mb_s": ours.mb_s,
        "makers": makers,
        "cpu_s": cpu_s,
        "slices": slices,
        "conditions": f"{os.cpu_count()} CPUs, on which the taker and Ray run as well; without work from {NIC_MB_S:.0f} MB/s in all",
        "is_quick": quick,
    }
    ratio = ours.slices_s / bare
    return BenchResult(name="cluster", ours=ours.slices_s, baseline=bare, unit="slices/s", ratio=ratio, detail=detail)


@dataclass(frozen=True, kw_only=True)
class WorkedLines(LinesData):
    """Line-masked k-space that costs CPU.

    Attributes:
        rounds: Of some arithmetic for each slice, whose result nobody looks at.
    """

    rounds: int = 0

    def make_format(self, *, seed: int) -> MakeFormat[LinesBatch]:
        """Return what makes the format."""
        return lambda reading: _WorkedFormat(reading, self, seed=seed, rounds=self.rounds)


class _WorkedFormat(LinesFormat):
    def __init__(self, *arguments: Any, rounds: int, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._rounds = rounds

    def begin(self, step: StepRows, *, epoch: int | None) -> list[Begun[LinesBatch]]:
        """Return the batches; whoever reads a slice works on it."""
        return [
            dataclasses.replace(begun, reads=[functools.partial(self._read, read) for read in begun.reads])
            for begun in super().begin(step, epoch=epoch)
        ]

    def _read(self, read: Callable[[], int]) -> int:
        fetched = read()
        _work(self._rounds)
        return fetched


def _work(rounds: int) -> None:
    """Compute, within a processor's cache: how fast memory is must not decide between two kinds of process."""
    values = np.ones(4096)
    for _ in range(rounds):
        np.cos(values, out=values)


def _rounds(cpu_s: float) -> int:
    """Return how many rounds take so much CPU time."""
    _work(10)
    started, tried = time.process_time(), 1000
    _work(tried)
    return max(1, round(cpu_s * tried / (time.process_time() - started)))


class _Rate(NamedTuple):
    slices_s: float
    mb_s: float
    first_s: float


def _timed(steps: Iterator[StepData[Any]], slices: int) -> _Rate:
    """Take a step for each slice, those of the warm-up first, and return the rate of the others."""
    began = time.perf_counter()
    next(steps)
    first_s = time.perf_counter() - began
    for _ in range(_WARM_UP - 1):
        next(steps)
    began, num_bytes = time.perf_counter(), 0
    for _ in range(slices):
        num_bytes += next(steps).num_bytes
    took = time.perf_counter() - began
    close = getattr(steps, "close", None)
    if close is not None:
        close()
    return _Rate(slices / took, num_bytes / took / 1e6, first_s)


def _cluster_steps(data: LinesData, config: StreamConfig) -> Iterator[StepData[Any]]:
    stream = ClusterStream(data, seed=0, batch_size=1, epochs=1000, config=config)
    try:
        for epoch in range(1000):
            yield from stream.steps(epoch)
    finally:
        stream.close()


def _bare_rate(data: LinesData, makers: int, slices: int) -> float:
    """Return the slices/s of processes that make their share of the plan and throw it away."""
    with multiprocessing.get_context("spawn").Pool(makers) as pool:
        return sum(pool.starmap(_bare, [(data, rank, makers, -(-slices // makers)) for rank in range(makers)], chunksize=1))


def _bare(data: LinesData, rank: int, makers: int, slices: int) -> float:
    torch.set_num_threads(1)
    stream = PlannedStream(data, seed=0, batch_size=makers, rank=rank, world_size=makers, config=StreamConfig(threads=1))
    rate = _timed((step for epoch in range(1000) for step in stream.steps(epoch)), slices)
    stream.close()
    return rate.slices_s


def _nic_share(written: StreamData, config: StreamConfig, slices: int) -> _Rate:
    """Return the rate without work, from a throttled server."""
    throttled = serve_throttled(written.folder, first_byte_s=FIRST_BYTE_S, connection_mb_s=CONNECTION_MB_S, nic_mb_s=NIC_MB_S)
    with throttled as server, environment(server.env):
        data = LinesData(catalog=f"s3://{BUCKET}/{written.packed}")
        # Who only reads waits more than it works.
        plain = StreamConfig(where="cluster", makers=2 * config.makers, cpus_per_maker=0.5)
        return _timed(_cluster_steps(data, plain), slices * PASSES)
