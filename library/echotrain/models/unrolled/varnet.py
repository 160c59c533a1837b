"""E2E-VarNet: the unrolled loop with a normalised U-Net as its regularizer."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from echotrain.errors import ConfigError
from echotrain.models.layers.norm_unet import NormUnet
from echotrain.models.unrolled.loop import UnrolledNetwork
from echotrain.models.unrolled.sensitivity import SensitivityModel

__all__ = ["VarNet", "VarNetConfig", "compile_unets"]


@dataclass(frozen=True, kw_only=True)
class VarNetConfig:
    """Architecture of an E2E-VarNet; the defaults are the paper's (29,936,966 parameters).

    Attributes:
        kind: Tells this network's settings from another's with the same names.
        num_cascades: Iterations of the loop.
        chans, pools: First-level channels and poolings of each cascade's U-Net.
        sens_chans, sens_pools: The same of the sensitivity U-Net.
        drop_prob: Of channels of every U-Net in training; the paper drops none.
        mask_center: Estimate sensitivities from the fully sampled centre alone.
        num_adjacent: Frames of a window, odd, that each cascade's U-Net sees together as 2 * num_adjacent channels; 1 sees each alone.
            The sensitivities of a frame are estimated from that frame alone.
        norm: Of the FFT; checkpoints are tied to it.
        activation_checkpointing: Trade a second forward pass for memory.
        compile_regularizer: Compile the real-valued U-Nets with ``torch.compile``.
    """

    kind: Literal["varnet"] = "varnet"
    num_cascades: int = 12
    chans: int = 18
    pools: int = 4
    sens_chans: int = 8
    sens_pools: int = 4
    drop_prob: float = 0.0
    mask_center: bool = True
    num_adjacent: int = 1
    norm: Literal["ortho", "backward"] = "ortho"
    activation_checkpointing: bool = False
    compile_regularizer: bool = False

    def __post_init__(self) -> None:
        for name in ("num_cascades", "chans", "pools", "sens_chans", "sens_pools"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"{name}={value}", "must be at least 1", f"Set {name} to 1 or more.")
        if not 0 <= self.drop_prob < 1:
            raise ConfigError(f"drop_prob={self.drop_prob}", "must lie in [0, 1)", "Use 0 for none.")
        if self.num_adjacent < 1 or self.num_adjacent % 2 == 0:
            raise ConfigError(
                f"num_adjacent={self.num_adjacent}", "must be odd and at least 1: a frame and as many on each side", "Use 1, 3 or 5."
            )

    def describe(self) -> str:
        """Return what a table calls it."""
        frames = f", {self.num_adjacent} frames" if self.num_adjacent > 1 else ""
        return f"E2E-VarNet, {self.num_cascades} cascade{'s' * (self.num_cascades != 1)}, {self.chans} channels{frames}"

    def build(self) -> "VarNet":
        """Make the network, its weights drawn from torch's global generator."""
        return VarNet(self)


class VarNet(UnrolledNetwork):
    """E2E-VarNet (Sriram et al., arXiv:2004.06688): ``k <- k - eta M (k - k0) - F S R(S^H F^-1 k)``, R a ``NormUnet``."""

    def __init__(self, config: VarNetConfig) -> None:
        sens_net = SensitivityModel(NormUnet(config.sens_chans, config.sens_pools, config.drop_prob), mask_center=config.mask_center)
        regularizers = [
            NormUnet(config.chans, config.pools, config.drop_prob, num_images=config.num_adjacent) for _ in range(config.num_cascades)
        ]
        super().__init__(
            sens_net,
            regularizers,
            norm=config.norm,
            activation_checkpointing=config.activation_checkpointing,
            num_adjacent=config.num_adjacent,
        )
        self.config = config
        if config.compile_regularizer:
            compile_unets(self)


def compile_unets(network: nn.Module, *, backend: str = "inductor") -> None:
    """Compile every ``NormUnet``'s real-valued part in place by a backend of torch's; names in the state_dict stay as they are."""
    for module in network.modules():
        if isinstance(module, NormUnet):
            module.unet.compile(backend=backend)
