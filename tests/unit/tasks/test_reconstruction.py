"""The reconstruction task: what a loss, a baseline and a validation are."""

import dataclasses

import numpy as np
import pytest
import torch

from echotrain.data.catalog.identity import SampleId
from echotrain.data.samples.kspace_lines import LinesBatch
from echotrain.losses.ssim import SSIMLoss
from echotrain.metrics.volume import score_volume
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.physics.coils import rss
from echotrain.physics.crop import center_crop
from echotrain.physics.fft import fft2c, ifft2c
from echotrain.tasks.reconstruction import ReconstructionConfig, masked_kspace, zero_filled
from tests.batches import assert_bf16_stays_near

TINY = VarNetConfig(num_cascades=1, chans=2, pools=1, sens_chans=2, sens_pools=1)


def make_batch(num=3, coils=2, size=(32, 24), recon=(20, 18), volume="v", seed=0) -> LinesBatch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(num, coils, *size, dtype=torch.complex64, generator=generator)
    kspace = fft2c(images)
    mask = torch.zeros(num, 1, 1, size[1], dtype=torch.bool)
    mask[..., ::2] = True
    mask[..., size[1] // 2 - 3 : size[1] // 2 + 3] = True
    target = center_crop(rss(images), recon)
    return LinesBatch(
        kspace=kspace,
        mask=mask,
        num_low_frequencies=torch.full((num,), 6),
        coil_mask=torch.ones(num, coils, dtype=torch.bool),
        target=target,
        max_value=target.amax().expand(num).clone(),
        weight=torch.ones(num),
        ids=tuple(SampleId("simulated", volume, index) for index in range(num)),
        anatomies=(f"anatomy {volume}",) * num,
    )


@pytest.fixture
def task():
    return ReconstructionConfig().build()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TINY.build()


class Perfect(torch.nn.Module):
    """Answers with the RSS of the k-space it was built with, whatever it is given."""

    def __init__(self, kspace):
        super().__init__()
        self.images = rss(ifft2c(kspace))

    def forward(self, masked_kspace, mask, num_low_frequencies, coil_mask):
        return self.images


def test_the_loss_is_one_minus_ssim_of_the_cropped_images_per_sample(task, model):
    batch = make_batch()
    per_sample = task.loss(model, batch).per_sample
    images = task.reconstruct(model, batch)
    assert images.shape == batch.target.shape
    torch.testing.assert_close(per_sample, SSIMLoss()(images, batch.target, batch.max_value))
    assert per_sample.shape == (3,)


def test_a_perfect_reconstruction_has_no_loss(task):
    batch = make_batch()
    assert task.loss(Perfect(batch.kspace), batch).per_sample.abs().max() < 1e-5


def test_lines_outside_the_mask_are_never_read(task, model):
    batch = make_batch()
    unread = dataclasses.replace(batch, kspace=torch.where(batch.mask, batch.kspace, torch.full_like(batch.kspace, float("nan"))))
    torch.testing.assert_close(task.loss(model, batch).per_sample, task.loss(model, unread).per_sample)
    torch.testing.assert_close(zero_filled(batch), zero_filled(unread))


def test_zero_filled_is_the_rss_of_what_was_acquired(task):
    batch = make_batch()
    expected = center_crop(rss(ifft2c(batch.kspace * batch.mask)), (20, 18))
    torch.testing.assert_close(zero_filled(batch), expected)
    everything = dataclasses.replace(batch, mask=torch.ones_like(batch.mask))
    torch.testing.assert_close(zero_filled(everything), batch.target)


def test_masked_kspace_holds_all_coils_of_what_was_acquired_and_nothing_else():
    batch = make_batch(coils=3)
    shown = masked_kspace(batch)
    acquired = batch.mask[:, 0].expand(shown.shape)
    assert shown.shape == (3, 32, 24)
    assert 0 < (~acquired).sum() < acquired.sum() * 2
    assert not shown[~acquired].any()
    assert torch.allclose(shown[acquired], batch.kspace.abs().square().sum(1).sqrt()[acquired], rtol=1e-5)
    assert (shown[acquired] > 0).all()


def test_a_network_image_narrower_than_the_target_crops_the_target(task, model):
    batch = make_batch(size=(32, 16), recon=(16, 16))
    wider = dataclasses.replace(batch, target=torch.nn.functional.pad(batch.target, (2, 2)))
    torch.testing.assert_close(task.loss(model, wider).per_sample, task.loss(model, batch).per_sample)


def test_validation_scores_are_those_of_whole_volumes_however_they_are_split_over_ranks(task, model):
    batches = [make_batch(volume=name, seed=seed) for seed, name in enumerate(("a", "b"))]
    with torch.no_grad():
        expected = [score_volume(batch.target.numpy(), task.reconstruct(model, batch).numpy()) for batch in batches]
        first, second = task.validation(), task.validation()
        for batch in batches:
            first.add(model, pick(batch, [0, 2]))
            second.add(model, pick(batch, [1, 2]))  # slice 2 comes twice and counts once
    first.merge(second.state())
    scores = first.scores()
    for name in ("nmse", "psnr", "ssim"):
        assert scores[name] == pytest.approx(np.mean([quality[name] for quality in expected]), rel=1e-5)
    table = first.table()
    assert table.columns == ("anatomy", "volumes", "nmse", "psnr", "ssim")
    assert [row[:2] for row in table.rows] == [("anatomy a", 1), ("anatomy b", 1)]
    assert table.rows[1][3] == pytest.approx(expected[1]["psnr"], rel=1e-5)


def test_a_validation_without_samples_has_no_scores(task):
    assert task.validation().scores() == {}


def test_panels_show_all_that_is_compared_and_name_no_patient(task, model):
    with torch.no_grad():
        panels = task.panels(model, make_batch())
    assert [list(panel.images) for panel in panels] == [["zero-filled", "reconstruction", "target", "error x5"]] * 3
    assert panels[1].caption == "simulated/v slice 1"
    assert {image.shape for image in panels[0].images.values()} == {(20, 18)}


def test_bf16_stays_near_fp32_and_its_gradients_are_finite(task, model):
    assert_bf16_stays_near(task, model, make_batch())


def test_one_batch_can_be_overfitted(task, model):
    batch = make_batch(num=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = task.loss(model, batch).per_sample.mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def pick(batch: LinesBatch, rows: list[int]) -> LinesBatch:
    tensors = {name: value[rows] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    return LinesBatch(**tensors, ids=tuple(batch.ids[row] for row in rows), anatomies=tuple(batch.anatomies[row] for row in rows))
