"""What goes to makers of samples and what comes back, without Ray: each step once, by its own recipe, and no more than may wait."""

import dataclasses
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from echotrain.data.config import StreamConfig
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.batch import Batch
from echotrain.data.samples.kspace_kt import KtData
from echotrain.data.samples.kspace_lines import LinesBatch, LinesData
from echotrain.data.samples.slots import SlotPool
from echotrain.data.stream import StepData
from echotrain.errors import CatalogError, PayloadError
from echotrain.orchestration.runtime import cluster_stream, sample_maker
from echotrain.orchestration.runtime.cluster import DriverEnvironment
from echotrain.orchestration.runtime.cluster_stream import ClusterStream
from echotrain.orchestration.runtime.sample_maker import Piece, Recipe, bodies, make_samples, piece_table, steps_made
from echotrain.physics.masks import MaskConfig
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


def recipe(data, seed=0, **config):
    return Recipe(data, seed, StreamConfig(where="cluster", threads=2, **config), DriverEnvironment({}))


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
    assert all(len(piece.steps) == 1 for piece in pieces[:4])
    assert max((len(piece.steps) for piece in pieces), default=0) <= (1 if mb < 1 else cluster_stream._MOST_STEPS)
    stream.close()


def test_an_error_comes_in_the_place_of_its_piece(lines):
    broken = dataclasses.replace(lines, catalog="/nowhere")
    stream = PlannedStream(lines, seed=0, batch_size=2)
    piece = Piece(0, [next(iter(stream.plan(0)))])
    stream.close()
    tables = iter([make_samples(piece_table(piece), recipe(lines)), make_samples(piece_table(piece), recipe(broken))])
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


@pytest.mark.parametrize(("config", "most"), [({"prefetch_steps": 3}, 3), ({"prefetch_mb": 128e-6}, 2)])
def test_no_more_waits_than_is_allowed_whoever_takes_slowly(config, most):
    taken = []
    making = cluster_stream._Making(steps_of(50, taken), StreamConfig(**config))
    for number in range(10):
        assert settled(taken) == number + most
        assert making.take().num_global_samples == number
    making.close()
    assert settled(taken) < 50


def test_an_error_is_raised_after_the_steps_before_it_and_at_every_take_after_it():
    making = cluster_stream._Making(steps_of(3, [], PayloadError("a shard", "is damaged", "Restore it.")), StreamConfig())
    assert [making.take().num_global_samples for _ in range(3)] == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(PayloadError, match="is damaged"):
            making.take()
    making.close()


def test_bodies_of_a_piece_lie_in_one_buffer_that_is_read_where_it_lies(lines):
    stream = ClusterStream(lines, seed=0, batch_size=4, epochs=1)
    steps = list(stream.plan(0))[:2]
    table = make_samples(piece_table(Piece(0, steps)), recipe(lines))
    (chunk,) = table["body"].chunks
    found = list(bodies(table))
    assert [body.tobytes() for body in found] == [value.as_py() for value in table["body"]]
    assert len(found) >= 2
    begin = chunk.buffers()[2].address
    assert [body.ctypes.data - begin for body in found] == np.cumsum([0, *map(len, found[:-1])]).tolist()
    # Ray Data may hand a block over in parts.
    assert [body.tobytes() for body in bodies(table.slice(1))] == [body.tobytes() for body in found[1:]]
    stream.close()
