"""The far end of ``stream.where=cluster``: samples made of planned steps in a task, and the form in which both go through Ray Data."""

import contextlib
import dataclasses
import itertools
import json
import logging
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from echotrain.config import to_dict
from echotrain.data.catalog.identity import SampleId
from echotrain.data.catalog.store import load_catalog
from echotrain.data.config import StreamConfig
from echotrain.data.fetch import Fetcher
from echotrain.data.planned import StepPlan
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.data_config import DataConfig
from echotrain.data.samples.sample_format import StepRows
from echotrain.data.samples.slots import SlotPool
from echotrain.data.samples.wire import pack, packed_nbytes, unpack
from echotrain.data.stream import StepData
from echotrain.errors import CatalogError, EchotrainError, TrainingError
from echotrain.log import setup_logging
from echotrain.orchestration.runtime.cluster import DriverEnvironment
from echotrain.orchestration.runtime.error_text import as_text, restored
from echotrain.orchestration.runtime.notes import Attempts

__all__ = ["Piece", "Recipe", "bodies", "make_samples", "piece_table", "steps_made"]

logger = logging.getLogger(__name__)

# Recipes that a process keeps what it works with for.
_MOST_MAKERS = 4


class Piece(NamedTuple):
    """Steps of one epoch that one task makes.

    Attributes:
        number: In the order in which they are made.
        epoch: Of training.
        steps: In order.
        ids: Of each step's samples.
    """

    number: int
    epoch: int
    steps: list[StepPlan]
    ids: list[tuple[SampleId, ...]]


def piece_table(piece: Piece) -> pa.Table:
    """Return a piece as it travels: a row for each sample."""
    counts = [len(step.positions) for step in piece.steps]
    return pa.table(
        {
            "number": np.full(sum(counts), piece.number),
            "epoch": np.full(sum(counts), piece.epoch),
            "step": np.repeat(np.arange(len(counts)), counts),
            "num_global_samples": np.repeat([step.num_global_samples for step in piece.steps], counts),
            "position": np.concatenate([step.positions for step in piece.steps]),
            "weight": np.concatenate([step.weights for step in piece.steps]),
        }
    )


class Recipe(NamedTuple):
    """What samples are made by.

    Attributes:
        data: Catalog and kind of sample.
        seed: The run's.
        config: Threads, prefetch, retries.
        environment: The driver's settings of storage.
        checksum: Of the catalog that the plan is of.
        attempts: Of each piece.
    """

    data: DataConfig
    seed: int
    config: StreamConfig
    environment: DriverEnvironment
    checksum: int
    attempts: Attempts


def make_samples(table: pa.Table, recipe: Recipe) -> pa.Table:
    """Return the steps of one piece: a row for each batch, or one with the error that came of it.

    A process that has made samples by a recipe keeps its catalog, connections and memory for the next piece.
    """
    number = table["number"][0].as_py()
    try:
        recipe.attempts.begin(number, f"piece {number} of the samples", "Where memory ran out, lower stream.makers")
        return _made_table(list(_maker(recipe).make(table)))
    except EchotrainError as error:  # Raised, it would be wrapped in a traceback.
        return _made_table([], as_text(error))
    except Exception as error:
        logger.exception("samples could not be made")
        remedy = "See the trace in its log; with stream.where=rank it is raised in the training process, where a debugger finds it."
        return _made_table([], as_text(TrainingError("a process that makes samples", f"raised {type(error).__name__}: {error}", remedy)))


_makers: dict[str, "_Maker"] = {}


def _maker(recipe: Recipe) -> "_Maker":
    """Return this process's maker by a recipe; it keeps those of a few, as the trials of a sweep take turns."""
    key = json.dumps([to_dict(recipe.data), recipe.seed, to_dict(recipe.config), recipe.environment.digest(), recipe.checksum])
    maker = _makers.pop(key, None)
    if maker is None:
        while len(_makers) >= _MOST_MAKERS:
            _makers.pop(next(iter(_makers))).close()
        setup_logging("WARNING")
        maker = _Maker(recipe)
    # Last is what was asked for last.
    _makers[key] = maker
    return maker


class _Maker:
    """Makes samples of pieces."""

    def __init__(self, recipe: Recipe) -> None:
        recipe.environment.apply()
        data = recipe.data
        self._catalog = load_catalog(data.catalog, trusted=data.trusted)
        if self._catalog.checksum != recipe.checksum:
            remedy = "Give the command again, and never write a catalog in the place of another."
            raise CatalogError(
                f"{data.catalog}@{self._catalog.version}", "is another where samples are made than where they are planned", remedy
            )
        # What is made here is copied on its way; memory that a GPU reads from is the rank's.
        config = dataclasses.replace(recipe.config, pin_memory=False)
        self._fetcher: Fetcher[Any] = Fetcher(self._catalog, data.make_format(seed=recipe.seed), config=config)

    def make(self, table: pa.Table) -> Iterator[StepData[Any]]:
        rows, weights = self._catalog.rows(table["position"].to_numpy()), table["weight"].to_pylist()
        _, starts = np.unique(table["step"].to_numpy(), return_index=True)
        bounds = [*starts.tolist(), len(rows)]
        counts = table["num_global_samples"].to_numpy()[starts].tolist()
        steps = (
            StepRows(rows[start:stop], weights[start:stop], count) for start, stop, count in zip(bounds, bounds[1:], counts, strict=False)
        )
        return self._fetcher.fetch(steps, epoch=table["epoch"][0].as_py())

    def close(self) -> None:
        self._fetcher.close()


def _made_table(steps: Sequence[StepData[Any]], error: str = "") -> pa.Table:
    """Return steps as they travel: every body in one buffer, which no reader needs to copy."""
    if error:
        return pa.table({"error": [error], "about": [""], "head": [""], "body": pa.array([b""], pa.large_binary())})
    batches = [(step, number, batch) for step in steps for number, batch in enumerate(step.batches)]
    ends = np.cumsum([0, *(packed_nbytes(batch) for _, _, batch in batches)])
    memory = np.empty(ends[-1], np.uint8)
    heads = [pack(batch, memory[start:end]) for (_, _, batch), start, end in zip(batches, ends, ends[1:], strict=False)]
    abouts = [
        json.dumps({"left": len(step.batches) - number - 1, "samples": step.num_global_samples, "nbytes": step.num_bytes})
        for step, number, _ in batches
    ]
    buffers = [None, pa.py_buffer(ends.astype(np.int64)), pa.py_buffer(memory)]
    bodies = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(batches), buffers)
    return pa.table({"error": [""] * len(batches), "about": abouts, "head": heads, "body": bodies})


def steps_made(tables: Generator[pa.Table], kind: type[Batch], pool: SlotPool) -> Generator[StepData[Any]]:
    """Yield the steps of what makers return, in order; what is in them is in memory of the pool.

    Raises:
        EchotrainError: As a maker raised it.
    """
    batches: list[Batch] = []
    with contextlib.closing(tables):
        for table in tables:
            errors, abouts, heads = (table[name].to_pylist() for name in ("error", "about", "head"))
            for error, about, head, body in zip(errors, abouts, heads, bodies(table), strict=True):
                if error:
                    raise restored(error)
                batches.append(unpack(head, body, kind, pool))
                told = json.loads(about)
                if not told["left"]:
                    yield StepData(batches=batches, num_global_samples=told["samples"], wait_s=0.0, num_bytes=told["nbytes"])
                    batches = []


def bodies(table: pa.Table) -> Iterator[NDArray[np.uint8]]:
    """Yield the bodies where they lie, as memory that is not to be written to: asked for its items, Arrow would copy each."""
    for chunk in table["body"].chunks:
        _, ends, memory = chunk.buffers()
        bounds = np.frombuffer(ends, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        where = np.frombuffer(memory, np.uint8)
        yield from (where[start:end] for start, end in itertools.pairwise(bounds))
