"""Similarity filtering: the training slices that are nearest to some queries.

Source: MosaicMRI (arXiv:2604.11762), 5.6, after Lin et al., "Improving Deep Learning for Accelerated MRI With Data Filtering"
(arXiv:2508.13822): the union of each query's k = 4 nearest neighbours by cosine.
"""

import numpy as np
from numpy.typing import NDArray

from echotrain.errors import ConfigError

__all__ = ["Nearest", "check_neighbors"]

_BLOCK = 1024
_POOL_BLOCK = 8192
_NOBODY = -1


class Nearest:
    """Each query's k nearest of a pool that passes by in pieces, so that nobody needs to hold it.

    Of equally near ones the first that passed counts, so that the choice depends on nothing else. Takes the queries, k numbers for each
    of them, and a block of 1024 x 8192 cosines, whatever the size of the pool.

    Args:
        queries: Vectors of length 1, (queries, features).
        k: Neighbours of each query, at least 1.
    """

    def __init__(self, queries: NDArray[np.float32], k: int) -> None:
        self._queries = queries
        self._cosines = np.full((len(queries), k), -np.inf, np.float32)
        self._labels = np.full((len(queries), k), _NOBODY)
        self.num_seen = 0

    def add(self, vectors: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        """Let a piece of the pool pass.

        Args:
            vectors: Of length 1, (n, features).
            labels: What is chosen with each of them, at least 0, (n,); several may share one.
        """
        self.num_seen += len(vectors)
        for start in range(0, len(vectors), _POOL_BLOCK):
            block = slice(start, start + _POOL_BLOCK)
            for first in range(0, len(self._queries), _BLOCK):
                self._improve(slice(first, first + _BLOCK), vectors[block], labels[block])

    def chosen(self) -> NDArray[np.int64]:
        """Return the labels of all queries' neighbours, each once, in order."""
        return np.unique(self._labels[self._labels != _NOBODY])

    def _improve(self, rows: slice, vectors: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        cosines = self._queries[rows] @ vectors.T
        # Most queries find nobody nearer in a later piece, and sorting takes longer than multiplying.
        improved = np.flatnonzero(cosines.max(axis=1) > self._cosines[rows, -1])
        at = improved + rows.start
        merged = np.concatenate([self._cosines[at], cosines[improved]], axis=1)
        names = np.concatenate([self._labels[at], np.broadcast_to(labels, (len(at), len(labels)))], axis=1)
        order = np.argsort(-merged, axis=1, kind="stable")[:, : self._cosines.shape[1]]
        self._cosines[at] = np.take_along_axis(merged, order, axis=1)
        self._labels[at] = np.take_along_axis(names, order, axis=1)


def check_neighbors(k: int, num_queries: int, num_pool: int, *, what: str = "slices") -> None:
    """Raise ``ConfigError`` where there are no k neighbours, or nothing to be similar to."""
    if not 1 <= k <= num_pool:
        raise ConfigError(f"k={k}", f"must lie between 1 and the {num_pool} {what} to choose from", "The paper's is 4.")
    if not num_queries:
        raise ConfigError(f"0 {what} to ask with", "leave nothing to be similar to", "Choose other anatomies or contrasts for the queries.")
