"""What goes to makers of samples and what comes back, without Ray: each step once, by its own recipe, and no more than may wait."""

import collections
import dataclasses
import math
import os
import shutil
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from echotrain.data.catalog.store import load_catalog
from echotrain.data.config import StreamConfig
from echotrain.data.planned import PlannedStream, StepPlan
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.kspace_kt import KtData
from echotrain.data.samples.kspace_lines import LinesBatch, LinesData
from echotrain.data.samples.slots import SlotPool
from echotrain.data.stream import StepData
from echotrain.errors import CatalogError, PayloadError, ResourceError, TrainingError
from echotrain.orchestration.runtime import cluster_stream, sample_maker, waiting
from echotrain.orchestration.runtime.capacity import Capacity, Node
from echotrain.orchestration.runtime.cluster import DriverEnvironment
from echotrain.orchestration.runtime.cluster_stream import ClusterStream
from echotrain.orchestration.runtime.notes import Attempts
from echotrain.orchestration.runtime.sample_maker import Piece, Recipe, bodies, make_samples, piece_table, steps_made
from echotrain.physics.masks import MaskConfig
from echotrain.worker_groups import PublishedGroups
from tests.catalogs import write_catalog
from tests.frame_catalogs import write_frames


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lines")
    write_catalog(folder, volumes=5, shapes=((3, 24, 20), (5, 18, 14)))
    return LinesData(catalog=str(folder), mask=MaskConfig(kind="random"))


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    write_frames(folder, volumes=3)
    return KtData(catalog=str(folder), num_adjacent=3)


class Counted:
    """Notes without an actor."""

    def __init__(self):
        self.times = collections.Counter()

    def count(self, key, number):
        self.times[key, number] += 1
        return self.times[key, number]


def recipe(data, seed=0, environment=None, checksum=None, **config):
    checksum = load_catalog(data.catalog).checksum if checksum is None else checksum
    return Recipe(
        data,
        seed,
        StreamConfig(where="cluster", threads=2, **config),
        DriverEnvironment(environment or {}),
        checksum,
        Attempts(Counted(), "pieces", 99),
    )


def made(data, seed, epoch):
    """Return the steps of an epoch as this process makes them for others."""
    stream = ClusterStream(data, seed=seed, batch_size=2, epochs=epoch + 1)
    tables = (make_samples(piece_table(piece), recipe(data, seed)) for piece in stream._left_from(epoch, 0))
    steps = list(steps_made(tables, data.batch, SlotPool()))
    stream.close()
    return steps


def test_a_process_that_makes_samples_for_several_runs_mixes_nothing_up(lines):
    # More recipes than a process keeps, in turns: other seeds, other masks, other epochs of one catalog.
    other = dataclasses.replace(lines, mask=MaskConfig(kind="random", accelerations=(2,)))
    runs = [(data, seed, epoch) for epoch in (0, 1) for data in (lines, other) for seed in (0, 1, 2)]
    assert len({(id(data), seed) for data, seed, _ in runs}) > sample_maker._MOST_MAKERS
    for data, seed, epoch in runs:
        stream = PlannedStream(data, seed=seed, batch_size=2)
        expected = list(stream.steps(epoch))
        found = made(data, seed, epoch)
        assert len(found) == len(expected)
        for one, two in zip(found, expected, strict=True):
            assert one.num_global_samples == two.num_global_samples
            for mine, theirs in zip(one.batches, two.batches, strict=True):
                assert (mine.ids, mine.roots) == (theirs.ids, theirs.roots)
                assert torch.equal(mine.mask, theirs.mask)
                assert torch.equal(mine.kspace, theirs.kspace)
        stream.close()
    assert len(sample_maker._makers) == sample_maker._MOST_MAKERS


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(epoch=st.integers(0, 3), first=st.integers(0, 4), makers=st.integers(0, 9), rank=st.integers(0, 2), mb=st.sampled_from([1e-9, 64.0]))
@pytest.mark.parametrize("kind", ["lines", "frames"])
def test_pieces_are_the_rest_of_the_run_each_step_once_and_in_order(request, monkeypatch, kind, epoch, first, makers, rank, mb):
    monkeypatch.setattr(cluster_stream, "_MOST_BYTES", mb * 1e6)
    data, place = request.getfixturevalue(kind), {"seed": 1, "batch_size": 4, "rank": rank, "world_size": 3}
    stream = ClusterStream(data, epochs=4, config=StreamConfig(makers=makers), **place)
    pieces = list(stream._left_from(epoch, first))
    expected = [(each, step) for each in range(epoch, 4) for step in stream.plan(each, first if each == epoch else 0)]
    found = [(piece.epoch, step) for piece in pieces for step in piece.steps]
    assert len(found) == len(expected)
    for (one, mine), (two, theirs) in zip(found, expected, strict=True):
        assert one == two
        assert mine.positions.tolist() == theirs.positions.tolist()
        assert mine.weights.tolist() == theirs.weights.tolist()
        assert mine.num_global_samples == theirs.num_global_samples
    assert [piece.number for piece in pieces] == list(range(len(pieces)))
    assert all(len(piece.steps) == 1 for piece in pieces[:4])
    assert max((len(piece.steps) for piece in pieces), default=0) <= (1 if mb < 1 else cluster_stream._MOST_STEPS)
    stream.close()


def first_piece(data):
    stream = PlannedStream(data, seed=0, batch_size=2)
    piece = Piece(0, 0, [next(iter(stream.plan(0)))], [()])
    stream.close()
    return piece


def made_of_first(data, by):
    """Return the first step as a maker makes it."""
    return next(steps_made((make_samples(piece_table(first_piece(data)), each) for each in [by]), data.batch, SlotPool()))


def test_a_maker_that_is_kept_takes_settings_of_storage_that_have_changed(lines, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of the test")  # Which takes back what makers set.
    seen = []
    for token in ("first", "second"):
        made_of_first(lines, recipe(lines, environment={"AWS_SESSION_TOKEN": token}))
        seen.append(os.environ["AWS_SESSION_TOKEN"])
    assert seen == ["first", "second"]


def test_a_catalog_that_was_written_in_the_place_of_another_is_told(tmp_path):
    data = LinesData(catalog=str(tmp_path / "data"))
    write_catalog(tmp_path / "data", volumes=5)
    planned = recipe(data)
    made_of_first(data, planned)
    shutil.rmtree(tmp_path / "data")
    write_catalog(tmp_path / "data", volumes=4)
    assert load_catalog(data.catalog).version == 1
    # Another rank's maker, which had it before, is not taken for one of this.
    with pytest.raises(CatalogError, match="data@1: is another where samples are made than where they are planned"):
        made_of_first(data, planned._replace(seed=1))
    made_of_first(data, recipe(data))


def test_what_code_raises_is_told_as_it_was_and_logged(lines, monkeypatch):
    traced = []
    monkeypatch.setattr(sample_maker.logger, "exception", traced.append)
    monkeypatch.setattr(sample_maker._Maker, "make", lambda self, table: {}["fov"])
    with pytest.raises(TrainingError, match=r"raised KeyError: 'fov'.*stream\.where=rank"):
        made_of_first(lines, recipe(lines))
    assert traced == ["samples could not be made"]


def test_a_piece_whose_process_dies_each_time_is_begun_so_often_and_no_more(lines, monkeypatch):
    by = recipe(lines)._replace(attempts=Attempts(Counted(), "pieces", 2))
    for _ in range(2):
        made_of_first(lines, by)
    with pytest.raises(ResourceError, match=r"piece 0 of the samples: was begun 2 times, and its process died each time"):
        made_of_first(lines, by)


def test_no_maker_fills_memory_that_only_a_gpu_needs(lines):
    assert not made_of_first(lines, recipe(lines, pin_memory=True)).batches[0].weight.is_pinned()


@pytest.mark.parametrize("kind", ["lines", "frames"])
def test_steps_are_taken_for_no_others(request, kind):
    data = request.getfixturevalue(kind)
    stream = ClusterStream(data, seed=0, batch_size=2, epochs=1)
    planned = [
        (ids, step.num_global_samples) for piece in stream._left_from(0, 0) for ids, step in zip(piece.ids, piece.steps, strict=True)
    ]
    steps = list(PlannedStream(data, seed=0, batch_size=2).steps(0))
    assert list(cluster_stream._as_planned((step for step in steps), collections.deque(planned))) == steps
    swapped = [steps[1], steps[0], *steps[2:]]
    fewer = [dataclasses.replace(steps[0], num_global_samples=1), *steps[1:]]
    for wrong in (swapped, fewer):
        with pytest.raises(TrainingError, match="came in the place of"):
            list(cluster_stream._as_planned((step for step in wrong), collections.deque(planned)))
    stream.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(num=st.integers(0, 400), makers=st.integers(0, 9), most=st.integers(1, 90))
def test_parts_of_the_plan_are_the_whole_of_it_in_order_and_never_large(monkeypatch, lines, num, makers, most):
    parts = []

    def executed(part, by, share):
        parts.append(len(part))
        yield from part

    monkeypatch.setattr(cluster_stream, "_executed", executed)
    monkeypatch.setattr(cluster_stream, "_MOST_PIECES", most)
    step = StepPlan(np.zeros(1, np.int64), np.ones(1, np.float32), 1)
    pieces = (Piece(number, 0, [step], [()]) for number in range(num))
    tables = cluster_stream._made(pieces, recipe(lines, checksum=1, makers=makers), share=1.0)
    assert [table["number"][0].as_py() for table in tables] == list(range(num))
    assert sum(parts) == num
    assert max(parts, default=0) < most + cluster_stream._GROWTH


def test_an_error_comes_in_the_place_of_its_piece(lines):
    broken = dataclasses.replace(lines, catalog="/nowhere")
    piece = first_piece(lines)
    tables = iter([make_samples(piece_table(piece), recipe(lines)), make_samples(piece_table(piece), recipe(broken, checksum=1))])
    steps = steps_made((table for table in tables), LinesBatch, SlotPool())
    assert sum(len(batch.ids) for batch in next(steps).batches) == 2
    with pytest.raises(CatalogError, match="/nowhere"):
        list(steps)


def steps_of(num, taken, error=None):
    """Yield steps of 64 bytes, noting how many were asked for."""
    for number in range(num):
        taken.append(number)
        batch = Batch(weight=torch.zeros(16), ids=(), roots=())
        yield StepData(batches=[batch], num_global_samples=number, wait_s=0.0, num_bytes=0)
    if error is not None:
        raise error


def settled(taken):
    """Return how many steps were taken from the source once it is asked for none any more."""
    before = -1
    while before != len(taken):
        before = len(taken)
        time.sleep(0.05)
    return before


def never(waited_s):
    raise AssertionError(f"a step was waited for {waited_s} s")


@pytest.mark.parametrize(
    ("config", "most"), [({"prefetch_steps": 3}, 3), ({"prefetch_mb": 128e-6}, 2), ({"prefetch_mb": 127e-6}, 1), ({"prefetch_mb": 1e-6}, 1)]
)
def test_no_more_waits_than_is_allowed_whoever_takes_slowly(config, most):
    taken = []
    making = cluster_stream._Making(steps_of(50, taken), StreamConfig(**config))
    for number in range(10):
        assert settled(taken) == number + most
        assert making.take(never).num_global_samples == number
    making.close()
    assert settled(taken) < 50


def test_an_error_is_raised_after_the_steps_before_it_and_at_every_take_after_it():
    making = cluster_stream._Making(steps_of(3, [], PayloadError("a shard", "is damaged", "Restore it.")), StreamConfig())
    assert [making.take(never).num_global_samples for _ in range(3)] == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(PayloadError, match="is damaged"):
            making.take(never)
    making.close()


def test_a_step_that_does_not_come_is_looked_after_and_the_wait_ends_as_whoever_looks_says(monkeypatch):
    monkeypatch.setattr(cluster_stream, "_LOOK_EVERY_S", 0.01)
    is_over, waits = threading.Event(), []

    def steps():
        is_over.wait()
        yield from steps_of(1, [])

    def look(waited_s):
        waits.append(waited_s)
        if len(waits) == 3:
            raise ResourceError("1 worker", "waits for nodes", "Ask.")
        if len(waits) == 5:
            is_over.set()

    making = cluster_stream._Making(steps(), StreamConfig())
    with pytest.raises(ResourceError, match="waits for nodes"):
        making.take(look)
    assert 0 < waits[0] < waits[1] < waits[2]
    assert making.take(look).wait_s > 0
    making.close()


def test_samples_that_do_not_come_are_told_of_each_minute_and_those_that_no_node_can_make_are_not_waited_for(monkeypatch):
    rooms, told = [Capacity(nodes=(Node(cpus=2, group="data"), Node(cpus=8)))], []
    monkeypatch.setattr(waiting, "capacity", lambda: rooms[0])
    monkeypatch.setattr(waiting, "published_groups", lambda: PublishedGroups(groups=(), node_timeout_s=5))
    wait = cluster_stream._SampleWait(StreamConfig(group="data", cpus_per_maker=2), told.append)
    for waited_s in (1, 30, 59, 61, 100, 119, 122):
        wait(waited_s)
    assert [text[:31] for text in told] == ["no sample has come for 61 s: th", "no sample has come for 122 s: t"]
    rooms[0] = Capacity(nodes=(Node(cpus=1, group="data"), Node(cpus=8)))
    with pytest.raises(ResourceError, match=r"more than the 0 that fit: the cluster has 1 CPU .*Set stream\.where=rank"):
        wait(123)


def test_what_lies_in_the_object_store_is_bounded_by_the_ranks_share_of_it():
    config = StreamConfig(makers=6, prefetch_mb=100)
    assert cluster_stream._store_limit(config, math.inf) == 100e6 + 6 * 128e6
    assert cluster_stream._store_limit(config, 300e6) == 300e6
    # One piece always may.
    assert cluster_stream._store_limit(config, 1.0) == 128e6


def test_bodies_of_a_piece_lie_in_one_buffer_that_is_read_where_it_lies(lines):
    stream = ClusterStream(lines, seed=0, batch_size=4, epochs=1)
    steps = list(stream.plan(0))[:2]
    table = make_samples(piece_table(Piece(0, 0, steps, [()] * len(steps))), recipe(lines))
    (chunk,) = table["body"].chunks
    found = list(bodies(table))
    assert [body.tobytes() for body in found] == [value.as_py() for value in table["body"]]
    assert len(found) >= 2
    begin = chunk.buffers()[2].address
    assert [body.ctypes.data - begin for body in found] == np.cumsum([0, *map(len, found[:-1])]).tolist()
    # Ray Data may hand a block over in parts.
    assert [body.tobytes() for body in bodies(table.slice(1))] == [body.tobytes() for body in found[1:]]
    stream.close()
