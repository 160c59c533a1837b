"""The masked autoencoder and its encoder."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch

from echotrain.errors import ConfigError
from echotrain.models.mae.network import MaeNetworkConfig, patchify, sine_positions, unpatchify

TINY = MaeNetworkConfig(
    side=32, patch=8, width=24, depth=2, heads=3, decoder_width=16, decoder_depth=1, decoder_heads=2, mask_ratio=0.75
)  # fmt: skip


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return TINY.build().eval()


def images(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def test_the_papers_network_has_its_number_of_parameters() -> None:
    with torch.device("meta"):
        network = MaeNetworkConfig().build()
    # ViT-MAE base has 111,907,840 of them; of three channels' patches one is left, in the embedding and in the prediction.
    one_channel = 111_907_840 - 2 * 16 * 16 * 768 - 2 * 16 * 16 * (512 + 1)
    assert sum(parameter.numel() for parameter in network.parameters()) == one_channel
    assert sum(tensor.numel() for tensor in network.encoder_state().values()) == 85_798_656 - 2 * 16 * 16 * 768


def test_it_is_made_without_torchvision_and_without_a_network(tmp_path) -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('a network was asked for')\n"
        "socket.socket.connect = socket.create_connection = refuse\n"
        "sys.modules['torchvision'] = None\n"
        "from echotrain.models.mae.network import MaeNetworkConfig\n"
        "MaeNetworkConfig(side=16, patch=8, width=8, depth=1, heads=1, decoder_width=8, decoder_depth=1, decoder_heads=1).build()\n"
    )
    environment = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)


def test_the_network_knows_where_patches_lie_and_begins_as_its_seed_says() -> None:
    torch.manual_seed(5)
    first = TINY.build()
    torch.manual_seed(5)
    second = TINY.build()
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())
    for positions, width in ((first.mae.vit.embeddings.position_embeddings, 24), (first.mae.decoder.decoder_pos_embed, 16)):
        assert torch.equal(positions, sine_positions(4, width))
        assert not positions.requires_grad
        assert len({tuple(position) for position in positions[0].tolist()}) == 17
    assert not any((parameter == 0).all() for name, parameter in first.named_parameters() if not name.endswith("bias"))


def test_positions_are_sines_of_the_column_then_of_the_row() -> None:
    positions = sine_positions(3, 8)[0]
    row, column = positions[1 + 2 * 3 + 1, 4:], positions[1 + 2 * 3 + 1, :4]
    frequencies = np.array([1, 0.01])
    np.testing.assert_allclose(row, np.concatenate([np.sin(2 * frequencies), np.cos(2 * frequencies)]), rtol=1e-6)
    np.testing.assert_allclose(column, np.concatenate([np.sin(frequencies), np.cos(frequencies)]), rtol=1e-6)
    assert not positions[0].any()


def test_the_patches_of_the_smallest_noise_are_seen_and_only_they_count(network) -> None:
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(2))
    before = network(images(), noise)
    assert before.mask.sum(dim=1).tolist() == [12, 12, 12]
    assert torch.equal(before.mask.bool(), noise.argsort().argsort() >= 4)
    hidden = unpatchify(before.mask[..., None].expand(-1, -1, 64), 8)
    unseen = network(torch.where(hidden.bool(), torch.rand_like(hidden), images()), noise)
    assert torch.equal(unseen.predicted, before.predicted)
    seen = network(torch.where(hidden.bool(), images(), 0.5), noise)
    assert not torch.allclose(seen.predicted, before.predicted)


def test_an_image_is_predicted_alike_whatever_shares_its_batch(network) -> None:
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(2))
    together = network(images(), noise).predicted
    torch.testing.assert_close(together[1:2], network(images()[1:2], noise[1:2]).predicted)


@pytest.mark.parametrize("patch", [4, 8])
def test_patches_are_cut_row_by_row_and_put_together_again(patch) -> None:
    image = torch.arange(2 * 16 * 16.0).reshape(2, 1, 16, 16)
    patches = patchify(image, patch)
    assert torch.equal(unpatchify(patches, patch), image)
    assert torch.equal(patches[1, 1].reshape(patch, patch), image[1, 0, :patch, patch : 2 * patch])


def test_patches_are_those_of_transformers(network) -> None:
    torch.testing.assert_close(patchify(images(), 8), network.mae.patchify(images()))


def test_the_encoder_leaves_under_timms_names_loadable_as_weights_alone_and_is_a_copy(network) -> None:
    state = network.encoder_state()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)
    own = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias"}
    parts = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    blocks = {f"blocks.{i}.{part}.{kind}" for i in range(2) for part in parts for kind in ("weight", "bias")}
    assert set(loaded) == own | blocks
    assert loaded["blocks.1.attn.qkv.weight"].shape == (72, 24)
    assert loaded["pos_embed"].abs().sum() > 0
    state["norm.weight"].zero_()
    assert network.encoder_state()["norm.weight"].abs().sum() > 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"side": 225}, "model.side=225"),
        ({"width": 770}, "model.width=770"),
        ({"decoder_width": 520, "decoder_heads": 16}, "model.decoder_width=520"),
        ({"mask_ratio": 1.0}, "mask_ratio=1.0"),
        ({"mask_ratio": 0.999}, "mask_ratio=0.999"),
        ({"mask_ratio": 0.001}, "mask_ratio"),
        ({"depth": 0}, "model.depth=0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(wrong, said) -> None:
    if wrong == {"mask_ratio": 0.001}:
        wrong = {"mask_ratio": 0.001, "side": 16, "patch": 16}
    with pytest.raises(ConfigError, match=said):
        MaeNetworkConfig(**wrong)
