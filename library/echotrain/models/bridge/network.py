"""The network of latent bridge matching, built of diffusers' blocks."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from echotrain.errors import ConfigError
from echotrain.models.bridge.published import check_folder, find_diffusers, import_diffusers, load_autoencoder, load_tensors
from echotrain.models.bridge.space import Latents, Pixels, Space
from echotrain.models.layers.norm_unet import Margins
from echotrain.shapes import Channels, PerSample
from echotrain.storage.open import absolute_uri

__all__ = ["BridgeNetwork", "BridgeNetworkConfig"]

# The networks that diffusers publishes count time so.
_TIMESTEPS = 1000
# Where a network for text attends to it: ours has none, and attends to the image a second time, so these have another shape.
_TEXT = (".attn2.to_k.weight", ".attn2.to_v.weight")


@dataclass(frozen=True, kw_only=True)
class BridgeNetworkConfig:
    """A U-Net over pixels or latents; the sizes are by default those of Stable Diffusion XL's, without its text and size inputs.

    Attributes:
        kind: Tells this network's settings from another's.
        space: Where the bridge lies: on images, or on an autoencoder's latents.
        autoencoder: For latents: folder or ``s3://bucket/prefix`` of an ``AutoencoderKL`` as diffusers keeps it. It stays frozen and is
            part of no checkpoint, so whatever loads one reads it from here.
        latent_channels: Of that autoencoder.
        init: Likewise a U-Net whose weights training begins with, of these sizes; "" begins with random ones.
        widths: Channels of each level; each but the last halves the size.
        transformers: Transformer blocks after each residual block of a level.
        blocks: Residual blocks of a level.
        head_channels: Channels of an attention head.
        groups: Of group normalisation.
        activation_checkpointing: Trade a second forward pass for memory.
    """

    kind: Literal["bridge"] = "bridge"
    space: Literal["pixel", "latent"] = "pixel"
    autoencoder: str = ""
    latent_channels: int = 4
    init: str = ""
    widths: tuple[int, ...] = (320, 640, 1280)
    transformers: tuple[int, ...] = (0, 2, 10)
    blocks: int = 2
    head_channels: int = 64
    groups: int = 32
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        if not self.widths or len(self.widths) != len(self.transformers):
            raise ConfigError(
                f"{len(self.widths)} model.widths and {len(self.transformers)} model.transformers",
                "must be one of each per level",
                "Say, model.widths=[320,640,1280] model.transformers=[0,2,10].",
            )
        positive = (*self.widths, self.latent_channels, self.blocks, self.head_channels, self.groups)
        if min(positive) < 1 or min(self.transformers) < 0:
            raise ConfigError("a size of the U-Net", "is below 1 (of model.transformers: below 0)", "Count from 1.")
        for width, depth in zip(self.widths, self.transformers, strict=True):
            if width % self.groups or (depth and width % self.head_channels):
                raise ConfigError(
                    f"a width of {width}",
                    f"must be a multiple of model.groups={self.groups}, and under transformers of model.head_channels={self.head_channels}",
                    "Change one of the three.",
                )

        if self.autoencoder and self.space == "pixel":
            raise ConfigError(
                f"model.autoencoder={self.autoencoder}",
                "is not used by a bridge on pixels (model.space=pixel)",
                "Set model.space=latent, or leave it out.",
            )

    @property
    def channels(self) -> int:
        """Channels of a code."""
        return 1 if self.space == "pixel" else self.latent_channels

    def describe(self) -> str:
        """Return what a table calls it."""
        return f"U-Net {'-'.join(map(str, self.widths))} on {self.space}s"

    def located(self, *, begins: bool) -> "BridgeNetworkConfig":
        """Return the settings with absolute paths; ``init`` is looked for where training ``begins``.

        Raises:
            ConfigError: A file is missing or of another network.
            ResourceError: diffusers is not installed.
        """
        find_diffusers()
        if self.space == "latent":
            if not self.autoencoder:
                raise ConfigError(
                    "model.autoencoder=''",
                    "names no autoencoder, and the bridge lies on its latents",
                    "Give a folder or s3:// URI of one as diffusers keeps it, such as the vae/ of Stable Diffusion XL.",
                )
            found = check_folder("model.autoencoder", self.autoencoder, "AutoencoderKL").get("latent_channels")
            if found != self.latent_channels:
                raise ConfigError(
                    f"model.latent_channels={self.latent_channels}",
                    f"is not what model.autoencoder={self.autoencoder} says ({found})",
                    "Set it to that, or name another autoencoder.",
                )
        if self.init and begins:
            published = check_folder("model.init", self.init, "UNet2DConditionModel").get("block_out_channels")
            if published != list(self.widths):
                raise ConfigError(
                    f"model.init={self.init}",
                    f"is a U-Net of widths {published}, and this one has {list(self.widths)}",
                    "Set model.widths to those, or begin without it.",
                )
        return dataclasses.replace(self, autoencoder=_absolute(self.autoencoder), init=_absolute(self.init))

    def build(self) -> "BridgeNetwork":
        """Make the network, its weights drawn from torch's global generator.

        Raises:
            ResourceError: diffusers is not installed.
        """
        return BridgeNetwork(self)

    def initialise(self, network: nn.Module) -> None:
        """Load ``init``; of a text-to-image network, all but what attends to the text.

        Raises:
            ConfigError: It is a network of other sizes.
        """
        if not self.init:
            return
        assert isinstance(network, BridgeNetwork)
        own, given = network.unet.state_dict(), load_tensors("model.init", self.init)
        fitting = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
        lacking = [name for name in own if name not in fitting and not name.endswith(_TEXT)]
        if lacking:
            raise ConfigError(
                f"model.init={self.init}",
                f"lacks {len(lacking)} of the U-Net's tensors in their shapes (first {lacking[0]})",
                "Give its sizes as model.widths, model.transformers, model.blocks, and the channels of the space.",
            )
        network.unet.load_state_dict(fitting, strict=False)


class BridgeNetwork(nn.Module):
    """``v(x, s)``: the direction of the bridge at its point ``x`` and time ``s`` (Chadebec et al., arXiv:2503.07535).

    The autoencoder is no part of the module: not trained, not averaged, not saved. It is loaded where it is first used.
    """

    def __init__(self, config: BridgeNetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.unet: nn.Module = _unet(config)
        self._latents: tuple[torch.device, Latents] | None = None

    def forward(self, x: Channels, s: PerSample) -> Channels:
        """Return the direction at codes ``x`` of any size and times ``s`` in (0, 1], in float32."""
        margins = Margins.of(x, 2 ** (len(self.config.widths) - 1))
        (direction,) = self.unet(margins.add(x, "replicate"), _TIMESTEPS * s, encoder_hidden_states=None, return_dict=False)
        return margins.remove(direction).float()

    def space(self, device: torch.device) -> Space:
        """Return the space of the codes; raises ``ConfigError`` where its autoencoder cannot be loaded."""
        if self.config.space == "pixel":
            return Pixels()
        if self._latents is None or self._latents[0] != device:
            self._latents = device, Latents(load_autoencoder("model.autoencoder", self.config.autoencoder, device))
        return self._latents[1]


def _absolute(uri: str) -> str:
    return absolute_uri(uri) if uri else ""


def _unet(config: BridgeNetworkConfig) -> nn.Module:
    """Make diffusers' U-Net for text, so that published weights fit, without text: each ``attn2`` attends to its own input."""
    depths = config.transformers
    unet: nn.Module = import_diffusers().UNet2DConditionModel(
        in_channels=config.channels,
        out_channels=config.channels,
        block_out_channels=config.widths,
        down_block_types=tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths),
        mid_block_type="UNetMidBlock2DCrossAttn" if depths[-1] else "UNetMidBlock2D",
        up_block_types=tuple("CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)),
        layers_per_block=config.blocks,
        transformer_layers_per_block=tuple(max(depth, 1) for depth in depths),
        cross_attention_dim=config.widths,
        # By its name in diffusers this would be a head's size; it is the number of heads.
        attention_head_dim=tuple(max(width // config.head_channels, 1) for width in config.widths),
        norm_num_groups=config.groups,
        use_linear_projection=True,
    )
    if config.activation_checkpointing:
        unet.enable_gradient_checkpointing()  # type: ignore[operator]
    return unet
