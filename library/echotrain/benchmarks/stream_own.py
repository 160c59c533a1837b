"""A store of one's own: the stream against bare ranged GETs of the very ranges that it reads, by turns, in one Ray Train run."""

import dataclasses
import json
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import ray.train
import torch
import torch.distributed as dist

from echotrain.benchmarks.environment import environment
from echotrain.benchmarks.stream_sides import R4, Count, Measured, Side, Source, Total, rank_stream
from echotrain.data.config import StreamConfig
from echotrain.data.fetch import default_threads
from echotrain.data.samples.kspace_lines import LinesBatch, LinesData
from echotrain.data.samples.sample_format import MakeFormat
from echotrain.log import setup_logging
from echotrain.orchestration.runtime.cluster import connect
from echotrain.orchestration.runtime.streaming import RayStream
from echotrain.orchestration.runtime.trainer import ERRORS_ONLY, quiet_trainer
from echotrain.storage.ranged import RangeReader

__all__ = ["OwnStore", "ReadRange", "RecordedLines", "measure_own_store", "replayed"]

_EPOCH = 1
# Neither side always comes first, nor always after the other, whatever a cache keeps of the one before.
_TURNS = ("gets", "stream", "stream", "gets")


class ReadRange(NamedTuple):
    """A piece of an object that was read in one request."""

    uri: str
    offset: int
    nbytes: int


@dataclass(frozen=True, kw_only=True)
class RecordedLines(LinesData):
    """Line-masked k-space that notes which ranges are read for it.

    Attributes:
        ranges: Grows, in the order of the requests.
    """

    ranges: list[ReadRange] = field(default_factory=list, compare=False)

    def make_format(self, *, seed: int) -> MakeFormat[LinesBatch]:
        """Return what makes the format, its reads noted."""
        make = super().make_format(seed=seed)
        return lambda reading: make(dataclasses.replace(reading, ranges=_NotingReader(self.ranges)))


@dataclass(frozen=True, kw_only=True)
class OwnStore:
    """What both sides did, over all ranks.

    Attributes:
        stream, gets: Two turns of each.
        requests: Of one turn.
        num_bytes: Likewise.
    """

    stream: Measured
    gets: Measured
    requests: int
    num_bytes: int


def measure_own_store(side: Side, *, workers: int, folder: Path) -> OwnStore:
    """Read one epoch once, noting every range, then by turns as a stream and by bare GETs of these ranges.

    Args:
        side: Catalog, credentials, share and threads.
        workers: Ranks; they must share ``folder``.
        folder: For the report and Ray's own files.
    """
    connect()
    report = folder / "own.json"
    quiet_trainer(
        _rank_main,
        train_loop_config={"side": asdict(side), "report": str(report)},
        scaling_config=ray.train.ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
        run_config=ray.train.RunConfig(name="own-store", storage_path=str(folder / "ray"), logging_config=ERRORS_ONLY),
    ).fit()
    found = json.loads(report.read_text())
    measured = {kind: Measured(**values) for kind, values in found["measured"].items()}
    return OwnStore(**measured, requests=found["requests"], num_bytes=found["num_bytes"])


def replayed(ranges: Sequence[ReadRange], num_threads: int) -> Source:
    """Return a side that reads these ranges with checksums, a request each, into memory that it keeps."""
    reader, threads = RangeReader(), ThreadPoolExecutor(num_threads)
    memory = np.empty((num_threads, max((each.nbytes for each in ranges), default=0)), np.uint8)

    def read(number: int, wanted: ReadRange) -> int:
        # Two reads may meet in one buffer: nobody looks at the bytes.
        reader.read_into(wanted.uri, wanted.offset, memoryview(memory[number % num_threads][: wanted.nbytes]))
        return wanted.nbytes

    def epoch_of(epoch: int) -> Generator[Count, None, None]:
        for nbytes in threads.map(read, range(len(ranges)), ranges):
            yield Count(nbytes=nbytes, fetched=nbytes)

    def close() -> None:
        threads.shutdown()
        reader.close()

    return Source(epoch_of, close)


def _rank_main(config: dict[str, Any]) -> None:
    setup_logging("WARNING")
    torch.set_num_threads(1)
    side, rank, world = Side(**config["side"]), dist.get_rank(), dist.get_world_size()
    with environment(side.env):
        ranges = _ranges_of(side, rank, world)
        sources = {"gets": replayed(ranges, side.threads or default_threads(side.source)), "stream": rank_stream(side, rank, world)}
        totals = {kind: Total() for kind in sources}
        for kind in _TURNS:
            totals[kind].add_epoch(sources[kind], _EPOCH)
        for source in sources.values():
            source.close()
    measured = {kind: total.over_ranks() for kind, total in totals.items()}
    sums = torch.tensor([len(ranges), sum(each.nbytes for each in ranges)])
    dist.reduce(sums, 0)
    if rank == 0:
        requests, num_bytes = sums.tolist()
        report = {"measured": {kind: asdict(each) for kind, each in measured.items() if each}, "requests": requests, "num_bytes": num_bytes}
        Path(config["report"]).write_text(json.dumps(report))
    dist.barrier()


def _ranges_of(side: Side, rank: int, world: int) -> list[ReadRange]:
    """Read the epoch once; both sides find caches as warm as this leaves them."""
    data = RecordedLines(catalog=side.source, trusted=side.trusted, fraction=side.fraction, mask=R4)
    stream = RayStream(data, seed=0, batch_size=world, rank=rank, world_size=world, config=StreamConfig(threads=side.threads))
    for step in stream.steps(_EPOCH):
        del step
    stream.close()
    return data.ranges


class _NotingReader(RangeReader):
    """Notes what it reads."""

    def __init__(self, ranges: list[ReadRange]) -> None:
        super().__init__()
        self._noted = ranges

    def read_into(self, uri: str, offset: int, *buffers: memoryview, version: str | None = None) -> tuple[int, ...]:
        self._noted.append(ReadRange(uri, offset, sum(buffer.nbytes for buffer in buffers)))
        return super().read_into(uri, offset, *buffers, version=version)
