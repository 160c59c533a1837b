"""The encoder of a masked autoencoder by itself, in the names that timm, DINOv2 and MRI-CORE give a plain ViT.

transformers keeps queries, keys and values apart; a plain ViT has them in one ``qkv``. Nothing else differs but names.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["encoder_state"]

_BELOW = "mae.vit."
_NAMES = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^layers\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
    (r"^layers\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
    (r"^layers\.(\d+)\.attention\.o_proj\.", r"blocks.\1.attn.proj."),
    (r"^layers\.(\d+)\.mlp\.", r"blocks.\1.mlp."),
)
_PART = re.compile(r"layers\.(\d+)\.attention\.q_proj\.(weight|bias)")


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's tensors under timm's names, given a ``MaeNetwork``'s state; each is a copy of its own."""
    own = {name.removeprefix(_BELOW): tensor for name, tensor in state.items() if name.startswith(_BELOW)}
    encoder: dict[str, Tensor] = {}
    for name, tensor in own.items():
        if found := _PART.fullmatch(name):
            parts = [own[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            encoder[f"blocks.{found[1]}.attn.qkv.{found[2]}"] = torch.cat(parts)
        elif not re.search(r"\.[kv]_proj\.", name):
            encoder[_theirs(name)] = tensor.clone()
    return encoder


def _theirs(name: str) -> str:
    for pattern, replacement in _NAMES:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    raise AssertionError(f"the encoder has a tensor {name} that no plain ViT has")
