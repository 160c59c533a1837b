"""A plain ViT as an embedder: the encoder that a masked autoencoder leaves."""

import json
import zipfile

import numpy as np
import pytest
import torch

from echotrain.errors import CheckpointError, ConfigError
from echotrain.models.mae.network import MaeNetworkConfig
from echotrain.similarity.embedders import make_embedder
from echotrain.similarity.vit import Vit

CONFIG = MaeNetworkConfig(side=32, patch=8, width=24, depth=2, heads=3, decoder_width=16, decoder_depth=1, decoder_heads=2)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = CONFIG.build().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return network


@pytest.fixture
def weights(network, tmp_path) -> str:
    torch.save(network.encoder_state(), tmp_path / "encoder.pt")
    (tmp_path / "encoder.json").write_text(json.dumps({"heads": 3}))
    return str(tmp_path / "encoder.pt")


def slices(count: int = 3, shape: tuple[int, int] = (41, 29)) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.random((count, *shape)) * np.linspace(0, 5, shape[1])).astype(np.float32)


def test_it_computes_what_the_encoder_did_with_every_patch_visible(network) -> None:
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    vit = Vit(network.encoder_state(), "state", heads=3)
    assert (vit.side, vit.patch, vit.width) == (32, 8, 24)
    network.mae.vit.embeddings.config.mask_ratio = 0.0
    try:
        tokens = network.mae.vit(images, noise=torch.arange(16.0).expand(3, 16)).last_hidden_state
    finally:
        network.mae.vit.embeddings.config.mask_ratio = CONFIG.mask_ratio
    torch.testing.assert_close(vit.features(images), tokens[:, 1:].mean(dim=1), atol=1e-5, rtol=1e-4)


def test_vectors_are_of_length_1_the_same_every_time_and_alone_as_in_company(weights) -> None:
    embedder, images = make_embedder("vit", weights), slices()
    vectors = embedder(images)
    assert vectors.shape == (3, 24)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert np.array_equal(vectors, make_embedder("vit", weights)(images))
    assert np.array_equal(vectors[1], embedder(images[1:2])[0])
    assert (vectors @ vectors.T)[~np.eye(3, dtype=bool)].max() < 0.999


def test_a_vector_is_the_direction_from_a_blank_image_to_this_one(network, weights) -> None:
    vit = Vit(network.encoder_state(), "state", heads=3)
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    image = (image - image.min()) / (image.max() - image.min())
    difference = (vit.features(image) - vit.features(torch.zeros(1, 1, 32, 32)))[0]
    vector = make_embedder("vit", weights)(image[0].numpy())[0]
    np.testing.assert_allclose(vector, (difference / difference.norm()).numpy(), atol=1e-4)


def test_neither_gain_nor_offset_of_a_slice_counts_and_a_blank_one_is_zero(weights) -> None:
    embedder, images = make_embedder("vit", weights), slices()
    np.testing.assert_allclose(embedder(images), embedder(40 * images + 7), atol=1e-4)
    assert not embedder(np.full((1, 9, 5), 3, np.float32)).any()


def test_a_faint_patch_is_like_nothing_and_a_clear_one_is_not(weights) -> None:
    embedder = make_embedder("vit", weights)
    clear = slices(2, (32, 32)) / 5
    vectors = embedder.embed_patches(np.concatenate([clear, 0.01 * clear, np.zeros((1, 32, 32), np.float32)]))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    to_nothing = vectors @ vectors[-1]
    assert to_nothing[:2].max() < 0.3
    assert to_nothing[2:].min() > 0.9


def test_heads_of_64_channels_are_taken_where_nothing_says_otherwise() -> None:
    torch.manual_seed(0)
    wide = MaeNetworkConfig(side=16, patch=8, width=128, depth=1, heads=2, decoder_width=8, decoder_depth=1, decoder_heads=1).build()
    images = torch.rand(1, 1, 16, 16)
    state = wide.encoder_state()
    assert torch.equal(Vit(state, "state").features(images), Vit(state, "state", heads=2).features(images))
    assert not torch.allclose(Vit(state, "state").features(images), Vit(state, "state", heads=4).features(images))


def test_grey_images_are_shown_to_an_encoder_of_colours_in_all_of_them(network) -> None:
    state = network.encoder_state()
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    coloured = {**state, "patch_embed.proj.weight": state["patch_embed.proj.weight"].expand(-1, 3, -1, -1) / 3}
    torch.testing.assert_close(Vit(coloured, "state", 3).features(images), Vit(state, "state", 3).features(images))


def rename(state, old: str, new: str) -> None:
    state[new] = state.pop(old)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda s: s.pop("pos_embed"), "pos_embed"),
        (lambda s: s.pop("blocks.0.attn.qkv.bias"), r"blocks\.0\.attn\.qkv\.bias"),
        (lambda s: s.update({"blocks.7000.norm1.bias": torch.zeros(24)}), "7001 blocks"),
        (lambda s: s.update({"head.weight": torch.zeros(2)}), r"head\.weight"),
        (lambda s: s.update({"norm.weight": torch.zeros(23)}), r"norm\.weight"),
        (lambda s: s.update({"norm.weight": torch.full((24,), float("nan"))}), r"norm\.weight"),
        (lambda s: s.update({"norm.weight": torch.zeros(24, dtype=torch.int64)}), r"norm\.weight"),
        (lambda s: s.update({"pos_embed": torch.zeros(1, 16, 24)}), "pos_embed"),
        (lambda s: rename(s, "blocks.1.norm1.bias", "blocks.1.norm1.beta"), r"blocks\.1\.norm1"),
    ],
)
def test_what_is_no_plain_vit_is_refused_by_the_tensor(network, damage, said) -> None:
    state = network.encoder_state()
    damage(state)
    with pytest.raises(CheckpointError, match=said):
        Vit(state, "state", heads=3)


def test_heads_that_nobody_says_or_that_do_not_fit_are_refused(network, weights, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="24 channels, of which nothing says the heads"):
        Vit(network.encoder_state(), "state")
    with pytest.raises(CheckpointError, match="24 channels for 5 heads"):
        Vit(network.encoder_state(), "state", heads=5)
    for text in ("[]", '{"heads": "3"}', '{"heads": 0}'):
        (tmp_path / "encoder.json").write_text(text)
        with pytest.raises(CheckpointError, match="does not say the heads"):
            make_embedder("vit", weights)(slices())


def test_files_that_are_none_or_hold_something_else_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="needs --weights"):
        make_embedder("vit")
    with pytest.raises(ConfigError, match="is no file"):
        make_embedder("vit", str(tmp_path / "absent.pt"))
    text = tmp_path / "text.pt"
    text.write_text("no tensors")
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("packed/data.pkl", bytes(1 << 20))
    other = tmp_path / "other.pt"
    torch.save({"epoch": 3}, other)
    for path, said in ((text, "no state_dict"), (packed, "packs nothing"), (other, "something else than tensors")):
        with pytest.raises(CheckpointError, match=said):
            make_embedder("vit", str(path))(slices())
