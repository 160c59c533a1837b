"""An epoch's order in which the frames of a slice come one after the other, so that what they have in common is read once.

Slices are shuffled, and their frames kept in order, all of a slice in one lane. As many lanes run side by side as a step has samples: each
step takes one sample from each, of different slices, and a rank, which takes neighbouring lanes, reads the frames of its own lanes alone.
All of it is a function of the selection, the seed, the epoch and the batch size, never of the ranks.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from echotrain.data.plan.order import Indices, epoch_order

__all__ = ["Groups", "consecutive_order", "group_rows", "num_lanes"]

# Where a lane ends within a slice, up to a window of frames is read twice: little, beside so many slices in a lane.
_SLICES_PER_LANE = 16


class Groups(NamedTuple):
    """Rows that are planned together.

    Attributes:
        rows: Positions of the rows, group by group, in the order in which they are to come.
        starts: Where in ``rows`` each group begins, and the end of the last.
    """

    rows: Indices
    starts: Indices

    @property
    def sizes(self) -> Indices:
        """Rows of each group."""
        return np.diff(self.starts)


def group_rows(codes: NDArray[np.int64], places: NDArray[np.int64]) -> Groups:
    """Return rows in groups.

    Args:
        codes: The group of each row, counted from 0 without a gap.
        places: What the rows of a group are ordered by.
    """
    return Groups(np.lexsort((places, codes)), np.concatenate([[0], np.cumsum(np.bincount(codes))]))


def consecutive_order(groups: Groups, seed: int, epoch: int, *, batch_size: int, weights: NDArray[np.float64] | None = None) -> Indices:
    """Return the order of an epoch: positions of the selection, as many as it has.

    Args:
        groups: Of the selection.
        seed: The run's seed.
        epoch: Each has its own order.
        batch_size: Samples of a step over all ranks.
        weights: Relative frequency of each row. None takes every row exactly once. With weights a group comes as a whole, as often as the
            mean of its rows says, rounded up or down; a group is dropped or comes once more where sizes do not add up to an epoch.

    Raises:
        ConfigError: As ``epoch_order``.
    """
    num_rows = len(groups.rows)
    of_groups = None
    if weights is not None:
        of_groups = np.add.reduceat(weights[groups.rows], groups.starts[:-1]) / groups.sizes
    chosen = epoch_order(len(groups.sizes), seed, epoch, of_groups)
    sizes = groups.sizes[chosen]
    ends = np.cumsum(sizes)
    # The k-th row of a chosen group, one group after the other.
    sequence = groups.rows[np.repeat(groups.starts[chosen] - (ends - sizes), sizes) + np.arange(ends[-1])]
    return np.resize(sequence, num_rows)[_interleaved(num_rows, num_lanes(len(groups.sizes), batch_size), batch_size)]


def num_lanes(num_groups: int, batch_size: int) -> int:
    """Return how many lanes run side by side: the batch size, or of a short epoch a part of it that keeps lanes long."""
    return max(
        lanes for lanes in range(1, batch_size + 1) if batch_size % lanes == 0 and (lanes == 1 or num_groups >= lanes * _SLICES_PER_LANE)
    )


def _interleaved(num_rows: int, lanes: int, batch_size: int) -> Indices:
    """Return the positions of a sequence in an order whose steps take ``batch_size / lanes`` neighbours from each of its ``lanes`` pieces.

    The last step, where it is short, takes its places from the first lanes on, which are longer for it.
    """
    each = batch_size // lanes
    full, rest = divmod(num_rows, batch_size)
    lengths = full * each + np.clip(rest - each * np.arange(lanes), 0, each)
    starts = np.cumsum(lengths) - lengths
    whole = starts[None, :, None] + np.arange(full * each).reshape(full, 1, each)
    last = (starts[:, None] + full * each + np.arange(each)).reshape(-1)[:rest]
    return np.concatenate([whole.reshape(-1), last])
