"""The DataLoader that the stream is held against runs as a good user would have it."""

import collections

import numpy as np
import pytest

from echotrain.benchmarks.fastmri_loader import FastmriLoader
from echotrain.benchmarks.throttled import serve_throttled
from tests.scans import object_kspace, write_scan

pytest.importorskip("fastmri", reason="the public implementation is not installed")
# The processes are forked, as PyTorch does it on Linux; that this process has threads is what the warning is about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

NUM_FILES, NUM_SLICES, PASSES = 3, 4, 2


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Return a bucket's scans; a slice of k-space is larger than a block of metadata, a target smaller."""
    folder = tmp_path_factory.mktemp("buckets")
    for number in range(NUM_FILES):
        kspace = object_kspace((NUM_SLICES, 4, 64, 48), seed=number)
        write_scan(folder / "bench" / "scans" / f"file{number}.h5", kspace, attributes={"max": 1.0})
    return folder / "bench" / "scans"


def slices_of(batches):
    return collections.Counter(kspace.numpy().tobytes() for kspace, _ in batches)


def test_ranks_share_the_slices_and_every_epoch_has_each_as_often_in_another_order(scans):
    orders = []
    for rank in range(2):
        with FastmriLoader(scans, rank=rank, world_size=2, num_workers=2, prefetch=2, passes=PASSES) as loader:
            epochs = [[kspace.numpy().tobytes() for kspace, _ in loader.epoch()] for _ in range(2)]
        assert collections.Counter(epochs[0]) == collections.Counter(epochs[1])
        assert set(collections.Counter(epochs[0]).values()) == {PASSES}
        assert epochs[0] != epochs[1]
        orders.append(epochs[0])
    assert set(orders[0]).isdisjoint(orders[1])
    assert len(set(orders[0]) | set(orders[1])) == NUM_FILES * NUM_SLICES


def test_from_a_bucket_it_reads_the_same_and_metadata_once_per_process(scans, monkeypatch):
    with FastmriLoader(scans, rank=0, world_size=1, num_workers=1, prefetch=2) as loader:
        expected = slices_of(loader.epoch())
    with serve_throttled(scans.parent.parent) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        with FastmriLoader(scans, rank=0, world_size=1, num_workers=1, prefetch=2, bucket="bench") as loader:
            assert slices_of(loader.epoch()) == expected
            server.reset()
            assert slices_of(loader.epoch()) == expected
            ranges = server.ranges()
    # In the second epoch only k-space is read, though every slice opens its file anew.
    assert len(ranges) == NUM_FILES * NUM_SLICES
    assert {sent.nbytes for sent in ranges} == {4 * 64 * 48 * 8}


def test_its_processes_stay_from_epoch_to_epoch_and_end_with_it(scans):
    with FastmriLoader(scans, rank=0, world_size=1, num_workers=5, prefetch=1, passes=PASSES) as loader:
        assert sum(1 for _ in loader.epoch(1 / PASSES)) == NUM_FILES * NUM_SLICES
        first = list(loader._processes)
        assert sum(1 for _ in loader.epoch()) == PASSES * NUM_FILES * NUM_SLICES
        assert loader._processes == first
        assert len(set(first)) == 5
        assert loader.cpu_s() > 0
    assert loader.cpu_s() == 0


def test_targets_come_with_their_kspace(scans):
    with FastmriLoader(scans, rank=0, world_size=1, num_workers=1, prefetch=1) as loader:
        for kspace, target in loader.epoch():
            image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace[0].numpy(), axes=(1, 2)), norm="ortho"), axes=(1, 2))
            np.testing.assert_allclose(np.sqrt((np.abs(image) ** 2).sum(0)), target[0].numpy(), rtol=1e-3)
