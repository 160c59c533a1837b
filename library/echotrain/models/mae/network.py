"""The masked autoencoder: transformers' ViTMAE on images of one channel, its masks drawn by whoever calls it."""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from echotrain.errors import ConfigError
from echotrain.models.encoder import EncoderShape
from echotrain.models.mae.encoder import encoder_state
from echotrain.shapes import Channels

__all__ = ["MaeNetwork", "MaeNetworkConfig", "Masked", "initialise", "patchify", "sine_positions", "unpatchify"]

# Of layer normalisation, as a plain ViT has it everywhere else.
_EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class MaeNetworkConfig:
    """A masked autoencoder; the sizes are by default those of the paper's ViT-B/16 (He et al., arXiv:2111.06377), for one channel.

    Attributes:
        kind: Tells this network's settings from another's.
        side: Pixels of an image's side.
        patch: Pixels of a patch's side.
        width, depth, heads: Of the encoder.
        decoder_width, decoder_depth, decoder_heads: Of the decoder, which is thrown away after pre-training.
        mask_ratio: Share of the patches that the encoder does not see.
    """

    kind: Literal["mae"] = "mae"
    side: int = 224
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    mask_ratio: float = 0.75

    def __post_init__(self) -> None:
        for name in ("side", "patch", "width", "depth", "heads", "decoder_width", "decoder_depth", "decoder_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}={getattr(self, name)}", "must be at least 1", "Count from 1.")
        if self.side % self.patch:
            raise ConfigError(f"model.side={self.side}", f"must be a multiple of model.patch={self.patch}", "The paper's are 224 and 16.")
        for width, heads in (("width", "heads"), ("decoder_width", "decoder_heads")):
            # Sines and cosines of two axes make the positions.
            factor = math.lcm(4, getattr(self, heads))
            if getattr(self, width) % factor:
                raise ConfigError(
                    f"model.{width}={getattr(self, width)}",
                    f"must be a multiple of {factor}, of 4 and of model.{heads}={getattr(self, heads)}",
                    f"Use {factor * max(1, getattr(self, width) // factor)}.",
                )
        if not 0 < self.mask_ratio < 1 or not 0 < self.num_visible < self.num_patches:
            raise ConfigError(
                f"model.mask_ratio={self.mask_ratio}", f"leaves none, or all, of {self.num_patches} patches visible", "The paper's is 0.75."
            )

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return (self.side // self.patch) ** 2

    @property
    def num_visible(self) -> int:
        """Those that the encoder sees."""
        return int(self.num_patches * (1 - self.mask_ratio))

    def describe(self) -> str:
        """Return what a table calls it."""
        return f"MAE, ViT {self.width}x{self.depth}/{self.patch}"

    def build(self) -> "MaeNetwork":
        """Make the network, its weights drawn from torch's global generator."""
        return MaeNetwork(self)


class Masked(NamedTuple):
    """What a masked autoencoder says of a batch.

    Attributes:
        predicted: Values of every patch, row by row, as ``patchify`` orders them.
        mask: 1 where the encoder did not see the patch, 0 where it did.
    """

    predicted: Float[Tensor, "batch patch value"]
    mask: Float[Tensor, "batch patch"]


class MaeNetwork(nn.Module):
    """``decoder(encoder(visible patches), mask tokens elsewhere)``: He et al., arXiv:2111.06377, figure 1."""

    def __init__(self, config: MaeNetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.mae: Any = _vit_mae(config)
        initialise(self.mae, config)

    def forward(self, images: Channels, noise: Float[Tensor, "batch patch"]) -> Masked:
        """Hide the patches of the largest noise and predict all.

        Args:
            images: Within [0, 1], of the configured side.
            noise: One number per patch: the patches of the smallest ones are seen.
        """
        hidden = self.mae.vit(images, noise=noise)
        decoded = self.mae.decoder(hidden.last_hidden_state, hidden.ids_restore)
        return Masked(predicted=decoded.logits.float(), mask=hidden.mask)

    def encoder_state(self) -> dict[str, Tensor]:
        """Return the encoder alone, under the names that timm gives a ViT."""
        return encoder_state(self.state_dict())

    def encoder_shape(self) -> EncoderShape:
        """Return what the encoder's tensors do not say of it."""
        return EncoderShape(side=self.config.side, patch=self.config.patch, heads=self.config.heads)


def patchify(images: Channels, patch: int) -> Float[Tensor, "batch patch value"]:
    """Cut images of one channel into patches, row by row; values within a patch row by row too."""
    batch, _, height, width = images.shape
    grid = images.reshape(batch, height // patch, patch, width // patch, patch)
    return grid.transpose(2, 3).reshape(batch, -1, patch * patch)


def unpatchify(patches: Float[Tensor, "batch patch value"], patch: int) -> Channels:
    """Undo ``patchify`` for square images."""
    batch, count, _ = patches.shape
    rows = math.isqrt(count)
    grid = patches.reshape(batch, rows, rows, patch, patch)
    return grid.transpose(2, 3).reshape(batch, 1, rows * patch, rows * patch)


def initialise(mae: Any, config: MaeNetworkConfig) -> None:
    """Draw the weights as the paper says (A.1): Xavier-uniform layers, tokens of standard deviation 0.02, fixed positions.

    transformers' own initialisation leaves the positions of the encoder and of the decoder at zero (5.24): neither would know where a
    patch lies, and nothing would say so.
    """
    for module in mae.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    rows = config.side // config.patch
    with torch.no_grad():
        for token in (mae.vit.embeddings.cls_token, mae.decoder.mask_token):
            token.normal_(std=0.02)
        mae.vit.embeddings.position_embeddings.copy_(sine_positions(rows, config.width))
        mae.decoder.decoder_pos_embed.copy_(sine_positions(rows, config.decoder_width))


def sine_positions(rows: int, width: int) -> Float[Tensor, "1 position width"]:
    """Return fixed positions of a square grid of patches, that of the class token in front, which is zero.

    The first half of a position's numbers are sines and cosines of its column, the second of its row, with wavelengths from 2 pi to
    10,000 times that (Vaswani et al., 2017, 3.5, on two axes).
    """
    frequencies = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(rows, dtype=torch.float64)[:, None] * frequencies
    along = torch.cat([angles.sin(), angles.cos()], dim=1)
    grid = torch.cat([along[None].expand(rows, rows, -1), along[:, None].expand(rows, rows, -1)], dim=2)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), grid.reshape(rows * rows, width)])[None].float()


def _vit_mae(config: MaeNetworkConfig) -> Any:
    # Takes seconds to import, which nobody waits for who trains another network.
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    return ViTMAEForPreTraining(
        ViTMAEConfig(
            image_size=config.side,
            patch_size=config.patch,
            num_channels=1,
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.width,
            decoder_hidden_size=config.decoder_width,
            decoder_num_hidden_layers=config.decoder_depth,
            decoder_num_attention_heads=config.decoder_heads,
            decoder_intermediate_size=4 * config.decoder_width,
            mask_ratio=config.mask_ratio,
            layer_norm_eps=_EPSILON,
        )
    )
