"""The epoch plan as properties: exactly once, the same everywhere, resumable at any step by any world size."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.data.catalog.rows import SCHEMA
from echotrain.data.catalog.selection import Where, select
from echotrain.data.plan.order import epoch_order, num_global_samples, num_steps, rank_rows, rank_step_rows
from echotrain.errors import ConfigError

sizes = st.integers(1, 200)
batches = st.integers(1, 12)
worlds = st.integers(1, 9)


def counted(rows) -> list[int]:
    return rows.indices[rows.weights > 0].tolist()


@given(sizes, batches, worlds, st.integers(0, 5))
def test_each_row_comes_exactly_once_per_epoch_over_all_ranks(num_rows: int, batch_size: int, world_size: int, epoch: int) -> None:
    order = epoch_order(num_rows, 7, epoch)
    seen = [
        row for rank in range(world_size) for row in counted(rank_rows(order, 0, batch_size=batch_size, rank=rank, world_size=world_size))
    ]
    assert sorted(seen) == list(range(num_rows))


@given(sizes, batches, worlds, worlds, st.data())
def test_a_run_that_resumes_with_another_world_size_sees_the_rest_exactly_once(
    num_rows: int, batch_size: int, before: int, after: int, data: st.DataObject
) -> None:
    order = epoch_order(num_rows, 7, 0)
    stop = data.draw(st.integers(0, num_steps(num_rows, batch_size)))
    seen = []
    for step in range(stop):
        for rank in range(before):
            seen += counted(rank_step_rows(order, step, batch_size=batch_size, rank=rank, world_size=before))
    for rank in range(after):
        seen += counted(rank_rows(order, stop, batch_size=batch_size, rank=rank, world_size=after))
    assert sorted(seen) == list(range(num_rows))


@given(sizes, batches, worlds, st.data())
def test_cutting_a_ranks_rows_gives_its_steps(num_rows: int, batch_size: int, world_size: int, data: st.DataObject) -> None:
    order = epoch_order(num_rows, 1, 3)
    rank = data.draw(st.integers(0, world_size - 1))
    first = data.draw(st.integers(0, num_steps(num_rows, batch_size)))
    whole = rank_rows(order, first, batch_size=batch_size, rank=rank, world_size=world_size)
    per_step = max(1, len(range(rank, batch_size, world_size)))
    for number, step in enumerate(range(first, num_steps(num_rows, batch_size))):
        rows = rank_step_rows(order, step, batch_size=batch_size, rank=rank, world_size=world_size)
        np.testing.assert_array_equal(whole.indices[number * per_step : (number + 1) * per_step], rows.indices)
        np.testing.assert_array_equal(whole.weights[number * per_step : (number + 1) * per_step], rows.weights)
        assert len(rows.indices) >= 1


@given(sizes, batches, worlds)
def test_the_weights_of_all_ranks_sum_to_the_samples_of_the_step(num_rows: int, batch_size: int, world_size: int) -> None:
    order = epoch_order(num_rows, 0, 0)
    for step in range(num_steps(num_rows, batch_size)):
        ranks = [rank_step_rows(order, step, batch_size=batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert sum(float(rows.weights.sum()) for rows in ranks) == num_global_samples(num_rows, batch_size, step)


def test_an_order_depends_on_seed_and_epoch_alone() -> None:
    np.testing.assert_array_equal(epoch_order(50, 3, 4), epoch_order(50, 3, 4))
    assert (epoch_order(50, 3, 4) != epoch_order(50, 3, 5)).any()
    assert (epoch_order(50, 3, 4) != epoch_order(50, 4, 4)).any()


@given(st.integers(1, 300), st.integers(0, 9), st.floats(1e-3, 1e3))
def test_equal_weights_take_every_row_exactly_once(num_rows: int, epoch: int, weight: float) -> None:
    assert sorted(epoch_order(num_rows, 0, epoch, np.full(num_rows, weight)).tolist()) == list(range(num_rows))


@given(st.lists(st.floats(0, 10), min_size=1, max_size=100).filter(lambda w: sum(w) > 0.1), st.integers(0, 9))
def test_a_row_comes_as_often_as_its_weight_says_rounded_up_or_down(weights: list[float], epoch: int) -> None:
    order = epoch_order(len(weights), 0, epoch, np.array(weights))
    assert len(order) == len(weights)
    expected = np.array(weights) * len(weights) / sum(weights)
    counts = np.bincount(order, minlength=len(weights))
    assert (np.abs(counts - expected) < 1 + 1e-6).all()


@given(st.integers(20, 200), st.integers(0, 5))
def test_a_weighted_epoch_is_shuffled_as_an_unweighted_one_is(num_rows: int, epoch: int) -> None:
    weights = np.arange(1.0, num_rows + 1)
    order = epoch_order(num_rows, 3, epoch, weights)
    assert (np.diff(order) < 0).any()
    assert (order != epoch_order(num_rows, 3, epoch + 1, weights)).any()
    assert (order != epoch_order(num_rows, 4, epoch, weights)).any()
    # Neither half of the rows keeps to one half of the epoch.
    assert 0 < (order[: num_rows // 2] < num_rows // 2).mean() < 1
    np.testing.assert_array_equal(order, epoch_order(num_rows, 3, epoch, 7 * weights))


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, np.nan]])
def test_weights_that_mean_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="weights"):
        epoch_order(2, 0, 0, np.array(weights))


def test_a_rank_or_a_step_out_of_range_is_refused() -> None:
    order = epoch_order(10, 0, 0)
    with pytest.raises(ConfigError, match="rank=2"):
        rank_step_rows(order, 0, batch_size=2, rank=2, world_size=2)
    with pytest.raises(ConfigError, match="step 5"):
        rank_step_rows(order, 5, batch_size=2, rank=0, world_size=2)


def test_a_hundred_thousand_slices_plan_an_epoch_in_200_mb() -> None:
    import pyarrow as pa

    rows = 100_000
    index = np.arange(rows)
    filled = {"volume": pa.array([f"file{i // 30:07d}" for i in index]), "slice": pa.array(index % 30, pa.int32())}
    words = {"dataset": "simulated", "split": "train", "anatomy": "knee", "contrast": "PD"}
    columns = [
        filled[f.name] if f.name in filled else pa.array([words[f.name]] * rows) if f.name in words else pa.nulls(rows, f.type)
        for f in SCHEMA
    ]
    table = pa.table(columns, schema=SCHEMA)
    tracemalloc.start()
    chosen = select(table, splits=["train"], fraction=0.5, where=Where(anatomy=("knee",)))
    order = epoch_order(len(chosen), 0, 1)
    mine = rank_rows(order, 100, batch_size=8, rank=1, world_size=4)
    planned = table.take(pa.array(chosen[mine.indices]))
    peak = tracemalloc.get_traced_memory()[1] + planned.nbytes
    tracemalloc.stop()
    assert planned.num_rows > 12_000
    assert peak < 200e6
