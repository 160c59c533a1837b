"""A plain ViT as an embedder: the encoder of a run of ours, or any other whose tensors have timm's names.

The network is a function of its tensors; it needs neither timm nor the code that trained it. Source: Dosovitskiy et al.,
arXiv:2010.11929, with normalisation before each layer; features are the mean of the patches' tokens, as MAE's own linear probes take it.
"""

import functools
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from echotrain.augmentation.fit import fit_square, resize
from echotrain.errors import CheckpointError, ConfigError
from echotrain.shapes import Channels
from echotrain.storage.bounded_read import read_json
from echotrain.storage.folder import as_file
from echotrain.storage.open import store_of

__all__ = ["Vit", "VitEmbedder"]

# ViT-g has 1.1 billion parameters.
_LARGEST_FILE = 5 << 30
_LARGEST_SHAPE = 64 << 10
_HEAD = 64
_EPSILON = 1e-6
_REMEDY = "Give the file of python -m ray_jobs.export, or another plain ViT's state_dict with timm's names."
# As for the embedder of gradients: how strong a patch must be to be told from nothing, as a share of its volume's maximum.
_FAINT = 0.015
_OUTSIDE = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias")
_BLOCK = re.compile(r"blocks\.(\d{1,4})\.")


class VitEmbedder:
    """A plain ViT on the CPU; vectors say how an image differs from a blank one.

    Without that difference every two images would be alike: the tokens of such networks have most of their length in common.

    Args:
        weights: Path or ``s3://`` URI of a state_dict. A ``.json`` beside it says the heads; without one, heads have 64 channels.

    Raises:
        ConfigError: The weights are not given, or not there.
        CheckpointError: The file is larger than it can be.
    """

    name = "vit"

    def __init__(self, weights: str) -> None:
        if not weights:
            raise ConfigError("embedder='vit'", "needs --weights", _REMEDY)
        store, key = store_of(weights)
        size = store.size(key) if key else None
        if size is None:
            raise ConfigError(f"weights={weights}", "is no file", _REMEDY)
        if size > _LARGEST_FILE:
            raise CheckpointError(weights, f"has {size} bytes, and at most {_LARGEST_FILE} are read", _REMEDY)
        self._weights = weights

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return vectors (n, width): each slice scaled by its own range, padded to a square and resized to the network's side.

        Raises:
            CheckpointError: The file holds no plain ViT.
        """
        return np.stack([self._embed(image) for image in images])

    def embed_patches(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return vectors (n, width + 1): a patch's looks, times its standard deviation, beside a constant that alone is left of nothing.

        So two clear patches are compared by their looks, and a patch is the more like an all-zero one the fainter it is.
        """
        return np.stack([self._embed_patch(patch) for patch in patches])

    def _embed(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        low, high = float(image.min()), float(image.max())
        if not high > low:
            return np.zeros(self._vit.width, np.float32)
        unit = (torch.from_numpy(np.ascontiguousarray(image, np.float32)) - low) / (high - low)
        return self._from_blank(fit_square(unit[None, None], self._vit.side))

    def _embed_patch(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        clipped = torch.from_numpy(np.clip(patch, 0, 1).astype(np.float32))
        vector = np.append(float(patch.std()) * self._from_blank(resize(clipped[None, None], self._vit.side)), np.float32(_FAINT))
        return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)

    def _from_blank(self, image: Channels) -> NDArray[np.float32]:
        """Return the direction, of length 1, from a blank image to this one; zero where it is blank itself."""
        with torch.inference_mode():
            difference = (self._vit.features(image) - self._blank)[0].numpy()
        return np.asarray(difference / max(float(np.linalg.norm(difference)), 1e-12), dtype=np.float32)

    @functools.cached_property
    def _vit(self) -> "Vit":
        store, key = store_of(self._weights)
        shape_key = f"{key.removesuffix('.pt')}.json"
        heads = None
        if store.size(shape_key) is not None:
            heads = _heads(f"{store.uri}/{shape_key}", read_json(store, shape_key, _LARGEST_SHAPE))
        with as_file(self._weights) as path:
            return Vit(_read_tensors(path, self._weights), self._weights, heads)

    @functools.cached_property
    def _blank(self) -> Float[Tensor, "1 width"]:
        return self._vit.features(torch.zeros(1, 1, self._vit.side, self._vit.side))


class Vit:
    """``norm(block(... block(patches + positions)))``, a plain ViT given by its tensors.

    Args:
        state: Under timm's names.
        source: What from, for messages.
        heads: Of the attention; None takes one for every 64 channels.

    Raises:
        CheckpointError: These are no plain ViT's tensors.
    """

    def __init__(self, state: Mapping[str, Tensor], source: str, heads: int | None = None) -> None:
        self._state = dict(state)
        self._check(source)
        self.width, self.channels, self.patch = (self._state["patch_embed.proj.weight"].shape[i] for i in (0, 1, 2))
        self.side = math.isqrt(self._state["pos_embed"].shape[1] - 1) * self.patch
        if heads is None and self.width % _HEAD:
            raise CheckpointError(source, f"has {self.width} channels, of which nothing says the heads", "Put its .json beside it.")
        self._heads = heads or self.width // _HEAD
        if self.width % self._heads:
            raise CheckpointError(source, f"has {self.width} channels for {self._heads} heads", _REMEDY)

    def features(self, images: Channels) -> Float[Tensor, "batch width"]:
        """Return the mean of the patches' last tokens, of grey images of the network's side within [0, 1]."""
        state = self._state
        pixels = images.expand(-1, self.channels, -1, -1)
        patches = functional.conv2d(pixels, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=self.patch)
        patches = patches.flatten(2).transpose(1, 2)
        first = state["cls_token"].expand(len(images), -1, -1)
        tokens = torch.cat([first, patches], dim=1) + state["pos_embed"]
        for index in range(self._depth):
            tokens = self._block(tokens, f"blocks.{index}.")
        return self._norm(tokens, "norm.")[:, 1:].mean(dim=1)

    def _block(self, tokens: Tensor, name: str) -> Tensor:
        tokens = tokens + self._attention(self._norm(tokens, f"{name}norm1."), f"{name}attn.")
        hidden = functional.gelu(self._linear(self._norm(tokens, f"{name}norm2."), f"{name}mlp.fc1."))
        return tokens + self._linear(hidden, f"{name}mlp.fc2.")

    def _attention(self, tokens: Tensor, name: str) -> Tensor:
        batch, count, width = tokens.shape
        parts = self._linear(tokens, f"{name}qkv.").reshape(batch, count, 3, self._heads, width // self._heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self._linear(mixed.transpose(1, 2).reshape(batch, count, width), f"{name}proj.")

    def _linear(self, tokens: Tensor, name: str) -> Tensor:
        return functional.linear(tokens, self._state[f"{name}weight"], self._state[f"{name}bias"])

    def _norm(self, tokens: Tensor, name: str) -> Tensor:
        return functional.layer_norm(tokens, (self.width,), self._state[f"{name}weight"], self._state[f"{name}bias"], _EPSILON)

    def _check(self, source: str) -> None:
        """Refuse tensors that are not exactly those of a plain ViT, in their shapes."""
        projection, positions = self._state.get("patch_embed.proj.weight"), self._state.get("pos_embed")
        if projection is None or positions is None or projection.ndim != 4 or positions.ndim != 3:
            raise CheckpointError(source, "has no patch_embed.proj.weight and pos_embed as a plain ViT has", _REMEDY)
        width, channels, patch, _ = projection.shape
        rows = math.isqrt(max(positions.shape[1] - 1, 0))
        self._depth = 1 + max((int(found[1]) for name in self._state if (found := _BLOCK.match(name))), default=-1)
        if channels not in (1, 3) or rows < 1 or self._depth > len(self._state):
            raise CheckpointError(source, f"has {channels} channels, {rows} rows of patches and {self._depth} blocks", _REMEDY)
        expected = _shapes(width, channels, patch, 1 + rows * rows, self._depth)
        wrong = [name for name in {**expected, **self._state} if tuple(self._state.get(name, torch.empty(0)).shape) != expected.get(name)]
        if wrong:
            raise CheckpointError(f"{source}: {wrong[0][:80]}", "is missing, or is not as a plain ViT has it", _REMEDY)
        strange = [name for name, tensor in self._state.items() if not tensor.is_floating_point() or not torch.isfinite(tensor).all()]
        if strange:
            raise CheckpointError(f"{source}: {strange[0]}", "is no tensor of finite floats", _REMEDY)
        self._state = {name: tensor.float() for name, tensor in self._state.items()}


def _shapes(width: int, channels: int, patch: int, positions: int, depth: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a plain ViT."""
    outside = ((1, 1, width), (1, positions, width), (width, channels, patch, patch), (width,), (width,), (width,))
    shapes: dict[str, tuple[int, ...]] = dict(zip(_OUTSIDE, outside, strict=True))
    layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width), "mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    for block in (f"blocks.{index}." for index in range(depth)):
        shapes |= {f"{block}{norm}.{kind}": (width,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
        for layer, shape in layers.items():
            shapes |= {f"{block}{layer}.weight": shape, f"{block}{layer}.bias": shape[:1]}
    return shapes


def _heads(source: str, shape: object) -> int:
    heads = shape.get("heads") if isinstance(shape, dict) else None
    if type(heads) is not int or heads < 1:
        raise CheckpointError(source, "does not say the heads of a ViT", _REMEDY)
    return heads


def _read_tensors(path: Path, source: str) -> dict[str, Tensor]:
    """Read a state_dict as tensors alone, once it is known to unpack to no more than the file has."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is packed, and torch.save packs nothing")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
            raise ValueError("it holds something else than tensors by name")
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0][:200].replace(str(path), source)
        raise CheckpointError(source, f"is no state_dict ({type(error).__name__}: {said})", _REMEDY) from error
    return state
