"""Similarity filtering: the training slices that are nearest to some queries.

Source: MosaicMRI (arXiv:2604.11762), 5.6, after Lin et al., "Improving Deep Learning for Accelerated MRI With Data Filtering"
(arXiv:2508.13822): the union of each query's k = 4 nearest neighbours by cosine.
"""

import numpy as np
from numpy.typing import NDArray

from echotrain.errors import ConfigError

__all__ = ["check_neighbors", "nearest_union"]

_BLOCK = 1024


def nearest_union(queries: NDArray[np.float32], pool: NDArray[np.float32], k: int = 4) -> NDArray[np.int64]:
    """Return the positions in the pool of every query's k nearest, each once, in order.

    Of equally near ones the first in the pool counts, so that the choice depends on nothing else.

    Args:
        queries: Vectors of length 1, (queries, features).
        pool: Likewise, (slices, features).
        k: Neighbours of each query.

    Raises:
        ConfigError: k is not between 1 and the size of the pool, or there is no query.
    """
    check_neighbors(k, len(queries), len(pool))
    chosen = np.zeros(len(pool), bool)
    for start in range(0, len(queries), _BLOCK):
        distance = -(queries[start : start + _BLOCK] @ pool.T)
        chosen[np.argsort(distance, axis=1, kind="stable")[:, :k]] = True
    return np.flatnonzero(chosen)


def check_neighbors(k: int, num_queries: int, num_pool: int) -> None:
    """Raise ``ConfigError`` where there are no k neighbours, or nothing to be similar to."""
    if not 1 <= k <= num_pool:
        raise ConfigError(f"k={k}", f"must lie between 1 and the {num_pool} slices to choose from", "The paper's is 4.")
    if not num_queries:
        raise ConfigError("0 queries", "leave nothing to be similar to", "Choose other anatomies or contrasts for the queries.")
