"""DreamSim as an embedder: the one that MosaicMRI filters with, for those who have its package and its weights.

Source: Fu et al., "DreamSim: Learning New Dimensions of Human Visual Similarity using Synthetic Data", NeurIPS 2023: the ensemble, the
package's default, of DINO, CLIP and OpenCLIP ViT-B/16 with LoRA adapters. What it is used for: MosaicMRI (arXiv:2604.11762), 5.6.

The package's own ``dreamsim()`` downloads what it does not find, and has torch.hub fetch and run a repository for DINO even where its
own files are there. So only its networks are taken, as they compute, and never its loading: their weights are read here.
"""

import contextlib
import functools
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from echotrain.errors import ConfigError
from echotrain.similarity.dreamsim_weights import (
    ADAPTER,
    ADAPTER_CONFIG,
    CLIP,
    DINO,
    OPEN_CLIP,
    check_files,
    damaged,
    fetched,
    read_tensors,
)
from echotrain.similarity.white import scaled_to_white

__all__ = ["DreamSimEmbedder", "as_picture"]

_SIDE = 224
_LENGTH = 768 + 512 + 512
_BATCH = 32
_PACKAGES = ("dreamsim.model", "peft", "safetensors.torch")
_ADAPTER_KEYS = ("r", "lora_alpha", "lora_dropout", "bias", "target_modules")


class DreamSimEmbedder:
    """DreamSim's ensemble, on the CPU.

    Its files and its package are checked at once, its gigabyte of weights is read with the first image.

    Args:
        weights: Folder or ``s3://`` prefix with the files of ``dreamsim_weights``.

    Raises:
        ConfigError: The weights are not given or not complete, or the package cannot be imported.
        CheckpointError: A file is larger than it can be.
    """

    name = "dreamsim"

    def __init__(self, weights: str) -> None:
        check_files(weights)
        _import_package()
        self._weights = weights

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return vectors (n, 1792), the mean of each subtracted before it is scaled to length 1, as the package does.

        Raises:
            CheckpointError: The weights are not DreamSim's.
        """
        vectors = np.zeros((len(images), _LENGTH), np.float32)
        pictures = {position: picture for position, image in enumerate(images) if (picture := as_picture(image)) is not None}
        if pictures:
            with torch.inference_mode():
                vectors[list(pictures)] = self._network.embed(torch.stack(list(pictures.values()))).numpy()
        return vectors

    def embed_patches(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return vectors (n, 1792) of patches as they are, an all-zero one included: in their own size and neither rescaled nor clipped.

        Source: the authors' code, which gives the network 128 x 128 pixels instead of its 224 x 224. A side is a multiple of 16.

        Raises:
            CheckpointError: The weights are not DreamSim's.
        """
        vectors = []
        with torch.inference_mode():
            for start in range(0, len(patches), _BATCH):
                grey = torch.from_numpy(np.ascontiguousarray(patches[start : start + _BATCH], np.float32))
                vectors.append(self._network.embed(grey[:, None].expand(-1, 3, -1, -1)).reshape(len(grey), -1).numpy())
        return np.concatenate(vectors)

    @functools.cached_property
    def _network(self) -> Any:
        with fetched(self._weights) as folder:
            return _load_network(folder)


def as_picture(image: NDArray[np.float32]) -> Tensor | None:
    """Return a magnitude slice as DreamSim sees it: (3, 224, 224) in [0, 1], the three channels alike; None where it is blank.

    The slice is divided by its 99.5th percentile and clipped, then resized by an antialiasing bicubic filter without keeping its aspect.
    The package's own preprocessing resizes 8-bit pictures in the same way; here nothing is rounded to 8 bits.
    """
    scaled = scaled_to_white(image)
    if scaled is None:
        return None
    clipped = torch.from_numpy(np.clip(scaled, 0, 1).astype(np.float32))
    resized = nn.functional.interpolate(clipped[None, None], (_SIDE, _SIDE), mode="bicubic", antialias=True)
    return resized[0].clamp(0, 1).expand(3, -1, -1)


def _import_package() -> None:
    try:
        for package in _PACKAGES:
            importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            "embedder='dreamsim'", f"needs a package that is not here ({error})", "Install it: pip install 'echotrain[dreamsim]'."
        ) from error
    except RuntimeError as error:  # A torchvision for CUDA beside a torch for CPUs: "operator torchvision::nms does not exist".
        raise ConfigError(
            "embedder='dreamsim'",
            f"needs a torchvision that fits the torch here ({error})",
            "Install both for the same device: pip install 'echotrain[dreamsim]' where torch is CUDA's.",
        ) from error


def _load_network(folder: Path) -> Any:
    """Return the package's ensemble with its adapters merged into its weights."""
    from dreamsim.config import dreamsim_args
    from dreamsim.model import PerceptualModel

    with _backbones_from(folder):
        network = PerceptualModel(**dreamsim_args["model_config"]["ensemble"], device="cpu", load_dir="", normalize_embeds=True)
    with damaged(folder / ADAPTER):
        return _adapted(network, folder).eval().requires_grad_(False)


@contextlib.contextmanager
def _backbones_from(folder: Path) -> Iterator[None]:
    """Have the package take its backbones from here for as long as the block lasts: it would fetch and run DINO's repository."""
    from dreamsim.feature_extraction.extractor import ViTExtractor

    makers: dict[str, Callable[[], Any]] = {
        "dino_vitb16": lambda: _dino(folder),
        "clip_vitb16": lambda: _clip(folder, CLIP, is_quick=True),
        "open_clip_vitb16": lambda: _clip(folder, OPEN_CLIP, is_quick=False),
    }

    def create(kind: str, load_dir: str) -> Any:
        return makers[kind]()

    original = ViTExtractor.create_model
    ViTExtractor.create_model = staticmethod(create)
    try:
        yield
    finally:
        ViTExtractor.create_model = staticmethod(original)


def _dino(folder: Path) -> nn.Module:
    from dreamsim.feature_extraction.vision_transformer import vit_base

    backbone: nn.Module = vit_base(patch_size=16)
    state = read_tensors(folder, DINO)
    with damaged(folder / DINO):
        backbone.load_state_dict(state)
    return backbone


def _clip(folder: Path, name: str, *, is_quick: bool) -> tuple[nn.Module, Tensor]:
    """Return a CLIP image encoder in DINO's shape, and its projection; the same changes as in the package's ``load_*clip_as_dino``."""
    from dreamsim.feature_extraction.load_clip_as_dino import QuickGELU
    from dreamsim.feature_extraction.vision_transformer import vit_base

    backbone: Any = vit_base(patch_size=16)
    backbone.pos_drop = nn.LayerNorm(backbone.embed_dim)  # CLIP's tokens are normalised where they enter.
    state = read_tensors(folder, name)
    with damaged(folder / name):
        projection: Tensor = state.pop("proj")
        if projection.shape != (backbone.embed_dim, 512):
            raise ValueError(f"proj has shape {tuple(projection.shape)}")
        backbone.load_state_dict(state)
    for module in backbone.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    if is_quick:
        for block in backbone.blocks:
            block.mlp.act = QuickGELU()
    return backbone, projection


def _adapted(network: nn.Module, folder: Path) -> Any:
    """Merge the LoRA adapters into the network; every tensor of theirs must have its place, and every place its tensor."""
    import peft
    from safetensors.torch import load_file

    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    adapters = load_file(folder / ADAPTER)
    wrapped = peft.get_peft_model(network, peft.LoraConfig(**{key: config[key] for key in _ADAPTER_KEYS}))
    places = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    differing = sorted(set(places) ^ set(adapters))
    if differing:
        raise ValueError(f"{len(differing)} tensors without a counterpart, first {differing[0]}")
    peft.set_peft_model_state_dict(wrapped, adapters)
    return wrapped.merge_and_unload()
