import pytest
import torch
from scipy.ndimage import gaussian_filter

from echotrain.augmentation.intensity import IntensityConfig, blur, vary_intensity
from echotrain.errors import ConfigError

NOTHING = {"jitter": 0.0, "blur": 0.0, "solarize": 0.0}


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_nothing_asked_for_changes_nothing() -> None:
    images = noise(3, 1, 9, 14)
    assert torch.equal(vary_intensity(images, generators(1, 2, 3), IntensityConfig(**NOTHING)), images)


@pytest.mark.parametrize("part", ["jitter", "blur", "solarize"])
def test_each_change_changes_an_image_within_its_range_the_same_way_every_time(part) -> None:
    images = noise(4, 1, 13, 10)
    config = IntensityConfig(**{**NOTHING, part: 1.0})
    varied = vary_intensity(images, generators(1, 2, 3, 4), config)
    assert varied.shape == images.shape
    assert 0 <= varied.min() <= varied.max() <= 1
    assert all(not torch.equal(before, after) for before, after in zip(images, varied, strict=True))
    assert torch.equal(varied, vary_intensity(images, generators(1, 2, 3, 4), config))


def test_an_images_change_does_not_depend_on_what_shares_its_batch() -> None:
    images, config = noise(4, 1, 13, 10), IntensityConfig(blur=0.5, solarize=0.5)
    together = vary_intensity(images, generators(1, 2, 3, 4), config)
    apart = [vary_intensity(images[i : i + 1], generators(i + 1), config) for i in range(4)]
    assert torch.equal(together, torch.cat(apart))


def test_what_is_not_done_to_one_image_moves_no_other_draw_of_its_stream() -> None:
    after = []
    for config in (IntensityConfig(**NOTHING), IntensityConfig(solarize=1.0)):
        (generator,) = generators(3)
        vary_intensity(noise(1, 1, 6, 6), [generator], config)
        after.append(torch.rand((), generator=generator))
    assert after[0] == after[1]


def test_half_of_the_images_are_blurred_where_half_should_be() -> None:
    images = noise(1, 1, 6, 6).expand(200, 1, 6, 6)
    varied = vary_intensity(images, generators(*range(200)), IntensityConfig(**{**NOTHING, "blur": 0.5}))
    assert 70 < sum(not torch.equal(image, images[0]) for image in varied) < 130


@pytest.mark.parametrize("shape", [(20, 17), (12, 31)])
def test_blur_is_a_gaussian_along_both_axes(shape) -> None:
    image = noise(2, 1, *shape)
    expected = gaussian_filter(image[1, 0].numpy(), sigma=1.2, radius=4, mode="mirror")
    torch.testing.assert_close(blur(image, 1.2, 9)[1, 0], torch.from_numpy(expected), atol=1e-5, rtol=1e-4)


def test_a_blank_or_tiny_image_stays_finite() -> None:
    for image in (torch.zeros(1, 1, 8, 8), noise(1, 1, 1, 3)):
        varied = vary_intensity(image, generators(1), IntensityConfig(solarize=0.0))
        assert torch.isfinite(varied).all()


def test_solarising_turns_over_what_is_bright() -> None:
    image = torch.tensor([[[[0.1, 0.5, 0.9]]]])
    varied = vary_intensity(image, generators(1), IntensityConfig(**{**NOTHING, "solarize": 1.0}))
    torch.testing.assert_close(varied, torch.tensor([[[[0.1, 0.5, 0.1]]]]))


@pytest.mark.parametrize("wrong", [{"jitter": 1.5}, {"blur_sigma": (0, 1)}, {"blur_kernel": 8}, {"threshold": -1}])
def test_what_cannot_be_is_refused(wrong) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        IntensityConfig(**wrong)
