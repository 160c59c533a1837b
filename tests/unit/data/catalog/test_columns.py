"""Rows and columns of large tables."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.data.catalog.columns import codes_of, taken

SCHEMA = pa.schema([("word", pa.string()), ("number", pa.int32()), ("share", pa.float64())])
WORDS = st.one_of(st.none(), st.sampled_from(["", "a", "b", "ab", "\x1f", "z" * 40]))
ROWS = st.lists(st.tuples(WORDS, st.one_of(st.none(), st.integers(-3, 3)), st.floats(0, 1)), max_size=40)


def table_of(rows, sizes):
    """Return rows as a table in pieces of these sizes, again and again."""
    pieces, start = [], 0
    for size in itertools.cycle(sizes):
        if start >= len(rows):
            break
        pieces.append(pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows[start : start + size]], SCHEMA))
        start += size
    return pa.concat_tables(pieces) if pieces else SCHEMA.empty_table()


@given(rows=ROWS, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_rows_are_taken_as_a_table_in_one_piece_gives_them(rows, sizes, seed):
    table = table_of(rows, sizes)
    positions = np.random.default_rng(seed).integers(0, max(len(rows), 1), 2 * len(rows))
    assert taken(table, positions).to_pylist() == table.combine_chunks().take(pa.array(positions, pa.int64())).to_pylist()
    assert taken(table, positions, ["share", "word"]).to_pylist() == taken(table, positions).select(["share", "word"]).to_pylist()


@given(rows=ROWS, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4))
@pytest.mark.parametrize("columns", [("word",), ("number", "word"), ("word", "number", "word")])
def test_equal_combinations_have_one_number_whatever_the_pieces_and_others_another(rows, sizes, columns):
    table = table_of(rows, sizes)
    codes, firsts = codes_of(table, columns)
    keys = [tuple(row[column] for column in columns) for row in table.to_pylist()]
    assert sorted(set(codes)) == list(range(len(set(keys))))
    assert len({(code, key) for code, key in zip(codes.tolist(), keys, strict=True)}) == len(set(keys))
    assert [keys.index(keys[first]) for first in firsts] == firsts.tolist()
    assert codes[firsts].tolist() == list(range(len(firsts)))
    assert codes_of(table.combine_chunks(), columns)[0].tolist() == codes.tolist()
