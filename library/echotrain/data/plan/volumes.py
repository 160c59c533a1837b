"""Held-out rows by whole volumes: what is scored per volume must have each volume on one rank."""

import numpy as np
from numpy.typing import NDArray

from echotrain.data.plan.order import RankRows
from echotrain.errors import ConfigError

__all__ = ["volume_rows"]


def volume_rows(codes: NDArray[np.int64], *, rank: int, world_size: int) -> RankRows:
    """Return the places of one rank's rows: all of every so many volumes, and its last row again, with weight 0, until ranks have as many.

    Args:
        codes: The volume of each row, counted from 0 without a gap.
        rank: Of ``world_size``.
        world_size: Number of ranks.

    Raises:
        ConfigError: There are fewer volumes than ranks.
    """
    num_volumes = int(codes.max()) + 1
    if num_volumes < world_size:
        raise ConfigError(
            f"{num_volumes} held-out volumes for {world_size} ranks",
            "are fewer than one for each: a volume is scored as a whole",
            "Hold more out, or evaluate on fewer ranks.",
        )
    mine = np.flatnonzero(codes % world_size == rank)
    num_fillers = int(np.bincount(codes % world_size).max()) - len(mine)
    rows = np.concatenate([mine, np.repeat(mine[-1:], num_fillers)])
    return RankRows(rows, np.repeat(np.array([1, 0], np.float32), [len(mine), num_fillers]))
