"""Held-out volumes: each on one rank as a whole, every rank with as many rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.data.plan.volumes import volume_rows
from echotrain.errors import ConfigError


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.data())
def test_each_row_is_there_once_with_the_others_of_its_volume_and_ranks_have_as_many(sizes, data):
    codes = np.repeat(np.arange(len(sizes)), sizes)
    world = data.draw(st.integers(1, len(sizes)))
    ranks = [volume_rows(codes, rank=rank, world_size=world) for rank in range(world)]
    assert len({len(rank.indices) for rank in ranks}) == 1
    real = [rank.indices[rank.weights == 1] for rank in ranks]
    assert sorted(np.concatenate(real)) == list(range(len(codes)))
    for rank, rows in zip(ranks, real, strict=True):
        assert list(rows) == sorted(rows)
        assert set(rank.weights) <= {0, 1}
        assert set(rank.indices) == set(rows)
    owners = [{int(code) for code in codes[rows]} for rows in real]
    assert sum(map(len, owners)) == len(set.union(*owners)) == len(sizes)


def test_a_rank_without_a_volume_is_refused():
    with pytest.raises(ConfigError, match="2 held-out volumes for 3 ranks"):
        volume_rows(np.array([0, 0, 1]), rank=0, world_size=3)
