"""The epoch plan: which row of the catalog comes when, and on which rank, as pure functions.

Step ``s`` of an epoch is rows ``[s * B, (s + 1) * B)`` of the epoch's order; rank ``r`` of ``W`` takes every ``W``-th of
them, or its share of neighbours where these are read together: which rank has which changes no number. So a resume is an
offset, another world size is another stride, and neither skips a row or takes one twice.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from echotrain.errors import ConfigError
from echotrain.seeding import numpy_generator

__all__ = ["Indices", "RankRows", "epoch_order", "num_global_samples", "num_steps", "rank_rows", "rank_step_rows"]

Indices = NDArray[np.int64]
Weights = NDArray[np.float32]


class RankRows(NamedTuple):
    """What one rank reads.

    Attributes:
        indices: Positions in the selection, in the order of reading.
        weights: 1 for a row that counts, 0 for a filler that keeps the ranks in step.
    """

    indices: Indices
    weights: Weights


def epoch_order(num_rows: int, seed: int, epoch: int, weights: NDArray[np.float64] | None = None) -> Indices:
    """Return the order of an epoch: positions of the selection, ``num_rows`` of them.

    Args:
        num_rows: Size of the selection.
        seed: The run's seed.
        epoch: Each has its own order.
        weights: Relative frequency of each row, for balanced sampling (Moero eq. 10 is one). None takes every row exactly
            once. With weights, a row whose weight is ``w`` times the mean comes ``floor(w)`` or ``ceil(w)`` times (systematic
            sampling), so that the composition of an epoch hardly varies.

    Raises:
        ConfigError: There are no rows, or the weights are of another number, not finite, negative, or all zero.
    """
    if num_rows < 1:
        raise ConfigError(f"num_rows={num_rows}", "must be at least 1", "Select some slices.")
    generator = numpy_generator(seed, "order", epoch)
    if weights is None:
        return generator.permutation(num_rows)
    if len(weights) != num_rows or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
        raise ConfigError(
            f"{len(weights)} weights for {num_rows} rows", "must be one finite, non-negative number per row", "Give each row a weight."
        )
    expected = np.cumsum(weights) * (num_rows / weights.sum())
    expected[-1] = num_rows
    # Rounding keeps equal weights at exactly once each, whatever the phase.
    ticks = np.floor(np.round(expected, 9) + generator.uniform(0, 1 - 1e-6))
    chosen = np.repeat(np.arange(num_rows), np.diff(ticks, prepend=0).astype(np.int64))
    return generator.permutation(chosen)


def num_steps(num_rows: int, batch_size: int) -> int:
    """Return the steps of an epoch; the last one may be short."""
    return -(-num_rows // batch_size)


def num_global_samples(num_rows: int, batch_size: int, step: int) -> int:
    """Return how many rows a step has over all ranks, fillers not counted."""
    return min(batch_size, num_rows - step * batch_size)


def rank_step_rows(order: Indices, step: int, *, batch_size: int, rank: int, world_size: int, as_neighbours: bool = False) -> RankRows:
    """Return one rank's rows of one step.

    A rank that would have none gets the step's first row with weight 0, so that every rank takes part in every step.

    Args:
        order: Of the epoch.
        step: Of the epoch.
        batch_size: Samples of a step over all ranks.
        rank: Of ``world_size``.
        world_size: Number of ranks.
        as_neighbours: Take places that follow each other, the same in every step, instead of every ``world_size``-th; of a short last step
            the ranks with the last places have fewer.

    Raises:
        ConfigError: The step, the rank or a size is out of range.
    """
    _check(order, step, batch_size, rank, world_size)
    rows = order[step * batch_size : (step + 1) * batch_size]
    mine = rows[_places(batch_size, rank, world_size, as_neighbours)]
    if len(mine):
        return RankRows(mine, np.ones(len(mine), np.float32))
    return RankRows(rows[:1], np.zeros(1, np.float32))


def rank_rows(order: Indices, first_step: int, *, batch_size: int, rank: int, world_size: int, as_neighbours: bool = False) -> RankRows:
    """Return one rank's rows of all steps from ``first_step`` on, in order; arguments are those of ``rank_step_rows``.

    Every step but the last has the same number of rows, ``max(1, len(range(rank, batch_size, world_size)))``, so that cutting the result
    into pieces of that length gives the steps again.
    """
    steps = num_steps(len(order), batch_size)
    if first_step >= steps:
        return RankRows(order[:0], np.ones(0, np.float32))
    _check(order, first_step, batch_size, rank, world_size)
    full = len(order) // batch_size
    whole = order[first_step * batch_size : full * batch_size].reshape(-1, batch_size)
    mine = whole[:, _places(batch_size, rank, world_size, as_neighbours)] if rank < batch_size else whole[:, :1]
    counts = np.full(mine.size, rank < batch_size, np.float32)
    parts = [RankRows(mine.reshape(-1), counts)]
    if full < steps:
        parts.append(rank_step_rows(order, full, batch_size=batch_size, rank=rank, world_size=world_size, as_neighbours=as_neighbours))
    return RankRows(np.concatenate([part.indices for part in parts]), np.concatenate([part.weights for part in parts]))


def _places(batch_size: int, rank: int, world_size: int, as_neighbours: bool) -> slice:
    """Return a rank's places among those of a step: as many either way."""
    if not as_neighbours:
        return slice(rank, None, world_size)
    each, more = divmod(batch_size, world_size)
    first = rank * each + min(rank, more)
    return slice(first, first + each + (rank < more))


def _check(order: Indices, step: int, batch_size: int, rank: int, world_size: int) -> None:
    if batch_size < 1 or world_size < 1 or not 0 <= rank < world_size:
        raise ConfigError(
            f"batch_size={batch_size}, rank={rank}, world_size={world_size}",
            "must be positive, and the rank below the world size",
            "Check batch_size and workers.",
        )
    if not 0 <= step < num_steps(len(order), batch_size):
        raise ConfigError(f"step {step}", f"is not one of the epoch's {num_steps(len(order), batch_size)}", "Resume within the epoch.")
