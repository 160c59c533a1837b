"""The bridge's network: sizes, published weights, and an autoencoder that is nobody's parameter."""

import dataclasses
import importlib.util

import pytest
import torch

from echotrain.config import from_dict, to_dict
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import ConfigError, ResourceError
from echotrain.models.bridge.network import BridgeNetworkConfig
from echotrain.models.bridge.published import import_diffusers, load_autoencoder
from echotrain.models.bridge.space import Latents
from echotrain.models.pretrained import NamesWeights
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.orchestration.runtime.checks import with_absolute_paths
from echotrain.tasks.bridge import BridgeConfig
from echotrain.training.experiment import Experiment
from echotrain.training.optim import OptimConfig
from tests.batches import make_batch

PIXELS = BridgeNetworkConfig(widths=(8, 8), transformers=(0, 0), blocks=1, groups=4)
ATTENDING = BridgeNetworkConfig(widths=(4, 8), transformers=(0, 1), blocks=1, groups=4, head_channels=4)


@pytest.fixture(scope="module")
def published_autoencoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "vae"
    torch.manual_seed(0)
    autoencoder = import_diffusers().AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8),
        norm_num_groups=4,
        latent_channels=3,
        scaling_factor=0.5,
        shift_factor=0.25,
    )
    autoencoder.save_pretrained(folder)
    return folder


@pytest.fixture
def latents(published_autoencoder):
    return dataclasses.replace(ATTENDING, space="latent", latent_channels=3, autoencoder=str(published_autoencoder))


def experiment(model):
    return Experiment(task=BridgeConfig(), model=model, data=LinesData(catalog="somewhere"))


@pytest.mark.parametrize("config", [PIXELS, ATTENDING])
@pytest.mark.parametrize("size", [(16, 12), (15, 13), (1, 7)])
def test_a_direction_has_the_shape_of_its_point_whatever_the_size(config, size):
    model = config.build()
    x = torch.randn(2, 1, *size)
    assert model(x, torch.tensor([0.25, 1.0])).shape == x.shape


def test_the_network_knows_where_on_the_bridge_it_is():
    torch.manual_seed(0)
    model = PIXELS.build()
    here, there = model(torch.ones(2, 1, 8, 8), torch.tensor([0.25, 1.0]))
    assert not torch.allclose(here, there, atol=1e-4)


def test_every_parameter_takes_part_so_that_ddp_waits_for_none():
    model = ATTENDING.build()
    model(torch.randn(1, 1, 8, 8), torch.ones(1)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_recomputing_activations_changes_no_gradient():
    torch.manual_seed(0)
    plain, frugal = ATTENDING.build(), dataclasses.replace(ATTENDING, activation_checkpointing=True).build()
    frugal.load_state_dict(plain.state_dict())
    for model in (plain, frugal):
        model.train()(torch.ones(1, 1, 8, 8), torch.ones(1)).sum().backward()
    for one, other in zip(plain.parameters(), frugal.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_what_names_no_weights_is_not_asked_for_them():
    assert isinstance(PIXELS, NamesWeights)
    assert not isinstance(VarNetConfig(), NamesWeights)


def test_latents_are_the_posterior_means_shifted_and_scaled(published_autoencoder):
    autoencoder = load_autoencoder("model.autoencoder", str(published_autoencoder), torch.device("cpu"))
    images = torch.rand(2, 1, 8, 6) * 2 - 1
    means = autoencoder.encode(images.repeat(1, 3, 1, 1)).latent_dist.mean
    codes = Latents(autoencoder).encode(images)
    torch.testing.assert_close(codes, (means - 0.25) * 0.5)
    torch.testing.assert_close(Latents(autoencoder).decode(codes, (8, 6)), autoencoder.decode(means).sample.mean(dim=1, keepdim=True))


def test_latents_of_odd_images_come_back_in_their_size(published_autoencoder):
    space = Latents(load_autoencoder("model.autoencoder", str(published_autoencoder), torch.device("cpu")))
    codes = space.encode(torch.zeros(1, 1, 15, 13))
    assert codes.shape == (1, 3, 8, 7)
    assert space.decode(codes, (15, 13)).shape == (1, 1, 15, 13)


@pytest.mark.parametrize("ssim_weight", [0.0, 1.0])
def test_an_autoencoder_is_used_but_not_trained_saved_or_moved(latents, ssim_weight):
    torch.manual_seed(0)
    model, task, batch = latents.build(), BridgeConfig(ssim_weight=ssim_weight).build(), make_batch(epoch=0)
    optimizer = OptimConfig().build(model)
    before = set(model.state_dict())
    autoencoder = model.space(torch.device("cpu"))._autoencoder
    weights = {name: value.clone() for name, value in autoencoder.state_dict().items()}
    with torch.inference_mode():
        assert task.reconstruct(model, batch).shape == batch.target.shape
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = task.loss(model, batch).per_sample.mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert set(model.state_dict()) == before
    assert all(name.startswith("unet.") for name in before)
    optimised = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert optimised == {id(parameter) for parameter in model.parameters()}
    assert optimised.isdisjoint(id(parameter) for parameter in autoencoder.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in autoencoder.state_dict().items())


def test_a_checkpoint_without_the_autoencoder_makes_the_same_images(latents):
    torch.manual_seed(0)
    model, batch, task = latents.build(), make_batch(), BridgeConfig().build()
    again = latents.build()
    again.load_state_dict(model.state_dict())
    with torch.inference_mode():  # As evaluation does; what it loads there must serve a later training as well.
        assert torch.equal(task.reconstruct(again, batch), task.reconstruct(model, batch))
    task.loss(again, batch).per_sample.sum().backward()


def test_loading_an_autoencoder_draws_nothing(latents):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_autoencoder("model.autoencoder", latents.autoencoder, torch.device("cpu"))
    assert torch.equal(torch.rand(1), expected)


def test_weights_are_found_before_training_and_named_absolutely(latents, published_autoencoder, monkeypatch):
    monkeypatch.chdir(published_autoencoder.parent)
    found = with_absolute_paths(experiment(dataclasses.replace(latents, autoencoder="vae"))).model
    assert found == latents
    assert from_dict(Experiment, to_dict(experiment(found))).model == found


def test_autoencoders_that_cannot_be_used_are_refused_before_training(latents, published_autoencoder, tmp_path):
    def refused(**changes):
        with pytest.raises(ConfigError) as caught:
            with_absolute_paths(experiment(dataclasses.replace(latents, **changes)))
        return str(caught.value)

    assert "names no autoencoder" in refused(autoencoder="")
    assert "holds no config.json and no diffusion_pytorch_model.safetensors" in refused(autoencoder=str(tmp_path / "nowhere"))
    assert "model.latent_channels=4: is not what" in refused(latent_channels=4)
    assert "model.init" in refused(init=str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"short")
    assert "cannot be read" in refused(autoencoder=str(tmp_path))


def test_a_damaged_autoencoder_is_told_from_a_whole_one(published_autoencoder, tmp_path):
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    (tmp_path / "config.json").write_bytes((published_autoencoder / "config.json").read_bytes())
    whole = (published_autoencoder / weights.name).read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ConfigError, match=r"model\.autoencoder=.*cannot be read"):
        load_autoencoder("model.autoencoder", str(tmp_path), torch.device("cpu"))
    from safetensors.torch import load, save_file

    tensors = load(whole)
    del tensors["decoder.conv_out.weight"]
    save_file(tensors, weights)
    with pytest.raises(ConfigError, match=r"it lacks decoder\.conv_out\.weight"):
        load_autoencoder("model.autoencoder", str(tmp_path), torch.device("cpu"))


@pytest.fixture
def text_unet(tmp_path):
    """Save a network for text of the same sizes, as those that are published are."""
    torch.manual_seed(1)
    own = dict(ATTENDING.build().unet.config)
    unet = import_diffusers().UNet2DConditionModel.from_config({**own, "cross_attention_dim": 6})
    unet.save_pretrained(tmp_path / "unet")
    return tmp_path / "unet", unet.state_dict()


def test_a_published_text_network_gives_all_but_what_reads_the_text(text_unet):
    folder, given = text_unet
    config = dataclasses.replace(ATTENDING, init=str(folder))
    model = config.build()
    fresh = {name: value.clone() for name, value in model.unet.state_dict().items()}
    config.initialise(model)
    for name, value in model.unet.state_dict().items():
        is_text = name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight"))
        assert torch.equal(value, fresh[name] if is_text else given[name]), name


def test_published_weights_of_other_sizes_are_refused(text_unet):
    assert with_absolute_paths(experiment(dataclasses.replace(ATTENDING, init=str(text_unet[0])))).model.init == str(text_unet[0])
    config = dataclasses.replace(ATTENDING, widths=(8, 8), init=str(text_unet[0]))
    with pytest.raises(ConfigError, match=r"is a U-Net of widths \[4, 8\], and this one has \[8, 8\]"):
        with_absolute_paths(experiment(config))
    with pytest.raises(ConfigError, match=r"model\.init=.*lacks"):
        config.initialise(config.build())


def test_a_network_begins_where_it_was_built_where_no_weights_are_named():
    model = PIXELS.build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    PIXELS.initialise(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_without_diffusers_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"diffusers: is not installed. Install it with: pip install 'echotrain\[lbm\]'"):
        PIXELS.build()
    with pytest.raises(ResourceError, match="not installed"):
        with_absolute_paths(experiment(PIXELS))


def test_a_network_of_another_kind_is_refused(published_autoencoder, latents):
    with pytest.raises(ConfigError, match=r"model\.init=.*is a AutoencoderKL by its config\.json, not a UNet2DConditionModel"):
        with_absolute_paths(experiment(dataclasses.replace(latents, init=str(published_autoencoder))))
