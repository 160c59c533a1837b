"""The stream of a Ray Train worker: Ray Data carries the plan's rows, the payload is fetched where it is used.

What goes through Ray's object store is catalog rows, kilobytes. The k-space itself, gigabytes, is read by the rank that trains on it,
by ranged GETs into recycled memory (``data.fetch``): measured at 96-98% of a network's rate, where the same bytes in tensor columns reach a
third of an ordinary DataLoader.
"""

import logging
from collections.abc import Iterator

import pyarrow as pa
import ray.data

from echotrain.data.config import StreamConfig
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.data_config import DataConfig

__all__ = ["RayStream", "hush_ray_data", "ray_pieces", "settle_ray_data"]

_PREFETCH_PIECES = 2


class RayStream(PlannedStream):
    """One rank's ``Stream`` of a catalog, its rows carried by Ray Data.

    Args:
        data: Catalog, selection and masks.
        seed: The run's seed.
        batch_size: Samples of a step over all ranks.
        rank: Of this worker.
        world_size: Number of workers.
        config: Threads, prefetch, retries.

    Raises:
        CatalogError: There is no such catalog, or the training selection is empty.
    """

    def __init__(
        self, data: DataConfig, *, seed: int, batch_size: int, rank: int = 0, world_size: int = 1, config: StreamConfig | None = None
    ) -> None:
        super().__init__(data, seed=seed, batch_size=batch_size, rank=rank, world_size=world_size, config=config, pieces=ray_pieces)


def ray_pieces(table: pa.Table, num_rows: int) -> Iterator[pa.Table]:
    """Yield a table in pieces of ``num_rows`` rows, in order, through Ray Data."""
    # One block: nothing is there whose order could change, and no task, hence no free CPU, is needed to read it. ``from_arrow``
    # would start one to look at the block, and wait for ever where the trainers hold every CPU.
    dataset = ray.data.from_blocks([table])
    dataset.context.execution_options.preserve_order = True
    dataset.context.enable_progress_bars = False
    hush_ray_data()
    yield from dataset.iterator().iter_batches(batch_size=num_rows, batch_format="pyarrow", prefetch_batches=_PREFETCH_PIECES)


def hush_ray_data() -> None:
    """Have Ray Data say errors alone: an epoch is not news, and the trainer shows its own progress."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def settle_ray_data() -> None:
    """Have what Ray Data leaves where it first ran, actors that outlive every job, live on this node and with the caller.

    On a worker's node they would keep it from ever leaving, whatever it costs. And its actor of statistics leaves with the worker that
    started it: the next one starts it again, and is in the midst of that when a sweep ends, which Ray reports with a stack trace.
    """
    for _ in ray_pieces(pa.table({"row": [0]}), 1):
        pass
