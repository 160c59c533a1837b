"""Slices that look alike are near, whatever their gain and matrix, and neighbours are those of a plain search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import zoom

from echotrain.errors import ConfigError
from echotrain.similarity import neighbors
from echotrain.similarity.embedders import GradientEmbedder, make_embedder
from echotrain.similarity.neighbors import Nearest, check_neighbors
from tests.unit.similarity.slices import bars, disc


@pytest.fixture(scope="module")
def embed():
    return GradientEmbedder()


def test_gain_and_matrix_do_not_count_and_shape_does(embed):
    image = disc(0.3)
    (vector,) = embed(image[None])
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    (louder,) = embed(1e4 * image[None])
    (larger,) = embed(zoom(image, 2.0, order=1)[None])
    (thinner,) = embed(disc(0.25)[None])
    (other,) = embed(bars(0.1)[None])
    assert vector @ louder == pytest.approx(1, abs=1e-5)
    assert vector @ larger > 0.99
    assert vector @ larger > vector @ thinner > vector @ other


def test_a_blank_slice_is_like_nothing(embed):
    assert not embed(np.zeros((1, 40, 30), np.float32)).any()


@given(
    seed=st.integers(0, 10_000),
    num_queries=st.integers(1, 6),
    num_pool=st.integers(1, 30),
    k=st.integers(1, 30),
    piece=st.integers(1, 30),
    block=st.integers(1, 8),
)
@settings(deadline=None)
def test_neighbours_are_those_of_a_plain_search_in_whatever_pieces_the_pool_passes(seed, num_queries, num_pool, k, piece, block):
    rng = np.random.default_rng(seed)
    # Few distinct values, so that ties come up.
    queries, pool = (rng.integers(-1, 2, (count, 3)).astype(np.float32) for count in (num_queries, num_pool))
    labels = rng.integers(0, 10, num_pool)
    expected = set()
    for query in queries:
        expected |= {labels[i] for i in sorted(range(num_pool), key=lambda i, q=query: (-float(q @ pool[i]), i))[:k]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "_BLOCK", block)
        patch.setattr(neighbors, "_POOL_BLOCK", block + 1)
        nearest = Nearest(queries, k)
        for start in range(0, num_pool, piece):
            nearest.add(pool[start : start + piece], labels[start : start + piece])
    assert nearest.chosen().tolist() == sorted(expected)
    assert nearest.num_seen == num_pool


@pytest.mark.parametrize(
    ("k", "num_queries", "message"),
    [(0, 1, "k=0: must lie between 1 and the 5 slices"), (6, 1, "k=6: must lie"), (5, 0, "0 slices to ask with: leave nothing")],
)
def test_too_many_neighbours_and_nobody_who_asks_are_refused(k, num_queries, message):
    with pytest.raises(ConfigError, match=message):
        check_neighbors(k, num_queries, 5)
    check_neighbors(5, 1, 5)


def test_an_embedder_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="embedder='clip': must be one of gradients"):
        make_embedder("clip")
    with pytest.raises(ConfigError, match="are not used by the embedder gradients"):
        make_embedder("gradients", "s3://lab/weights.zip")
