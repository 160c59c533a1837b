import pytest
import torch

from echotrain.augmentation.crops import CropConfig, MultiCropConfig, draw_box, multi_crop, random_crops
from echotrain.augmentation.fit import fit_square
from echotrain.errors import ConfigError


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(37, 22), (16, 16), (9, 64), (3, 200), (1, 1)])
def test_a_crop_lies_in_its_image_and_has_the_area_and_the_aspect_that_were_asked_for(shape) -> None:
    config = CropConfig(scale=(0.3, 0.8), aspect=(0.5, 2.0))
    (generator,) = generators(1)
    boxes = [draw_box(generator, shape, config) for _ in range(200)]
    assert all(box.top >= 0 and box.top + box.height <= shape[0] for box in boxes)
    assert all(box.left >= 0 and box.left + box.width <= shape[1] for box in boxes)
    assert all(box.height > 0 and box.width > 0 for box in boxes)
    assert 60 < sum(box.is_flipped for box in boxes) < 140
    if shape == (37, 22):
        shares = [box.height * box.width / (37 * 22) for box in boxes]
        assert 0.25 < min(shares) < 0.36
        assert 0.7 < max(shares) < 0.85
        # Every place is reached, the last row and column as well.
        assert {box.top for box in boxes} >= {0, 5}
        assert max(box.top + box.height for box in boxes) == 37
        assert max(box.left + box.width for box in boxes) == 22


def test_a_box_that_is_never_allowed_becomes_the_largest_central_one() -> None:
    box = draw_box(generators(0)[0], (4, 400), CropConfig(scale=(1.0, 1.0), flip=0))
    assert (box.top, box.height, box.width) == (0, 4, 5)
    assert box.left == (400 - 5) // 2


def test_a_samples_crops_do_not_depend_on_what_shares_its_batch() -> None:
    images = noise(5, 1, 21, 30)
    config = MultiCropConfig(num_local=3, global_crop=CropConfig(side=16), local_crop=CropConfig(side=8, scale=(0.05, 0.3)))
    together = multi_crop(images, generators(1, 2, 3, 4, 5), config)
    apart = [multi_crop(images[i : i + 1], generators(i + 1), config) for i in range(5)]
    for kind, count, side in (("of_whole", 2, 16), ("of_parts", 3, 8)):
        crops = getattr(together, kind)
        assert len(crops) == count
        for number, crop in enumerate(crops):
            assert crop.shape == (5, 1, side, side)
            assert torch.equal(crop, torch.cat([getattr(each, kind)[number] for each in apart]))
    assert not torch.equal(*together.of_whole)


def test_what_is_drawn_for_one_image_moves_no_other_draw_of_its_stream() -> None:
    after = []
    for shape in ((40, 40), (3, 200)):
        (generator,) = generators(7)
        draw_box(generator, shape, CropConfig())
        after.append(torch.rand((), generator=generator))
    assert after[0] == after[1]


def test_crops_stay_within_the_range_of_what_they_show() -> None:
    images = (noise(3, 1, 40, 40) > 0.5).float()
    crops = random_crops(images, generators(1, 2, 3), CropConfig(side=64))
    assert crops.min() >= 0
    assert crops.max() <= 1


def test_a_crop_of_all_of_an_image_is_that_image_or_its_mirror() -> None:
    images = noise(2, 1, 16, 16)
    whole = CropConfig(side=16, scale=(1.0, 1.0), aspect=(1.0, 1.0), flip=0)
    torch.testing.assert_close(random_crops(images, generators(1, 2), whole), images)
    mirrored = CropConfig(side=16, scale=(1.0, 1.0), aspect=(1.0, 1.0), flip=1)
    torch.testing.assert_close(random_crops(images, generators(1, 2), mirrored), images.flip(-1))


@pytest.mark.parametrize(
    "wrong", [{"side": 0}, {"scale": (0.0, 1.0)}, {"scale": (0.6, 0.5)}, {"scale": (0.5, 1.1)}, {"aspect": (2, 1)}, {"flip": 2}]
)
def test_crops_that_cannot_be_are_refused(wrong) -> None:
    with pytest.raises(ConfigError, match=f"crop {next(iter(wrong))}="):
        CropConfig(**wrong)


@pytest.mark.parametrize("shape", [(9, 14), (14, 9), (7, 7), (1, 6)])
@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_every_matrix_is_brought_to_a_square_and_a_square_stays_what_it_is(shape, fit) -> None:
    images = noise(2, 1, *shape)
    fitted = fit_square(images, 12, fit)
    assert fitted.shape == (2, 1, 12, 12)
    assert 0 <= fitted.min() <= fitted.max() <= 1
    assert torch.equal(fit_square(fitted, 12, fit), fitted)


def test_padding_keeps_what_is_there_and_splits_an_odd_margin_with_the_longer_half_at_the_end() -> None:
    images = noise(1, 1, 4, 7) + 1
    fitted = fit_square(images, 7, "pad")
    assert torch.equal(fitted[..., 1:5, :], images)
    assert not fitted[..., 0, :].any()
    assert not fitted[..., 5:, :].any()
