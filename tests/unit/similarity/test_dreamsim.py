"""DreamSim's weights are given, checked and read without running them; with the package at hand, vectors are the package's own."""

import contextlib
import importlib
import importlib.util
import json
import os
import pickle
import shutil
import socket
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from echotrain.errors import CheckpointError, ConfigError
from echotrain.similarity.dreamsim import DreamSimEmbedder, as_picture
from echotrain.similarity.dreamsim_weights import ADAPTER, ADAPTER_CONFIG, CLIP, DINO, OPEN_CLIP, check_files, fetched, read_tensors
from echotrain.similarity.embedders import make_embedder
from echotrain.storage.embedded import serve_folder
from echotrain.storage.open import open_store
from tests.unit.similarity.slices import bars, disc

FILES = (DINO, CLIP, OPEN_CLIP, ADAPTER_CONFIG, ADAPTER)


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a file of every name, which hold nothing."""
    for name in FILES:
        (tmp_path / "weights" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "weights" / name).write_bytes(b"nothing")
    return tmp_path / "weights"


def test_weights_must_be_given():
    with pytest.raises(ConfigError, match=r"embedder='dreamsim': needs --weights.*cache_dir"):
        make_embedder("dreamsim")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=f"lacks {name}\\."):
        make_embedder("dreamsim", str(folder))


@pytest.mark.parametrize("name", FILES)
def test_a_file_larger_than_it_can_be_is_refused_before_it_is_read(folder, name, monkeypatch):
    monkeypatch.setattr(Path, "open", lambda *_, **__: pytest.fail("a file was opened"))
    os.truncate(folder / name, 1 << 40)  # Sparse: it takes no space.
    with pytest.raises(CheckpointError, match=f"{name}: has {1 << 40} bytes where DreamSim's has fewer"):
        make_embedder("dreamsim", str(folder))


def test_a_file_that_unpacks_to_more_than_it_can_hold_is_refused(folder):
    with zipfile.ZipFile(folder / ADAPTER, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data/0", "w") as entry:
        entry.write(bytes(65 << 20))
    assert (folder / ADAPTER).stat().st_size < 1 << 20
    with pytest.raises(CheckpointError, match=f"has {65 << 20} bytes where DreamSim's has fewer"):
        read_tensors(folder, ADAPTER)


def test_a_package_that_is_not_there_is_named_with_the_extra_that_brings_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "dreamsim", None)
    with pytest.raises(ConfigError, match=r"needs a package that is not here.*pip install 'echotrain\[dreamsim\]'"):
        make_embedder("dreamsim", str(folder))


def test_a_torchvision_that_does_not_fit_the_torch_is_said_to_be_that(folder, monkeypatch):
    def fail(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ConfigError, match=r"needs a torchvision that fits the torch here \(operator torchvision::nms"):
        make_embedder("dreamsim", str(folder))


class Shell:
    """Touches a file where it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return Path.touch, (self._path,)


@pytest.mark.parametrize(
    "save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))], ids=["torch", "pickle"]
)
def test_code_in_a_checkpoint_is_refused_and_not_run(folder, tmp_path, save):
    save({"state_dict": {"proj": Shell(tmp_path / "touched")}}, folder / CLIP)
    with pytest.raises(CheckpointError, match=r"clip_vitb16_pretrain.pth.tar: does not hold DreamSim's tensors \(UnpicklingError"):
        read_tensors(folder, CLIP)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "content", [b"", b"nothing", pickle.dumps([1, 2]), pickle.dumps({"proj": 3})], ids=["empty", "text", "list", "number"]
)
def test_a_checkpoint_without_tensors_is_refused(folder, content):
    (folder / CLIP).write_bytes(content)
    with pytest.raises(CheckpointError, match="does not hold DreamSim's tensors"):
        read_tensors(folder, CLIP)


def test_files_in_a_bucket_are_fetched_into_a_folder_that_is_removed(folder, tmp_path, monkeypatch):
    with serve_folder(tmp_path / "s3") as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        uri = f"{server.create_bucket('lab')}/dreamsim"
        for name in FILES:
            open_store(uri).upload(folder / name, name)
        check_files(uri)
        with fetched(uri) as copy:
            assert {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()} == set(FILES)
            assert copy.stat().st_mode & 0o077 == 0
        assert not copy.exists()
        with pytest.raises(CheckpointError, match=f"{uri}/{CLIP}: does not hold"), fetched(uri) as copy:
            read_tensors(copy, CLIP)
        assert not copy.exists()
        open_store(uri).delete(ADAPTER)
        with pytest.raises(ConfigError, match=f"weights={uri}: lacks {ADAPTER}"):
            make_embedder("dreamsim", uri)
    with fetched(str(folder)) as here:
        assert here == folder


def test_a_slice_becomes_a_picture_whatever_its_gain_and_matrix():
    slice_ = disc(0.3) + 0.3 * bars(0.4)
    picture = as_picture(slice_)
    assert picture.shape == (3, 224, 224)
    assert 0 <= picture.min() < 0.01 < 0.99 < picture.max() <= 1
    assert torch.equal(picture[0], picture[2])
    torch.testing.assert_close(as_picture(1e4 * slice_), picture)
    wide = as_picture(np.repeat(slice_, 2, axis=1))  # No aspect is kept.
    assert (wide - picture).abs().mean() < 0.01
    assert as_picture(np.zeros((20, 30), np.float32)) is None


@pytest.fixture(scope="module")
def package():
    """Return DreamSim's package."""
    if importlib.util.find_spec("dreamsim") is None:
        pytest.skip("DreamSim's package is not installed: pip install 'echotrain[dreamsim]' where torch is CUDA's")
    # A torchvision for CUDA beside a torch for CPUs lacks two operators, which DreamSim never calls: they are named for it to import.
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield importlib.import_module("dreamsim.model")
    del library


@pytest.fixture(scope="module")
def weights(package, tmp_path_factory):
    """Return a folder of random weights in the package's own layout, with the head of DINO that only the package asks for."""
    from dreamsim.feature_extraction.vision_transformer import DINOHead, vit_base
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("weights")
    rng = torch.Generator().manual_seed(0)
    for name in (DINO, CLIP, OPEN_CLIP):
        (folder / name).parent.mkdir(exist_ok=True)
        state = {key: torch.randn(value.shape, generator=rng) * 0.05 for key, value in vit_base(16).state_dict().items()}
        if name == DINO:
            torch.save(state, folder / name)
        else:
            tokens = {"pos_drop.weight": torch.ones(768), "pos_drop.bias": torch.zeros(768), "proj": torch.randn(768, 512, generator=rng)}
            torch.save({"state_dict": state | tokens}, folder / name)
    with pytest.warns(FutureWarning, match="weight_norm"):
        head = DINOHead(768, 2048).state_dict()
    head = {f"module.head.{key}": value for key, value in head.items()} | {"module.head.last_layer.weight": torch.ones(2048, 256)}
    torch.save({"student": head}, folder / "dino_vitb16_pretrain.pth")
    (folder / ADAPTER).parent.mkdir()
    config = {"r": 16, "lora_alpha": 8.0, "lora_dropout": 0.3, "bias": "none", "target_modules": ["qkv"], "peft_type": "LORA"}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config))
    places = [f"base_model.model.extractor_list.{e}.model.blocks.{b}.attn.qkv" for e in range(3) for b in range(12)]
    adapters = {f"{place}.lora_A.weight": torch.randn(16, 768, generator=rng) * 0.05 for place in places}
    adapters |= {f"{place}.lora_B.weight": torch.randn(2304, 16, generator=rng) * 0.05 for place in places}
    save_file(adapters, folder / ADAPTER)
    return folder


@pytest.fixture(scope="module")
def embed(weights):
    """Return the embedder, loaded where nothing can be reached."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was asked"))
        patch.setattr(torch.hub, "load", lambda *_, **__: pytest.fail("torch.hub was asked"))
        embedder = make_embedder("dreamsim", str(weights))
        embedder(disc(0.3)[None])
    return embedder


@pytest.mark.slow
def test_vectors_are_those_of_the_package(embed, package, weights, monkeypatch):
    from dreamsim.feature_extraction.vision_transformer import vit_base

    def hub(repository, kind):
        assert (repository, kind) == ("facebookresearch/dino:main", "dino_vitb16")
        model = vit_base(16)
        model.load_state_dict(torch.load(weights / DINO, weights_only=True))
        return model

    monkeypatch.setattr(torch.hub, "load", hub)
    # The package builds an obsolete head, and wraps its adapters twice.
    with pytest.warns(FutureWarning, match="weight_norm"), pytest.warns(UserWarning, match="peft_config"):
        reference, preprocess = package.dreamsim(device="cpu", cache_dir=str(weights))
    images = np.stack([disc(0.3), bars(0.1), np.zeros((96, 96), np.float32)])
    vectors = embed(images)
    assert vectors.dtype == np.float32
    assert not vectors[2].any()
    for image, vector in zip(images[:2], vectors, strict=False):
        expected = reference.embed(as_picture(image)[None])[0].numpy()
        assert vector == pytest.approx(expected, abs=1e-6)
        grey = Image.fromarray((255 * np.clip(image / np.percentile(image, 99.5), 0, 1)).round().astype(np.uint8))
        assert vector @ reference.embed(preprocess(grey))[0].numpy() > 0.999
    # Patches go in as they are, in their own size, a blank one too: nothing else do the authors of the filtering.
    patches = np.stack([0.1 * disc(0.3, side=128), bars(0.1, side=128), np.zeros((128, 128), np.float32)])
    expected = reference.embed(torch.from_numpy(patches)[:, None].expand(-1, 3, -1, -1)).numpy()
    assert embed.embed_patches(patches) == pytest.approx(expected, abs=1e-6)
    assert embed.embed_patches(patches[2:]) == pytest.approx(expected[2:], abs=1e-6)
    assert np.linalg.norm(expected[2]) > 0.5
    with reference.disable_adapter():
        plain = reference.embed(as_picture(images[0])[None])[0].numpy()
    assert np.abs(plain - vectors[0]).max() > 1e-4  # The adapters do count.


@pytest.mark.slow
def test_adapters_that_have_no_place_are_refused(package, weights, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(weights, tmp_path / "copy", copy_function=os.link)
    adapters = load_file(weights / ADAPTER)
    name, value = adapters.popitem()
    (tmp_path / "copy" / ADAPTER).unlink()
    save_file(adapters | {name.replace("extractor_list", "extractors"): value}, tmp_path / "copy" / ADAPTER)
    with pytest.raises(CheckpointError, match=r"2 tensors without a counterpart, first base_model\.model\.extractor"):
        DreamSimEmbedder(str(tmp_path / "copy"))(disc(0.3)[None])
