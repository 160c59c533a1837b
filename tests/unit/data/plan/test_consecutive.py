"""An order in which what is read together comes together: properties of the whole, of lanes and of ranks."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echotrain.data.plan.consecutive import consecutive_order, group_rows, num_lanes
from echotrain.data.plan.order import num_steps, rank_rows, rank_step_rows

sizes = st.lists(st.integers(1, 7), min_size=1, max_size=70)
batches = st.integers(1, 8)


def groups_of(group_sizes, shuffled=True):
    codes = np.repeat(np.arange(len(group_sizes)), group_sizes)
    places = np.concatenate([np.arange(size) for size in group_sizes])
    order = np.random.default_rng(1).permutation(len(codes)) if shuffled else np.arange(len(codes))
    return group_rows(codes[order], places[order]), codes[order], places[order]


@given(sizes, batches, st.integers(0, 4))
def test_each_row_comes_exactly_once_whatever_the_sizes(group_sizes, batch_size, epoch):
    groups, codes, _ = groups_of(group_sizes)
    order = consecutive_order(groups, 7, epoch, batch_size=batch_size)
    assert sorted(order.tolist()) == list(range(len(codes)))


@given(sizes, batches, st.integers(1, 9), st.data())
def test_ranks_that_take_neighbours_share_every_row_once_and_resume_with_any_world_size(group_sizes, batch_size, after, data):
    groups, codes, _ = groups_of(group_sizes)
    order = consecutive_order(groups, 7, 0, batch_size=batch_size)
    before = data.draw(st.integers(1, 9))
    stop = data.draw(st.integers(0, num_steps(len(order), batch_size)))
    seen = []
    for step, rank in itertools.product(range(stop), range(before)):
        rows = rank_step_rows(order, step, batch_size=batch_size, rank=rank, world_size=before, as_neighbours=True)
        assert len(rows.indices) > 0
        seen += rows.indices[rows.weights > 0].tolist()
    for rank in range(after):
        rows = rank_rows(order, stop, batch_size=batch_size, rank=rank, world_size=after, as_neighbours=True)
        seen += rows.indices[rows.weights > 0].tolist()
    assert sorted(seen) == list(range(len(codes)))


@given(sizes, batches, st.integers(1, 9), st.data())
def test_cutting_the_rows_of_a_rank_that_takes_neighbours_gives_its_steps(group_sizes, batch_size, world_size, data):
    groups, codes, _ = groups_of(group_sizes)
    order = consecutive_order(groups, 7, 0, batch_size=batch_size)
    rank = data.draw(st.integers(0, world_size - 1))
    steps = num_steps(len(codes), batch_size)
    first = data.draw(st.integers(0, steps))
    options = {"batch_size": batch_size, "rank": rank, "world_size": world_size, "as_neighbours": True}
    whole = rank_rows(order, first, **options)
    per_step = max(1, len(range(rank, batch_size, world_size)))
    for number, step in enumerate(range(first, steps)):
        rows = rank_step_rows(order, step, **options)
        np.testing.assert_array_equal(whole.indices[number * per_step : (number + 1) * per_step], rows.indices)
        np.testing.assert_array_equal(whole.weights[number * per_step : (number + 1) * per_step], rows.weights)


def test_ranks_take_the_samples_of_a_step_in_blocks_as_large_as_they_would_be():
    order = np.arange(17)
    blocks = [rank_step_rows(order, 0, batch_size=7, rank=r, world_size=3, as_neighbours=True).indices.tolist() for r in range(3)]
    assert blocks == [[0, 1, 2], [3, 4], [5, 6]]
    last = [rank_step_rows(order, 2, batch_size=7, rank=r, world_size=3, as_neighbours=True) for r in range(3)]
    assert [rows.indices.tolist() for rows in last] == [[14, 15, 16], [14], [14]]
    assert [rows.weights.tolist() for rows in last] == [[1, 1, 1], [0], [0]]


@pytest.mark.parametrize(("batch_size", "lanes"), [(1, 1), (2, 2), (4, 4), (6, 6), (12, 6), (7, 1)])
def test_every_place_of_a_step_follows_slices_from_their_first_frame_to_their_last(batch_size, lanes):
    groups, codes, places = groups_of([5] * 97)
    assert num_lanes(97, batch_size) == lanes
    order = consecutive_order(groups, 3, 2, batch_size=batch_size)
    full = len(order) // batch_size
    each = batch_size // lanes
    for lane in range(lanes):
        rows = order[: full * batch_size].reshape(full, lanes, each)[:, lane].reshape(-1)
        follows = (codes[rows[1:]] == codes[rows[:-1]]) & (places[rows[1:]] == places[rows[:-1]] + 1)
        begins = (places[rows[:-1]] == 4) & (places[rows[1:]] == 0)
        assert (follows | begins).all()
    # But for the pieces that meet where one lane ends and another begins.
    steps = order[: full * batch_size].reshape(full, batch_size)
    assert np.mean([len(set(codes[step])) for step in steps]) > lanes - 0.1


def test_slices_are_shuffled_by_seed_and_epoch():
    groups, codes, _ = groups_of([4] * 60)
    orders = [consecutive_order(groups, seed, epoch, batch_size=2) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    assert all((one != other).any() for one, other in itertools.combinations(orders, 2))
    np.testing.assert_array_equal(orders[0], consecutive_order(groups, 1, 0, batch_size=2))
    firsts = codes[orders[0]][::2][::4]
    assert (np.diff(firsts) < 0).mean() == pytest.approx(0.5, abs=0.25)


def test_the_order_does_not_depend_on_how_the_rows_lie():
    sized = [3, 5, 2, 7] * 10
    whole, codes, places = groups_of(sized, shuffled=False)
    mixed, mixed_codes, mixed_places = groups_of(sized)
    one, other = (consecutive_order(groups, 1, 0, batch_size=2) for groups in (whole, mixed))
    np.testing.assert_array_equal(codes[one], mixed_codes[other])
    np.testing.assert_array_equal(places[one], mixed_places[other])


@given(st.lists(st.tuples(st.integers(1, 5), st.floats(0.1, 5)), min_size=20, max_size=60), batches)
def test_with_weights_slices_come_as_often_as_their_weight_says_and_an_epoch_keeps_its_length(of_groups, batch_size):
    group_sizes, weights = [size for size, _ in of_groups], np.array([weight for _, weight in of_groups])
    groups, codes, _ = groups_of(group_sizes)
    order = consecutive_order(groups, 1, 0, batch_size=batch_size, weights=weights[codes])
    assert len(order) == len(codes)
    counts = np.bincount(order, minlength=len(codes))
    if len(set(group_sizes)) == 1:
        expected = weights[codes] * len(weights) / weights.sum()
        assert (np.abs(counts - expected) < 1 + 1e-6).all()


def test_a_rare_slice_of_large_weight_comes_whole_each_time():
    groups, codes, places = groups_of([4] * 40)
    weights = np.where(codes < 4, 6.0, 1.0)
    order = consecutive_order(groups, 1, 0, batch_size=1, weights=weights)
    counts = np.bincount(order, minlength=len(codes))
    assert all(len(set(counts[codes == code])) == 1 for code in range(40))
    assert counts[codes < 4].sum() > 0.3 * len(order)
    assert (places[order].reshape(-1, 4) == np.arange(4)).all()


@settings(max_examples=20)
@given(st.integers(1, 400), st.integers(1, 64))
def test_lanes_divide_the_batch_and_stay_long(num_groups, batch_size):
    lanes = num_lanes(num_groups, batch_size)
    assert batch_size % lanes == 0
    assert lanes == 1 or num_groups >= 16 * lanes


def test_a_million_frames_plan_an_epoch_in_60_bytes_each():
    codes, places = np.repeat(np.arange(50_000), 20), np.tile(np.arange(20), 50_000)
    groups = group_rows(codes, places)
    tracemalloc.start()
    order = consecutive_order(groups, 1, 0, batch_size=8)
    mine = rank_rows(order, 100, batch_size=8, rank=1, world_size=4, as_neighbours=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(mine.indices) == 2 * (125_000 - 100)
    assert peak < 60 * len(order)
