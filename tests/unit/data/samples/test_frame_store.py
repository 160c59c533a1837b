"""Frames that several threads want: read once, whoever comes first, and once in vain for all who waited."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from echotrain.data.samples.frame_store import FrameStore, StoredFrame
from echotrain.data.samples.slots import SlotPool
from echotrain.errors import PayloadError
from tests.frame_catalogs import write_frames


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    return write_frames(tmp_path_factory.mktemp("row"), volumes=1, slices=1).catalog.rows()[0]


class Reads:
    """A read that lasts until it is let go."""

    def __init__(self, fails=False):
        self.calls, self.fails = 0, fails
        self.begun, self.let_go = threading.Event(), threading.Event()

    def __call__(self, kspace, target):
        self.calls += 1
        self.begun.set()
        assert self.let_go.wait(10)
        if self.fails:
            raise PayloadError("frame", "is gone", "Restore it.")
        kspace[:], target[:] = 7, 9
        return 100


def empty(row):
    return np.zeros((row.coils, row.height, row.width), np.complex64), np.zeros((row.recon_height, row.recon_width), np.float32)


def test_many_threads_share_one_read_and_its_bytes_count_once(row):
    reads = Reads()
    frame = StoredFrame(row, reads, SlotPool())
    places = [empty(row) for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        copies = [threads.submit(frame.copy_to, kspace, [target]) for kspace, target in places]
        assert reads.begun.wait(10)
        reads.let_go.set()
        counted = [copy.result() for copy in copies]
    assert reads.calls == 1
    assert sorted(counted) == [0, 0, 0, 0, 0, 100]
    assert all((kspace == 7).all() and (target == 9).all() for kspace, target in places)


def test_many_threads_share_one_failure(row):
    reads = Reads(fails=True)
    frame = StoredFrame(row, reads, SlotPool())
    with ThreadPoolExecutor(6) as threads:
        copies = [threads.submit(frame.copy_to, empty(row)[0], []) for _ in range(6)]
        assert reads.begun.wait(10)
        reads.let_go.set()
        assert all(isinstance(copy.exception(), PayloadError) for copy in copies)
    assert reads.calls == 1
    assert frame.has_failed


def test_no_memory_is_taken_before_a_frame_is_read(row):
    pool = SlotPool()
    StoredFrame(row, Reads(), pool)
    assert pool.num_allocated == 0


def step(store, keys, row, reads, keep=lambda key: False):
    return store.step(keys, lambda key: StoredFrame(row, reads, SlotPool()), keep)


def test_a_step_takes_over_the_frames_of_the_one_before_and_lets_the_others_go(row):
    store, reads = FrameStore(), Reads()
    one, memory = step(store, "abc", row, reads)
    assert memory == 3 * (3 * 20 * 24 * 8 + 16 * 12 * 4)
    two, memory = step(store, "bcd", row, reads)
    assert (two["b"], two["c"]) == (one["b"], one["c"])
    assert memory == one["a"].nbytes
    three, _ = step(store, "ab", row, reads)
    assert three["b"] is two["b"]
    assert three["a"] is not one["a"]


def test_what_a_step_says_to_keep_is_there_for_a_later_one(row):
    store, reads = FrameStore(), Reads()
    one, _ = step(store, "abc", row, reads)
    step(store, "cd", row, reads, keep=lambda key: key == "a")
    three, _ = step(store, "ab", row, reads)
    assert three["a"] is one["a"]
    assert three["b"] is not one["b"]


def test_a_frame_that_was_read_in_vain_is_made_anew(row):
    store, reads = FrameStore(), Reads(fails=True)
    reads.let_go.set()
    one, _ = step(store, "a", row, reads)
    with pytest.raises(PayloadError):
        one["a"].copy_to(empty(row)[0], [])
    two, memory = step(store, "a", row, reads)
    assert two["a"] is not one["a"]
    assert memory == two["a"].nbytes
