"""Patches: no pixel is lost, blank ones are told by how faint they are, and duplicates by an order that a plain search repeats."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echotrain.errors import ConfigError
from echotrain.similarity import dreamsim
from echotrain.similarity.dreamsim import DreamSimEmbedder
from echotrain.similarity.embedders import GradientEmbedder
from echotrain.similarity.patches import PatchConfig, are_blank, are_duplicates, cut_patches, num_patches
from tests.unit.similarity.slices import bars, disc

# Of length 1 and with a cosine of one half, without rounding.
AXIS, TILTED = np.eye(4, dtype=np.float32)[0], np.full(4, 0.5, np.float32)


@given(height=st.integers(1, 90), width=st.integers(1, 90), side=st.sampled_from((16, 32)))
@settings(deadline=None)
def test_the_grid_put_together_again_is_the_image_in_an_even_frame_of_zeros(height, width, side):
    image = 1 + np.arange(height * width, dtype=np.float32).reshape(height, width)
    patches = cut_patches(image, side)
    rows, columns = -(-height // side), -(-width // side)
    assert patches.shape == (num_patches((height, width), side), side, side) == (rows * columns, side, side)
    whole = np.block([[patches[row * columns + column] for column in range(columns)] for row in range(rows)])
    top, left = (rows * side - height) // 2, (columns * side - width) // 2
    assert np.array_equal(whole[top : top + height, left : left + width], image)
    assert np.count_nonzero(whole) == image.size
    # An odd line more stands at the end.
    assert 0 <= (rows * side - height - top) - top <= 1


@pytest.mark.parametrize(("shape", "count"), [((320, 320), 9), ((256, 256), 4), ((257, 128), 3), ((64, 100), 1), ((640, 368), 15)])
def test_matrices_of_scanners_have_so_many_patches_of_128(shape, count):
    assert len(cut_patches(np.ones(shape, np.float32), 128)) == count


@given(seed=st.integers(0, 10_000), count=st.integers(0, 25), threshold=st.sampled_from((0.2, 0.5, 0.9)))
@settings(deadline=None)
def test_duplicates_are_those_of_a_plain_search(seed, count, threshold):
    vectors = np.random.default_rng(seed).normal(size=(count, 2)).astype(np.float32)
    kept: list[int] = []
    for number in range(count):
        cosines = [
            float(np.dot(vectors[number], vectors[one]) / np.linalg.norm(vectors[number]) / np.linalg.norm(vectors[one])) for one in kept
        ]
        if not any(cosine > threshold for cosine in cosines):
            kept.append(number)
    assert np.flatnonzero(~are_duplicates(vectors, threshold)).tolist() == kept


def test_a_cosine_at_the_threshold_is_blank_and_is_no_duplicate():
    both = np.stack([AXIS, TILTED])
    assert are_duplicates(both, 0.5).tolist() == [False, False]
    assert are_duplicates(both, np.nextafter(0.5, 0)).tolist() == [False, True]
    assert are_blank(TILTED[None], AXIS, 0.5).tolist() == [True]
    assert are_blank(TILTED[None], AXIS, np.nextafter(0.5, 1)).tolist() == [False]
    # The length of a vector does not count.
    assert are_blank(8 * TILTED[None], 4 * AXIS, 0.5).tolist() == [True]


def test_of_a_chain_of_small_changes_every_second_one_stays():
    angles = 0.4 * np.arange(5)
    chain = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert np.cos(0.4) > 0.9 > np.cos(0.8)
    assert are_duplicates(chain, 0.9).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"side": 0}, "patch side=0: must be a multiple of 16 from 32 on"),
        ({"side": 16}, "patch side=16"),
        ({"side": 100}, "The authors' is 128"),
        ({"blank_cosine": 0.0}, r"blank_cosine=0.0: must lie in \(0, 1\]"),
        ({"duplicate_cosine": 1.1}, "The authors' is 0.9"),
    ],
)
def test_patches_that_cannot_be_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        PatchConfig(**values)


def of_deviation(image, deviation):
    return (image * np.float32(deviation / image.std()))[None]


@pytest.mark.parametrize("side", [32, 48, 128])
def test_a_patch_is_blank_up_to_a_fiftieth_of_the_maximum_and_told_by_its_shape_beyond(side):
    embed, config = GradientEmbedder().embed_patches, PatchConfig(side=side)
    blank = embed(np.zeros((1, side, side), np.float32))[0]
    assert np.linalg.norm(blank) == pytest.approx(1)
    rng = np.random.default_rng(0)
    for image in (disc(0.3, side=side), bars(0.2, side=side), rng.random((side, side), np.float32)):
        found = [bool(are_blank(embed(of_deviation(image, share)), blank, config.blank_cosine)[0]) for share in (0.0, 0.0195, 0.0205, 0.2)]
        assert found == [True, True, False, False]
    clear, louder, other = embed(np.concatenate([of_deviation(disc(0.3, side=side), 0.2), of_deviation(disc(0.3, side=side), 0.3),
                                                 of_deviation(bars(0.2, side=side), 0.2)]))  # fmt: skip
    assert clear.dtype == np.float32
    assert are_duplicates(np.stack([clear, louder, other]), config.duplicate_cosine).tolist() == [False, True, False]


def test_a_bright_patch_without_structure_is_blank_to_gradients():
    even, nothing = GradientEmbedder().embed_patches(np.stack([np.full((32, 32), share, np.float32) for share in (0.7, 0.0)]))
    assert even == pytest.approx(nothing, abs=1e-5)


def test_dreamsim_takes_patches_as_they_are_and_gives_the_blank_one_a_vector(monkeypatch):
    seen = []

    class Network:
        def embed(self, pictures):
            seen.append(pictures.clone())
            vectors = pictures.mean(dim=(2, 3)) + 1
            return vectors.squeeze()  # As the package does: of one picture it gives no axis.

    monkeypatch.setattr(dreamsim, "check_files", lambda weights: None)
    monkeypatch.setattr(dreamsim, "_import_package", lambda: None)
    monkeypatch.setattr(dreamsim, "_load_network", lambda folder: Network())
    monkeypatch.setattr(dreamsim, "fetched", contextlib.nullcontext)
    embed = DreamSimEmbedder("weights")
    patches = np.random.default_rng(0).random((33, 48, 48), np.float32) * np.float32(0.1)
    patches[4] = 0
    vectors = embed.embed_patches(patches)
    assert [len(pictures) for pictures in seen] == [32, 1]
    given_to = np.concatenate([pictures.numpy() for pictures in seen])
    for channel in range(3):
        assert np.array_equal(given_to[:, channel], patches)
    assert vectors.shape == (33, 3)
    assert vectors[4].tolist() == [1, 1, 1]
