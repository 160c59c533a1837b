"""Whether a stored image is its k-space's."""

import numpy as np
import pytest

from echotrain.data.formats.checks.target import is_of, scale_of
from echotrain.data.target import rss_target
from tests.scans import object_kspace

SHAPES = [((2, 4, 64, 48), (40, 36)), ((2, 1, 65, 47), (65, 47)), ((2, 5, 33, 90), (32, 61))]


@pytest.mark.parametrize(("shape", "size"), SHAPES)
@pytest.mark.parametrize("factor", [1.0, 1e6, 3e-7])
def test_the_factor_to_its_own_image_is_found(shape, size, factor):
    kspace = object_kspace(shape)[1]
    target = (rss_target(kspace, size) * np.float32(factor)).astype(np.float32)
    assert scale_of(target, kspace) == pytest.approx(factor, rel=1e-4)
    assert is_of(target, kspace, factor)
    assert not is_of(target, kspace, 1.1 * factor)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image[::-1],
        lambda image: image[:, ::-1],
        lambda image: np.roll(image, 1, axis=0),
        lambda image: np.roll(image, 1, axis=1),
        lambda image: np.roll(image, image.shape[1] // 2, axis=1),
        np.sqrt,
        lambda image: image + 0.2 * image.max(),
        np.zeros_like,
        lambda image: image * np.nan,
    ],
    ids=["upside down", "mirrored", "shifted down", "shifted", "cornered", "gamma", "offset", "zero", "nan"],
)
@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_another_image_is_told(shape, size, change):
    kspace = object_kspace(shape)[1]
    target = np.ascontiguousarray(change(rss_target(kspace, size)))
    assert scale_of(target, kspace) is None
    assert not is_of(target, kspace, 1.0)


@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_the_neighbouring_slice_is_another_image(shape, size):
    first, second = object_kspace(shape)
    assert scale_of(rss_target(first, size), second) is None


def test_a_transposed_image_of_a_square_matrix_is_another_image():
    kspace = object_kspace((1, 4, 64, 64))[0]
    assert scale_of(np.ascontiguousarray(rss_target(kspace, (64, 64)).T), kspace) is None


def test_an_image_in_half_precision_is_still_its_own():
    kspace = object_kspace((1, 4, 64, 48))[0] * np.float32(100)
    target = rss_target(kspace, (64, 48)).astype(np.float16).astype(np.float32)
    assert scale_of(target, kspace) == pytest.approx(1, abs=1e-3)
