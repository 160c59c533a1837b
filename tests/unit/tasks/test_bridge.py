"""The bridge task: its equations, what is drawn for whom, and that a network learns by it."""

import dataclasses

import pytest
import torch
from torch import nn

from echotrain.losses.ssim import SSIMLoss
from echotrain.models.bridge.network import BridgeNetwork, BridgeNetworkConfig
from echotrain.tasks.bridge import BridgeConfig, bridge_point, image_scale, normalise, restore, sample_bridge, target_estimate
from echotrain.tasks.reconstruction import zero_filled
from tests.batches import assert_bf16_stays_near, make_batch, pick

TINY = BridgeNetworkConfig(widths=(8, 8), transformers=(0, 0), blocks=1, groups=4)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TINY.build()


class Oracle(BridgeNetwork):
    """Knows the bridges of the batch it was built with; notes where it is asked."""

    def __init__(self, batch):
        nn.Module.__init__(self)
        self.config = TINY
        image = zero_filled(batch)
        scale = image_scale(image)
        self.source = normalise(image, scale)
        self.direction = self.source - normalise(batch.target, scale)
        self.asked = []

    def forward(self, x, s):
        self.asked.append((x, s))
        return self.direction


class Still(Oracle):
    """Takes source and target to be the same, so that only noise moves."""

    def forward(self, x, s):
        return torch.zeros_like(x)


def codes(seed):
    return torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(seed))


def test_a_bridge_begins_exactly_at_its_source_and_ends_at_its_target():
    source, target, noise = codes(0), codes(1), codes(2)
    assert torch.equal(bridge_point(source, target, torch.ones(2), noise), source)
    assert torch.equal(bridge_point(source, target, torch.zeros(2), noise), target)
    middle = bridge_point(source, target, torch.tensor([0.5, 0.2]), noise)
    torch.testing.assert_close(middle[0], (source[0] + target[0]) / 2 + noise[0] / 2)
    torch.testing.assert_close(middle[1], 0.2 * source[1] + 0.8 * target[1] + 0.4 * noise[1])


def test_the_true_direction_points_to_the_target_from_anywhere_on_the_bridge():
    source, target, s = codes(0), codes(1), torch.tensor([0.25, 1.0])
    x = bridge_point(source, target, s, torch.zeros_like(source))
    torch.testing.assert_close(target_estimate(x, s, source - target), target)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4])
def test_sampling_asks_at_equal_steps_from_the_source_and_arrives_at_the_target(num_steps):
    source, target, asked = codes(0), codes(1), []

    def direction(x, s):
        asked.append(s.tolist())
        torch.testing.assert_close(x, bridge_point(source, target, s, torch.zeros_like(x)))
        return source - target

    torch.testing.assert_close(sample_bridge(direction, source, num_steps, lambda: torch.zeros_like(source)), target)
    expected = torch.linspace(1, 1 / num_steps, num_steps)
    torch.testing.assert_close(torch.tensor(asked), expected[:, None].expand(-1, 2))


def test_noise_is_added_between_steps_as_wide_as_the_bridge_is_there():
    source = codes(0)
    moved = sample_bridge(lambda x, s: torch.zeros_like(x), source, 4, lambda: torch.ones_like(source)) - source
    widths = [(s * (1 - s)) ** 0.5 for s in (0.75, 0.5, 0.25)]
    torch.testing.assert_close(moved, torch.full_like(moved, sum(widths)))


@pytest.mark.parametrize("num_steps", [1, 4])
def test_an_oracle_reconstructs_the_target_and_has_no_loss(num_steps):
    batch = make_batch()
    task = BridgeConfig(noise=0.0, sampling_steps=num_steps, ssim_weight=0.5).build()
    oracle = Oracle(batch)
    torch.testing.assert_close(task.reconstruct(oracle, batch), batch.target, atol=1e-5, rtol=1e-5)
    assert len(oracle.asked) == num_steps
    assert task.loss(oracle, batch).per_sample.abs().max() < 1e-5


def test_the_loss_is_the_mean_square_of_what_the_direction_misses():
    batch, oracle = make_batch(), Oracle(make_batch())
    expected = oracle.direction.square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(BridgeConfig().build().loss(Still(batch), batch).per_sample, expected)


def test_the_ssim_term_compares_the_image_that_the_direction_points_to():
    batch = make_batch()
    task = BridgeConfig(noise=0.0, times=(1.0,), ssim_weight=2.0).build()
    result = task.loss(Still(batch), batch)  # From the source, no direction leads to the source.
    likeness = SSIMLoss()(zero_filled(batch), batch.target, batch.max_value)
    torch.testing.assert_close(result.logs["ssim_loss"], likeness)
    torch.testing.assert_close(result.per_sample, result.logs["matching"] + 2 * likeness)


def test_times_are_those_of_the_set_as_often_as_it_says():
    task = BridgeConfig(times=(0.25, 1.0), probabilities=(0.2, 0.8)).build()
    batch, oracle = make_batch(num=1), Oracle(make_batch(num=1))
    for epoch in range(200):
        task.loss(oracle, dataclasses.replace(batch, roots=(batch.ids[0].root(0, epoch),)))
    drawn = [s.item() for _, s in oracle.asked]
    assert set(drawn) == {0.25, 1.0}
    assert 0.72 < sum(s == 1 for s in drawn) / 200 < 0.88
    assert all(torch.equal(x, oracle.source) for x, s in oracle.asked if s == 1)


@pytest.mark.parametrize("ssim_weight", [0.0, 1.0])
def test_a_sample_alone_is_the_sample_in_a_batch(model, ssim_weight):
    batch = make_batch(epoch=3)
    task = BridgeConfig(noise=0.3, sampling_steps=3, ssim_weight=ssim_weight).build()
    alone, swapped = pick(batch, [1]), pick(batch, [2, 1])
    together = task.loss(model, batch).per_sample
    torch.testing.assert_close(task.loss(model, alone).per_sample, together[1:2])
    torch.testing.assert_close(task.loss(model, swapped).per_sample, together[[2, 1]])
    images = task.reconstruct(model, batch)
    torch.testing.assert_close(task.reconstruct(model, alone), images[1:2])


def test_training_draws_anew_each_epoch_and_never_from_the_global_generator(model):
    task = BridgeConfig(noise=0.3).build()
    losses = []
    for global_seed, epoch in ((0, 3), (1, 3), (1, 4)):
        torch.manual_seed(global_seed)
        losses.append(task.loss(model, make_batch(epoch=epoch)).per_sample)
    assert torch.equal(losses[0], losses[1])
    assert not torch.isclose(losses[1], losses[2]).any()


def test_what_is_reconstructed_outside_training_depends_on_the_slice_alone():
    batch = make_batch()
    task = BridgeConfig(noise=0.3, sampling_steps=2).build()
    first = task.reconstruct(Still(batch), batch)
    assert torch.equal(first, task.reconstruct(Still(batch), batch))
    noise = first - zero_filled(batch)
    assert noise.abs().amax(dim=(1, 2)).min() > 0
    twins = pick(batch, [0, 0])
    renamed = dataclasses.replace(twins, ids=batch.ids[:2])
    one, other = task.reconstruct(Still(renamed), renamed)
    assert not torch.equal(one, other)


def test_neither_the_target_nor_its_maximum_decides_the_images(model):
    batch = make_batch()
    task = BridgeConfig(sampling_steps=2).build()
    blind = dataclasses.replace(batch, target=torch.zeros_like(batch.target), max_value=torch.zeros_like(batch.max_value))
    assert torch.equal(task.reconstruct(model, batch), task.reconstruct(model, blind))


def test_images_scale_with_their_kspace_and_the_loss_does_not(model):
    batch, task = make_batch(), BridgeConfig().build()
    factor = 1e-6
    fainter = dataclasses.replace(batch, kspace=batch.kspace * factor, target=batch.target * factor, max_value=batch.max_value * factor)
    torch.testing.assert_close(task.loss(model, fainter).per_sample, task.loss(model, batch).per_sample, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(task.reconstruct(model, fainter) / factor, task.reconstruct(model, batch), rtol=1e-4, atol=1e-4)


def test_a_blank_slice_stays_finite(model):
    batch = make_batch()
    blank = dataclasses.replace(batch, kspace=torch.zeros_like(batch.kspace), target=torch.zeros_like(batch.target))
    task = BridgeConfig(ssim_weight=1.0).build()
    loss = task.loss(model, blank).per_sample
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    assert torch.isfinite(task.reconstruct(model, blank)).all()


def test_normalising_is_undone():
    image = make_batch().target
    scale = image_scale(image)
    channels = normalise(image, scale)
    assert channels.amax().item() == pytest.approx(1)
    torch.testing.assert_close(restore(channels, scale), image)


def test_lines_outside_the_mask_are_never_read(model):
    batch, task = make_batch(), BridgeConfig().build()
    unread = dataclasses.replace(batch, kspace=torch.where(batch.mask, batch.kspace, torch.full_like(batch.kspace, float("nan"))))
    assert torch.equal(task.loss(model, batch).per_sample, task.loss(model, unread).per_sample)


def test_validation_and_pictures_are_those_of_reconstruction(model):
    batch, task = make_batch(), BridgeConfig().build()
    with torch.no_grad():
        validation = task.validation()
        validation.add(model, batch)
        panels = task.panels(model, batch)
    assert set(validation.scores()) == set(task.metrics)
    assert list(panels[0].images) == ["zero-filled", "reconstruction", "target", "error x5"]


def test_bf16_stays_near_fp32_and_its_gradients_are_finite(model):
    assert_bf16_stays_near(BridgeConfig(ssim_weight=0.1).build(), model, make_batch(epoch=0))


def test_one_batch_can_be_overfitted(model):
    task = BridgeConfig().build()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for epoch in range(60):
        optimizer.zero_grad()
        loss = task.loss(model, make_batch(num=1, epoch=epoch)).per_sample.mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5])
