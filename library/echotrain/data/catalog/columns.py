"""Rows and columns of large tables: taken and told apart without a copy of the table, and without a Python loop over its rows."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["codes_of", "taken"]


def taken(table: pa.Table, positions: NDArray[np.integer], columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows at some positions, in their order.

    ``Table.take`` copies every text of a table that is in many pieces first, to take three of its rows: a fifth of a second for two
    million rows. Here each piece gives its own.

    Args:
        table: In any number of pieces.
        positions: From 0; a row may come more than once.
        columns: Those that are wanted; None takes all.
    """
    chosen = table if columns is None else table.select(list(columns))
    batches = chosen.to_batches()
    if len(batches) < 2 or not len(positions):
        return chosen.take(pa.array(positions, pa.int64()))
    starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
    order = np.argsort(positions, kind="stable")
    ascending = np.asarray(positions)[order]
    piece_of = np.searchsorted(starts, ascending, side="right") - 1
    runs = np.split(np.arange(len(ascending)), np.flatnonzero(np.diff(piece_of)) + 1)
    parts = [batches[piece_of[run[0]]].take(pa.array(ascending[run] - starts[piece_of[run[0]]])) for run in runs]
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return pa.Table.from_batches(parts).combine_chunks().take(pa.array(back))


def codes_of(table: pa.Table, columns: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the combinations of some columns, from 0 in an order that the values alone decide; null is a value too.

    Returns:
        The number of each row, and the position of the first row of each combination.
    """
    codes = np.zeros(table.num_rows, np.int64)
    for column in columns:
        encoded = pc.dictionary_encode(table[column], null_encoding="encode").combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], table[column].type).dictionary_encode()
        ranks = np.empty(len(encoded.dictionary), np.int64)
        ranks[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(ranks))
        own = ranks[encoded.indices.to_numpy(zero_copy_only=False)]
        # Numbered anew after each column, so that no product of many columns runs over.
        codes = np.unique(codes * max(1, len(ranks)) + own, return_inverse=True)[1]
    firsts = np.unique(codes, return_index=True)[1]
    return codes, firsts
