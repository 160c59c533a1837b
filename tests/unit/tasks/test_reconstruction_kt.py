"""Reconstruction of windows of frames by the task that reconstructs slices, which knows neither by name."""

import dataclasses

import pytest
import torch

from echotrain.data.planned import PlannedStream
from echotrain.data.samples.kspace_kt import KtData
from echotrain.errors import ConfigError
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.physics.coils import rss
from echotrain.physics.fft import ifft2c
from echotrain.physics.kt_masks import KtMaskConfig
from echotrain.tasks.reconstruction import ReconstructionConfig, masked_kspace, zero_filled
from tests.frame_catalogs import moving_disc, write_frames

SMALL = VarNetConfig(num_cascades=2, chans=4, pools=2, sens_chans=3, sens_pools=2, num_adjacent=3)
TASK = ReconstructionConfig().build()
MASK = KtMaskConfig(kinds=("kt_gaussian", "kt_radial"), accelerations=(4,), acs_lines=6)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disc")
    return write_frames(folder, shapes=((3, 33, 36), (2, 33, 36)), volumes=4, slices=1, splits=("train", "val"), draw=moving_disc)


def stream_of(written, batch_size=6, **data):
    settings = {"mask": MASK, "num_adjacent": 3, "edges": "circular", **data}
    return PlannedStream(KtData(catalog=written.catalog.root, **settings), seed=1, batch_size=batch_size, catalog=written.catalog)


def batches_of(written, **options):
    return [batch for step in stream_of(written, **options).steps(0) for batch in step.batches]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SMALL.build()


def test_each_sample_has_a_loss_of_its_own_frame_whatever_shares_the_batch(written, model):
    together = {}
    for batch in batches_of(written):
        together.update(zip(batch.ids, TASK.loss(model, batch).per_sample.tolist(), strict=True))
    alone = {}
    for batch in batches_of(written, batch_size=1):
        alone.update(zip(batch.ids, TASK.loss(model, batch).per_sample.tolist(), strict=True))
    assert len(together) == 12
    assert alone == pytest.approx(together, rel=1e-4)


def test_the_baseline_is_of_the_sample_s_own_frame(written):
    for batch in batches_of(written):
        for index, sample in enumerate(batch.ids):
            coils = written.kspace[sample].shape[0]
            own = batch.windows[index, 1]
            acquired = torch.from_numpy(written.kspace[sample]) * batch.mask[own]
            torch.testing.assert_close(zero_filled(batch)[index], rss(ifft2c(acquired)), rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(masked_kspace(batch)[index], rss(acquired), rtol=1e-5, atol=1e-6)
            assert not batch.acquired()[index, coils:].any()


def test_validation_scores_volumes_over_all_frames_and_pictures_name_theirs(written, model):
    validation = TASK.validation()
    captions = []
    for batch in stream_of(written).evaluation():
        with torch.no_grad():
            validation.add(model, batch)
            captions += [panel.caption for panel in TASK.panels(model, batch)]
    assert sorted(captions) == sorted(f"cine/P00{volume} slice 0 frame {frame}" for volume in (1, 3) for frame in range(6))
    assert set(validation.scores()) == {"nmse", "psnr", "ssim"}
    assert validation.table().rows[0][:2] == ("heart", 2)


def test_windows_that_the_network_does_not_take_are_refused(written, model):
    (batch, *_) = batches_of(written, num_adjacent=1)
    with pytest.raises(ConfigError, match=r"samples of 1 frame.*model\.num_adjacent=3"):
        TASK.loss(model, batch)


@pytest.mark.parametrize(("kinds", "num_adjacent"), [(("kt_gaussian",), 1), (("kt_radial",), 3)])
def test_a_moving_phantom_can_be_learned_by_heart(written, kinds, num_adjacent):
    torch.manual_seed(0)
    model = dataclasses.replace(SMALL, num_adjacent=num_adjacent, chans=8).build()
    mask = dataclasses.replace(MASK, kinds=kinds, accelerations=(10,), acs_lines=4)
    (batch, *_) = batches_of(written, mask=mask, num_adjacent=num_adjacent, batch_size=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        loss = (model(*batch.network_input()) - batch.target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.15 * losses[0]
    assert losses[-1] < 0.4 * (zero_filled(batch) - batch.target).square().mean().item()
