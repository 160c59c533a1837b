"""Shards: closed once they are full, named apart, and every payload where its columns say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.data.payload import ALIGNMENT, EncodedSlice
from echotrain.data.shards import ShardWriter
from echotrain.storage.local import LocalStore


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 10))
def test_a_shard_is_closed_once_it_has_its_bytes_and_payloads_lie_where_they_are_said_to(tmp_path_factory, sizes, most):
    store = LocalStore(tmp_path_factory.mktemp("shards"))
    rows = []
    with ShardWriter(store, "s", max_bytes=most * ALIGNMENT) as shards:
        for number, size in enumerate(sizes):
            data = np.full(size * ALIGNMENT, number, np.uint8)
            columns = {"offset": 0, "nbytes": data.size, "target_offset": ALIGNMENT // 2, "target_nbytes": ALIGNMENT // 2}
            rows.append(shards.add(EncodedSlice(data=data, columns=columns)))
    contents = {info.key: store.read(info.key) for info in store.list()}
    assert list(contents) == [f"s-{number:05d}.bin" for number in range(len(contents))]
    assert b"".join(contents.values()) == b"".join(bytes([number]) * size * ALIGNMENT for number, size in enumerate(sizes))
    for number, (row, size) in enumerate(zip(rows, sizes, strict=True)):
        assert contents[row["uri"]][row["offset"] : row["offset"] + row["nbytes"]] == bytes([number]) * size * ALIGNMENT
        assert (row["target_uri"], row["target_offset"]) == (row["uri"], row["offset"] + ALIGNMENT // 2)
    for content in contents.values():
        last = content[-1]
        assert len(content) - sizes[last] * ALIGNMENT < most * ALIGNMENT, "it was full before its last payload"
    for content in list(contents.values())[:-1]:
        assert len(content) >= most * ALIGNMENT, "it was closed before it was full"


def write_and_fail(store: LocalStore) -> None:
    columns = {"offset": 0, "nbytes": 8, "target_offset": 0, "target_nbytes": 0}
    with ShardWriter(store, "s", max_bytes=ALIGNMENT) as shards:
        for _ in range(3):
            shards.add(EncodedSlice(data=np.zeros(ALIGNMENT, np.uint8), columns=columns))
        raise ZeroDivisionError


def test_a_shard_of_a_block_that_fails_never_appears(tmp_path):
    store = LocalStore(tmp_path)
    with pytest.raises(ZeroDivisionError):
        write_and_fail(store)
    assert [info.key for info in store.list()] == ["s-00000.bin", "s-00001.bin"]
