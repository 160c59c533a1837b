"""Slices that look alike are near, whatever their gain and matrix, and neighbours are those of a plain search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import zoom

from echotrain.errors import ConfigError
from echotrain.similarity.embedders import GradientEmbedder, make_embedder
from echotrain.similarity.neighbors import nearest_union
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


@given(seed=st.integers(0, 10_000), num_queries=st.integers(1, 6), num_pool=st.integers(1, 30), k=st.integers(1, 30))
@settings(deadline=None)
def test_neighbours_are_those_of_a_plain_search(seed, num_queries, num_pool, k):
    rng = np.random.default_rng(seed)
    # Few distinct values, so that ties come up.
    queries, pool = (rng.integers(-1, 2, (count, 3)).astype(np.float32) for count in (num_queries, num_pool))
    if k > num_pool:
        with pytest.raises(ConfigError, match=f"k={k}: must lie between 1 and the {num_pool}"):
            nearest_union(queries, pool, k)
        return
    expected = set()
    for query in queries:
        expected |= set(sorted(range(num_pool), key=lambda i, q=query: (-float(q @ pool[i]), i))[:k])
    assert nearest_union(queries, pool, k).tolist() == sorted(expected)


def test_an_embedder_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="embedder='clip': must be one of gradients"):
        make_embedder("clip")
    with pytest.raises(ConfigError, match="are not used by the embedder gradients"):
        make_embedder("gradients", "s3://lab/weights.zip")
