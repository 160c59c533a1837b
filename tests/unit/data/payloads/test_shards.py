"""Shards: closed once they are full, every payload where its columns say, and what goes wrong on the way is told."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.data.payloads.shards import ShardWriter
from echotrain.data.payloads.slices import ALIGNMENT, EncodedSlice, encode_packed
from echotrain.errors import StorageError
from echotrain.storage.local import LocalStore
from tests.scans import random_kspace

NUM_SLICES = 5


class Observed(LocalStore):
    """A folder whose uploads wait until they are let through, or fail."""

    def __init__(self, root, error=None, failing=()):
        super().__init__(root)
        self.gate, self.error, self.failing, self.begun = threading.Event(), error, failing, []

    def upload(self, path, key, *, consume=False):
        self.begun.append(key)
        assert self.gate.wait(10)
        if len(self.begun) in self.failing:
            raise self.error
        super().upload(path, key, consume=consume)


def write(store, slices, *, error=None):
    """Write slices into shards of one each; with an error, raise it at the end of the block."""
    with ShardWriter(store, "shards/a", max_bytes=1) as shards:
        for each in slices:
            shards.add(each)
        if error is not None:
            raise error


def encoded_slices():
    return [encode_packed(kspace, np.abs(kspace[0])) for kspace in random_kspace((NUM_SLICES, 2, 20, 16))]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 10))
def test_a_shard_is_closed_once_it_has_its_bytes_and_payloads_lie_where_they_are_said_to(tmp_path_factory, sizes, most):
    store = LocalStore(tmp_path_factory.mktemp("shards"))
    rows = []
    with ShardWriter(store, "s", max_bytes=most * ALIGNMENT) as shards:
        for number, size in enumerate(sizes):
            data = np.full(size * ALIGNMENT, number, np.uint8)
            columns = {"offset": 0, "nbytes": data.size, "target_offset": ALIGNMENT // 2, "target_nbytes": ALIGNMENT // 2}
            rows.append(shards.add(EncodedSlice(parts=(data,), columns=columns)))
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


@pytest.mark.parametrize("max_bytes", [1, 10_000, 1 << 20])
def test_whatever_fits_into_a_shard_rows_point_at_their_bytes(tmp_path, max_bytes):
    slices, store = encoded_slices(), LocalStore(tmp_path)
    with ShardWriter(store, "shards/a", max_bytes=max_bytes) as shards:
        rows = [shards.add(each) for each in slices]
    for row, each in zip(rows, slices, strict=True):
        content = np.frombuffer(store.read(row["uri"]), np.uint8)
        start = row["offset"] - each.columns["offset"]
        np.testing.assert_array_equal(content[start : start + each.nbytes], each.data)
    assert sum(found.size for found in store.list("shards/")) == sum(each.nbytes for each in slices)


def test_the_next_shard_fills_while_a_full_one_is_on_its_way(tmp_path):
    first, second, *_ = encoded_slices()
    store = Observed(tmp_path)
    with ShardWriter(store, "shards/a", max_bytes=1) as shards:
        shards.add(first)
        assert store.begun == []
        shards.add(second)
        # The upload of the first cannot have ended.
        assert list(store.list("shards/")) == []
        store.gate.set()
    assert store.begun == [found.key for found in store.list("shards/")] == ["shards/a-00000.bin", "shards/a-00001.bin"]


@pytest.mark.parametrize("failing", range(1, NUM_SLICES + 1))
def test_an_upload_that_fails_is_told_before_the_rows_count_as_good(tmp_path, failing):
    store = Observed(tmp_path, StorageError("s3://lab/x", "failed 5 times", "Run again."), failing=[failing])
    store.gate.set()
    with pytest.raises(StorageError, match="failed 5 times"):
        write(store, encoded_slices())
    # Nothing is sent behind it.
    assert len(store.begun) == failing
    assert len(list(store.list("shards/"))) == failing - 1


def test_after_an_error_the_shard_in_work_does_not_appear_and_nothing_is_left_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    store = LocalStore(tmp_path / "to")
    with pytest.raises(ZeroDivisionError):
        write(store, encoded_slices()[:3], error=ZeroDivisionError())
    assert [found.key for found in store.list("shards/")] == ["shards/a-00000.bin", "shards/a-00001.bin"]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_after_an_error_the_upload_under_way_is_waited_for(tmp_path, monkeypatch):
    store = Observed(tmp_path)
    shutdown = ThreadPoolExecutor.shutdown

    def let_through(self, **options):
        store.gate.set()
        shutdown(self, **options)

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", let_through)
    with pytest.raises(ZeroDivisionError):
        write(store, encoded_slices()[:2], error=ZeroDivisionError())
    assert [found.key for found in store.list("shards/")] == ["shards/a-00000.bin"]
