"""Published weights through the path that evaluate and reconstruct load them by: the public network's own image comes out."""

import argparse
import hashlib
import os
import re
from pathlib import Path

import pytest
import torch

from echotrain.data.catalog.identity import SampleId
from echotrain.data.samples.kspace_lines import LinesBatch
from echotrain.errors import CheckpointError, ConfigError
from echotrain.orchestration.jobs.inference import InferenceConfig
from echotrain.training.published import describe_published, is_weights_file, load_published
from tests.parity.test_varnet_parity import SMALL, assert_close, run_public, scan

fastmri_models = pytest.importorskip("fastmri.models", reason="the public implementation is not installed")


class Hostile:
    """Makes a file when it is unpickled as pickles are meant to be."""

    def __init__(self, marker):
        self._marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self._marker),)


def public_network(**changes):
    torch.manual_seed(3)
    network = fastmri_models.VarNet(**{**SMALL, **changes}).eval()
    with torch.no_grad():
        # As initialised, every cascade weighs its data consistency with 1; trained ones do not.
        for number, cascade in enumerate(network.cascades):
            cascade.dc_weight.fill_(0.7 + 0.2 * number)
    return network


def saved(kind, state, folder):
    """Write the public network's weights in one of the forms that are found."""
    prefixes = {"module": "module.", "compiled": "_orig_mod.module.", "lightning": "varnet.", "legacy": "module.varnet.", "plain": ""}
    named = {f"{prefixes[kind]}{name}": tensor for name, tensor in state.items()}
    content = named
    if kind in ("lightning", "legacy"):
        content = {
            "state_dict": {**named, "loss.w": torch.ones(1, 1, 7, 7)},
            "hyper_parameters": argparse.Namespace(lr=3e-4, logger=Hostile(folder / "ran")),
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        }
    path = folder / f"knee_{kind}.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=kind != "legacy")
    return str(path)


def batch_of(kspace, mask, num_low):
    size = kspace.shape[-2:]
    return LinesBatch(
        kspace=kspace,
        mask=mask,
        num_low_frequencies=torch.tensor([num_low]),
        coil_mask=torch.ones(1, kspace.shape[1], dtype=torch.bool),
        target=torch.zeros(1, *size),
        max_value=torch.ones(1),
        weight=torch.ones(1),
        ids=(SampleId("d", "v", 0),),
    )


@pytest.mark.parametrize("size", [(48, 40), (33, 47)])
@pytest.mark.parametrize("kind", ["plain", "lightning", "legacy", "module", "compiled"])
def test_published_weights_give_the_public_network_s_image(tmp_path, kind, size):
    network = public_network()
    path = saved(kind, network.state_dict(), tmp_path)
    method, subject = InferenceConfig(run=path).resolved()
    assert subject.sha256 == hashlib.sha256((tmp_path / f"knee_{kind}.ckpt").read_bytes()).hexdigest()
    assert subject.weights == path
    assert re.fullmatch(rf"E2E-VarNet, 2 cascades, 4 channels \(knee_{kind}\.ckpt\)", subject.model)
    kspace, mask = scan(*size)
    with torch.no_grad():
        expected = run_public(network, kspace, mask, 8)
        assert_close(method.load().reconstruct(batch_of(kspace, mask, 8)), expected)
    assert not (tmp_path / "ran").exists()


def test_sensitivities_without_a_mask_are_for_the_user_to_say(tmp_path):
    network = public_network(mask_center=False)
    path = saved("plain", network.state_dict(), tmp_path)
    kspace, mask = scan(40, 44)
    with torch.no_grad():
        expected = run_public(network, kspace, mask, 8)
        assert_close(load_published(path, ["model.mask_center=false"]).reconstruct(batch_of(kspace, mask, 8)), expected)
        with pytest.raises(AssertionError, match="relative difference"):
            assert_close(load_published(path).reconstruct(batch_of(kspace, mask, 8)), expected)


def test_what_is_not_a_whole_varnet_is_refused_by_name(tmp_path):
    state = public_network().state_dict()
    unet = fastmri_models.Unet(1, 1, chans=4, num_pool_layers=2).state_dict()
    without_one = dict(list(state.items())[:-1])
    for name, content, words in (
        ("unet", unet, "it is a U-Net"),
        ("lightning_unet", {"state_dict": {f"unet.{key}": tensor for key, tensor in unet.items()}}, "it is a U-Net"),
        ("cut", without_one, r"lacks 1 tensors \(first: cascades\.1\."),
        ("more", {**state, "extra": torch.ones(1)}, r"has 1 tensors that the model has not \(first: extra\)"),
    ):
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(CheckpointError, match=rf"{name}\.pt: .*{words}"):
            describe_published(str(tmp_path / f"{name}.pt"))


def test_settings_that_weights_cannot_have_are_refused(tmp_path):
    path = saved("plain", public_network().state_dict(), tmp_path)
    with pytest.raises(CheckpointError, match="another model"):
        describe_published(path, ["model.chans=8"])
    with pytest.raises(ConfigError, match=r"model\.kind=bridge"):
        describe_published(path, ["model.kind=bridge", "task.kind=bridge"])
    with pytest.raises(ConfigError, match="checkpoint=latest"):
        InferenceConfig(run=path, checkpoint="latest").resolved()


def test_a_file_that_changes_between_the_driver_and_a_worker_is_refused(tmp_path):
    path = saved("plain", public_network().state_dict(), tmp_path)
    method, _ = InferenceConfig(run=path).resolved()
    other = public_network()
    torch.nn.init.zeros_(other.cascades[0].dc_weight)
    saved("plain", other.state_dict(), tmp_path)
    with pytest.raises(CheckpointError, match="was begun with"):
        method.load()


def test_a_folder_is_a_run_and_a_file_is_weights(tmp_path):
    path = saved("plain", public_network().state_dict(), tmp_path)
    assert is_weights_file(path)
    assert not is_weights_file(str(tmp_path))
    assert not is_weights_file(str(tmp_path / "none.pt"))


@pytest.mark.parametrize("key", ["knee.pt", "/knee.pt", "models//knee.pt", "models #1//x/knee.pt"])
def test_weights_are_found_and_read_where_their_key_says_letter_by_letter(tmp_path, keyed_s3, key):
    path = saved("plain", public_network().state_dict(), tmp_path)
    keyed_s3.objects["lab", key] = Path(path).read_bytes()
    keyed_s3.objects["lab", "models/knee.pt"] = b"another file"
    uri = f"s3://lab/{key}"
    assert is_weights_file(uri)
    assert not is_weights_file(uri.rpartition("/")[0])
    assert not is_weights_file(f"{uri}/")
    found = describe_published(uri)
    assert found.name == "knee.pt"
    ours, same = (load_published(place).model.state_dict() for place in (uri, path))
    assert all(torch.equal(ours[name], same[name]) for name in same)
