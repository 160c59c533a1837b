import dataclasses

import pytest
import torch

from echotrain.augmentation.crops import CropConfig, random_crops
from echotrain.data.catalog.identity import SampleId
from echotrain.data.samples.image import ImageBatch, ImageData
from echotrain.errors import ConfigError
from echotrain.metrics.table import find_metric
from echotrain.models.mae.network import MaeNetworkConfig, Masked, patchify
from echotrain.tasks.mae import MaeConfig, masked_loss
from echotrain.training.experiment import Experiment
from echotrain.training.pictures import as_pictures

TINY = MaeNetworkConfig(side=32, patch=8, width=24, depth=1, heads=3, decoder_width=16, decoder_depth=1, decoder_heads=2)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return TINY.build()


def make_batch(num: int = 4, shape: tuple[int, int] = (41, 27), epoch: int | None = 0) -> ImageBatch:
    ids = tuple(SampleId("images", f"v{index}", 3) for index in range(num))
    return ImageBatch(
        image=torch.rand(num, *shape, generator=torch.Generator().manual_seed(1)),
        low=torch.zeros(num),
        high=torch.ones(num),
        weight=torch.ones(num),
        ids=ids,
        anatomies=("brain", "knee") * (num // 2),
        roots=tuple(sample.root(7, epoch) for sample in ids),
    )


def pick(batch: ImageBatch, rows: list[int]) -> ImageBatch:
    tensors = {name: value[rows] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    lists = {name: tuple(getattr(batch, name)[row] for row in rows) for name in ("ids", "roots", "anatomies")}
    return dataclasses.replace(batch, **tensors, **lists)


def random_result(num: int = 3) -> tuple[torch.Tensor, Masked]:
    generator = torch.Generator().manual_seed(3)
    truth, predicted = torch.rand(num, 16, 64, generator=generator), torch.rand(num, 16, 64, generator=generator)
    return truth, Masked(predicted, (torch.rand(num, 16, generator=generator) > 0.4).float())


def test_only_hidden_patches_count_each_alike() -> None:
    truth, result = random_result()
    expected = [((p - t)[m.bool()] ** 2).mean() for t, p, m in zip(truth, result.predicted, result.mask, strict=True)]
    torch.testing.assert_close(masked_loss(truth, result, norm_pix=False), torch.stack(expected))
    seen = result.mask[..., None] == 0
    changed = Masked(torch.where(seen, 99.0, result.predicted), result.mask)
    assert torch.equal(masked_loss(truth, changed, norm_pix=False), masked_loss(truth, result, norm_pix=False))


def test_normalised_patches_do_not_know_the_brightness_and_a_blank_one_is_zero() -> None:
    truth, result = random_result()
    plain = masked_loss(truth, result, norm_pix=True)
    torch.testing.assert_close(masked_loss(0.3 + 0.2 * truth, result, norm_pix=True), plain, rtol=1e-2, atol=1e-3)
    nothing = Masked(torch.zeros_like(result.predicted), result.mask)
    assert masked_loss(torch.full_like(truth, 0.7), nothing, norm_pix=True).max() < 1e-6
    torch.testing.assert_close(masked_loss(truth, nothing, norm_pix=True), torch.full((3,), 63 / 64), rtol=1e-3, atol=0)


@pytest.mark.parametrize("norm_pix", [False, True])
def test_the_loss_is_of_a_random_crop_with_patches_hidden_by_the_samples_own_draws(network, norm_pix) -> None:
    batch, config = make_batch(), MaeConfig(norm_pix_loss=norm_pix)
    torch.manual_seed(1)
    losses = config.build().loss(network, batch).per_sample
    torch.manual_seed(2)
    assert torch.equal(losses, config.build().loss(network, batch).per_sample)
    crops = random_crops(batch.image[:, None], batch.generators("mae crop"), CropConfig(side=32))
    noise = torch.stack([torch.rand(16, generator=generator) for generator in batch.generators("mae mask")])
    torch.testing.assert_close(losses, masked_loss(patchify(crops, 8), network(crops, noise), norm_pix=norm_pix))
    assert len(set(losses.tolist())) == 4
    later = make_batch(epoch=1)
    assert not torch.isclose(losses, config.build().loss(network, later).per_sample).any()


def test_a_samples_loss_does_not_depend_on_what_shares_its_batch(network) -> None:
    task, batch = MaeConfig().build(), make_batch()
    together = task.loss(network, batch).per_sample
    apart = torch.cat([task.loss(network, pick(batch, rows)).per_sample for rows in ([2, 0], [3], [1])])
    torch.testing.assert_close(apart, together[[2, 0, 3, 1]])


def test_validation_hides_the_same_patches_whatever_the_run_and_needs_no_target(network) -> None:
    task = MaeConfig().build()
    scores = []
    for epoch in (None, None):
        validation = task.validation()
        validation.add(network, dataclasses.replace(make_batch(epoch=epoch), roots=()))
        scores.append(validation.scores())
    assert scores[0] == scores[1]
    assert set(task.metrics) == set(scores[0])
    assert scores[0][task.score] > 0
    assert not find_metric(task.score).is_higher_better


def test_ranks_validate_as_one_and_a_sample_that_comes_twice_counts_once(network) -> None:
    task, batch = MaeConfig().build(), make_batch(epoch=None)
    alone = task.validation()
    alone.add(network, batch)
    first, second = task.validation(), task.validation()
    first.add(network, pick(batch, [3, 0]))
    second.add(network, pick(batch, [1, 2, 3]))
    first.merge(second.state())
    assert first.scores() == pytest.approx(alone.scores(), rel=1e-6)
    assert [row[:2] for row in first.table().rows] == [("brain", 2), ("knee", 2)]
    assert task.validation().scores() == {}


@pytest.mark.parametrize("norm_pix", [False, True])
def test_pictures_show_the_image_what_was_seen_of_it_and_what_was_made_of_that(network, norm_pix) -> None:
    batch = make_batch(epoch=None)
    panels = MaeConfig(norm_pix_loss=norm_pix).build().panels(network, batch)
    assert [panel.sample for panel in panels] == list(batch.ids)
    for panel in panels:
        image, seen, rebuilt, error = (torch.from_numpy(panel.images[name]) for name in ("image", "seen", "reconstruction", "error x5"))
        assert image.shape == (32, 32)
        hidden = patchify((image - seen)[None, None], 8).abs().sum(dim=-1)[0] > 0
        assert hidden.sum() == 12
        kept = ~hidden[:, None].expand(-1, 64)
        assert torch.equal(patchify(rebuilt[None, None], 8)[0][kept], patchify(image[None, None], 8)[0][kept])
        torch.testing.assert_close(error, 5 * (rebuilt - image).abs())
        assert error.max() > 0
    caption, pixels = as_pictures(panels)[0]
    assert caption == "images/v0 slice 3: image | seen | reconstruction | error x5"
    assert pixels.shape == (32, 4 * 32)


def test_blank_images_have_a_finite_loss_and_finite_gradients(network) -> None:
    for norm_pix in (False, True):
        batch = dataclasses.replace(make_batch(), image=torch.zeros(4, 16, 16))
        losses = MaeConfig(norm_pix_loss=norm_pix).build().loss(network, batch).per_sample
        losses.sum().backward()
        assert torch.isfinite(losses).all()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
        network.zero_grad()


def test_a_few_steps_learn_a_batch(network) -> None:
    torch.manual_seed(0)
    model, task = TINY.build(), MaeConfig(crop_scale=(1.0, 1.0), flip=0.0).build()
    batch = make_batch()
    batch = dataclasses.replace(batch, image=torch.linspace(0, 1, 32)[None, None, :].expand(4, 32, 32).contiguous())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = task.loss(model, batch).per_sample.mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_it_goes_with_images_and_its_own_network_alone() -> None:
    Experiment(task=MaeConfig(), model=TINY, data=ImageData())
    with pytest.raises(ConfigError, match=r"task\.kind=mae.*data\.kind=kspace_lines"):
        Experiment(task=MaeConfig(), model=TINY)
    with pytest.raises(ConfigError, match=r"task\.kind=mae.*model\.kind=varnet"):
        Experiment(task=MaeConfig(), data=ImageData())
    with pytest.raises(ConfigError, match=r"task\.kind=reconstruction.*data\.kind=image"):
        Experiment(data=ImageData())


@pytest.mark.parametrize("wrong", [{"crop_scale": (0.0, 1.0)}, {"flip": 1.5}])
def test_settings_that_cannot_be_are_refused(wrong) -> None:
    with pytest.raises(ConfigError):
        MaeConfig(**wrong)
