"""Whether a stored image is its k-space's."""

import numpy as np
import pytest

from echotrain.data.formats.checks import target as target_module
from echotrain.data.formats.checks.target import is_of, scale_of
from echotrain.data.formats.target import rss_target
from tests.scans import object_kspace, random_kspace

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


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999999, 0.9999999, 1.0, 1.0000001, 1.000001, 1.1, 3.0])
@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_the_quick_verdict_is_that_of_the_product_that_settles_the_factor(shape, size, share, monkeypatch):
    kspace = object_kspace(shape)[1]
    target = rss_target(kspace, size)
    stored, ours = target_module._columns(target, kspace, np.matmul)
    # Scaled so that the difference is this share of what is allowed, up to rounding.
    scale = float(np.linalg.norm(stored) / np.linalg.norm(ours)) * (1 + share * target_module._LARGEST_DIFFERENCE)
    quick = is_of(target, kspace, scale)
    monkeypatch.setattr(target_module, "_fast_product", np.matmul)
    assert quick == is_of(target, kspace, scale)
    assert quick == (target_module._difference(stored, scale * ours) < target_module._LARGEST_DIFFERENCE)


def test_far_from_the_limit_the_exact_product_is_not_taken(monkeypatch):
    kspace = object_kspace((1, 4, 64, 48))[0]
    target = rss_target(kspace, (40, 36))
    monkeypatch.setattr(target_module.np, "matmul", None)
    assert is_of(target, kspace, 1.0)
    assert not is_of(target, kspace, 2.0)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (48, 33)])
def test_the_fast_product_is_the_product(shape):
    rows, columns = (random_kspace(size) for size in ((9, shape[0]), shape))
    product = target_module._fast_product(rows, columns)
    np.testing.assert_allclose(product, rows @ columns, rtol=0, atol=1e-5 * np.abs(rows @ columns).max())
