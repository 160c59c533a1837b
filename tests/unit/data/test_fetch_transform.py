"""What batches become is made in the fetcher's threads, beside further reads, and before anybody is given them."""

import dataclasses
import itertools
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch

from echotrain.data.config import StreamConfig
from echotrain.data.fetch import Fetcher
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.samples.sample_format import StepRows
from echotrain.errors import PayloadError
from tests.catalogs import Written, write_catalog

# Of whatever these tests wait for; much longer than it takes.
LONG_S = 30


class Transformed:
    """Makes the batches of line-masked slices, and calls something on each that is filled; a read may be watched as well."""

    def __init__(self, reading, transform, watch) -> None:
        self._inner = LinesData().make_format(seed=0)(reading)
        self._transform, self._watch = transform, watch

    def memory_nbytes(self, rows) -> int:
        return self._inner.memory_nbytes(rows)

    def begin(self, step, *, epoch):
        return [
            dataclasses.replace(each, transform=self._transform, reads=[self._watched(read, each.batch) for read in each.reads])
            for each in self._inner.begin(step, epoch=epoch)
        ]

    def _watched(self, read, batch):
        def watched() -> int:
            num_bytes = read()
            self._watch(batch)
            return num_bytes

        return watched


def fetched(written: Written, transform, *, rows_of=None, per_step=1, watch=lambda batch: None, **config):
    rows = rows_of or written.catalog.rows()
    steps = [StepRows(rows[start : start + per_step], [1.0] * per_step, per_step) for start in range(0, len(rows), per_step)]
    fetcher = Fetcher(
        written.catalog, lambda reading: Transformed(reading, transform, watch), config=StreamConfig(**{"threads": 3, **config})
    )
    return fetcher, fetcher.fetch(steps, epoch=0)


def doubled(batch):
    return dataclasses.replace(batch, target=2 * batch.target)


def test_every_batch_is_what_it_was_made_in_the_order_of_the_plan(tmp_path: Path) -> None:
    written = write_catalog(tmp_path, shapes=((4, 24, 20), (3, 24, 28)))
    fetcher, steps = fetched(written, doubled, per_step=6)
    seen = []
    for step in steps:
        assert len(step.batches) == 2
        for batch in step.batches:
            seen += batch.ids
            for index, sample in enumerate(batch.ids):
                assert torch.equal(batch.target[index], 2 * torch.from_numpy(written.target[sample.volume, sample.slice]))
    assert sorted(seen) == sorted(row.id for row in written.catalog.rows())
    fetcher.close()


def test_it_is_made_once_by_a_thread_of_the_fetcher_when_all_reads_are_done(tmp_path: Path) -> None:
    written = write_catalog(tmp_path, slices=6)
    num_read: dict[tuple, int] = {}
    made: list[tuple[str, int]] = []
    lock = threading.Lock()

    def watch(batch) -> None:
        with lock:
            num_read[batch.ids] = num_read.get(batch.ids, 0) + 1

    def transform(batch):
        made.append((threading.current_thread().name, num_read[batch.ids]))
        return batch

    fetcher, steps = fetched(written, transform, per_step=6, watch=watch, threads=5)
    assert len(list(steps)) == len(made) == 6
    assert all(name.startswith("echotrain-fetch") for name, _ in made)
    assert {count for _, count in made} == {6}
    fetcher.close()


def test_several_are_made_at_once_while_later_ones_are_read(tmp_path: Path) -> None:
    written = write_catalog(tmp_path)
    together, read = threading.Barrier(2), threading.Event()
    reads, transforms = itertools.count(1), itertools.count(1)

    def watch(batch) -> None:
        if next(reads) > 10:
            read.set()

    def transform(batch):
        # The first two meet, and see others read by the third thread.
        if next(transforms) <= 2:
            together.wait(LONG_S)
            assert read.wait(LONG_S)
        return batch

    fetcher, steps = fetched(written, transform, watch=watch)
    assert len(list(steps)) == 18
    fetcher.close()


def test_an_error_comes_out_of_the_step_that_it_is_of(tmp_path: Path) -> None:
    written = write_catalog(tmp_path)
    bad = written.catalog.rows()[4].id

    def transform(batch):
        if bad in batch.ids:
            raise PayloadError(str(bad), "cannot be made", "Leave it out.")
        return batch

    fetcher, steps = fetched(written, transform)
    for _ in range(4):
        next(steps)
    with pytest.raises(PayloadError, match="cannot be made"):
        next(steps)
    fetcher.close()


def test_of_a_batch_that_lacks_a_read_nothing_is_made_and_the_error_is_that_reads(tmp_path: Path) -> None:
    written = write_catalog(tmp_path, max_shard_bytes=1 << 30)
    row = written.catalog.rows()[1]
    data = bytearray((tmp_path / row.uri).read_bytes())
    data[row.offset] ^= 1
    (tmp_path / row.uri).write_bytes(data)
    made = []
    fetcher, steps = fetched(written, lambda batch: made.append(batch.ids) or batch, per_step=3)
    with pytest.raises(PayloadError, match="checksum"):
        next(steps)
    fetcher.close()
    assert row.id not in [sample for ids in made for sample in ids]


def test_an_abandoned_stream_makes_no_more_than_it_began(tmp_path: Path) -> None:
    written = write_catalog(tmp_path)
    go_on, begun, made = threading.Event(), threading.Event(), []

    def watch(batch) -> None:
        if batch.ids[0] != written.catalog.rows()[0].id:
            begun.set()
            go_on.wait(LONG_S)

    fetcher, steps = fetched(written, lambda batch: made.append(batch.ids) or batch, watch=watch)
    next(steps)
    assert begun.wait(LONG_S)
    steps.close()
    go_on.set()
    fetcher.close()
    assert len(made) == 1


def test_what_was_read_is_let_go_of_while_what_was_made_of_it_still_waits(tmp_path: Path) -> None:
    written, made = write_catalog(tmp_path), []

    def transform(batch):
        made.append(weakref.ref(batch.kspace))
        return dataclasses.replace(batch, kspace=batch.kspace[:, :1].clone())

    fetcher, steps = fetched(written, transform, prefetch_steps=6)
    first, until = next(steps), time.monotonic() + LONG_S
    while (len(made) < 7 or any(kspace() is not None for kspace in made)) and time.monotonic() < until:
        time.sleep(0.01)
    assert [kspace() for kspace in made] == [None] * 7
    assert first.batches[0].kspace.shape[1] == 1
    fetcher.close()
