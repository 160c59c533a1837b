import numpy as np
import pytest
import torch

from echotrain.errors import ConfigError
from echotrain.physics.crop import center_crop, center_crop_to_smallest


@pytest.mark.parametrize(
    ("size", "crop", "first"),
    [(8, 4, 2), (8, 3, 2), (7, 4, 1), (7, 3, 2), (7, 7, 0)],
)
def test_a_crop_begins_at_half_the_difference_rounded_down(size, crop, first):
    columns = torch.arange(size).expand(2, size, size)
    assert center_crop(columns, (1, crop))[0, 0].tolist() == list(range(first, first + crop))


def test_arrays_and_tensors_crop_alike_without_a_copy():
    array = np.arange(63.0).reshape(7, 9)
    cropped = center_crop(array, (4, 4))
    assert np.shares_memory(cropped, array)
    np.testing.assert_array_equal(center_crop(torch.from_numpy(array), (4, 4)).numpy(), cropped)


def test_two_images_meet_at_the_smaller_height_and_the_smaller_width():
    tall, wide = torch.zeros(2, 9, 4), torch.zeros(2, 6, 8)
    assert [tuple(image.shape) for image in center_crop_to_smallest(tall, wide)] == [(2, 6, 4), (2, 6, 4)]


@pytest.mark.parametrize("shape", [(9, 4), (4, 10), (0, 4), (4, -1)])
def test_an_impossible_crop_names_both_sizes(shape):
    with pytest.raises(ConfigError, match=r"crop to .* does not fit an image of 8 x 9"):
        center_crop(torch.zeros(8, 9), shape)
