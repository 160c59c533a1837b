"""Public checkpoints in, public checkpoints out: fastMRI's E2E-VarNet.

Tensors are the same on both sides; only names differ. Lightning checkpoints put ``varnet.`` before every name and
carry the loss's window as ``loss.w``.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from echotrain.errors import CheckpointError
from echotrain.models.unrolled.varnet import VarNet, VarNetConfig

__all__ = ["export_fastmri", "fastmri_config", "import_fastmri", "load_fastmri", "read_fastmri"]

_LIGHTNING_PREFIX = "varnet."
_LIGHTNING_EXTRAS = {"loss.w"}
# (fastMRI's name, ours), tried in turn. The last decoder block is `up_conv.N.0` there, followed by the head `up_conv.N.1`.
_IMPORT = (
    (r"^cascades\.(\d+)\.model\.", r"cascades.\1.regularizer."),
    (r"\.down_sample_layers\.(\d+)\.", r".encoder.\1."),
    (r"\.unet\.conv\.", r".unet.bottleneck."),
    (r"\.up_transpose_conv\.(\d+)\.layers\.0\.", r".up.\1.conv."),
    (r"\.up_conv\.\d+\.1\.", r".head."),
    (r"\.up_conv\.(\d+)\.(?:0\.)?layers\.", r".decoder.\1.layers."),
    (r"\.layers\.0\.", r".conv1."),
    (r"\.layers\.4\.", r".conv2."),
)


def import_fastmri(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a fastMRI VarNet state_dict (plain or of a Lightning module) to ours."""
    return {_ours(name.removeprefix(_LIGHTNING_PREFIX)): tensor for name, tensor in state.items() if name not in _LIGHTNING_EXTRAS}


def export_fastmri(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our VarNet state_dict to fastMRI's; the inverse of ``import_fastmri``."""
    last = _last_decoder_index(state)
    return {_theirs(name, last): tensor for name, tensor in state.items()}


def read_fastmri(path: str | Path) -> dict[str, Tensor]:
    """Read a fastMRI state_dict or Lightning checkpoint from disk, names changed to ours.

    Raises:
        CheckpointError: The file is not a checkpoint, or holds more than tensors and plain values.
    """
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        what = "does not exist" if isinstance(error, FileNotFoundError) else "cannot be read as tensors and plain values"
        raise CheckpointError(str(path), what, "Save its state_dict alone with torch.save and give that file.") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(str(path), "holds no state_dict", "Give a fastMRI state_dict or Lightning checkpoint of a VarNet.")
    return import_fastmri(state)


def load_fastmri(path: str | Path, model: VarNet) -> None:
    """Load a fastMRI checkpoint into ``model``.

    Raises:
        CheckpointError: The checkpoint is of another model; the message names what differs.
    """
    load_state(model, read_fastmri(path), str(path))


def load_state(model: VarNet, state: Mapping[str, Tensor], source: str) -> None:
    """Load ``state`` (our names) from ``source`` into ``model``, or raise CheckpointError naming the differences."""
    expected = model.state_dict()
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    misshapen = [name for name in expected if name in state and expected[name].shape != state[name].shape]
    differences = [
        *_describe(f"lacks {len(missing)} tensors", missing),
        *_describe(f"has {len(unknown)} tensors that the model has not", unknown),
        *(f"{name} has shape {tuple(state[name].shape)} where the model has {tuple(expected[name].shape)}" for name in misshapen[:1]),
    ]
    if differences:
        raise CheckpointError(source, "is a checkpoint of another model: it " + "; ".join(differences), _remedy(state))
    model.load_state_dict(dict(state))


def fastmri_config(state: Mapping[str, Tensor]) -> VarNetConfig:
    """Read the architecture off a state_dict with our names.

    Raises:
        CheckpointError: It is no VarNet's.
    """
    try:
        chans, pools = _unet_size(state, "cascades.0.regularizer.unet.")
        sens_chans, sens_pools = _unet_size(state, "sens_net.norm_unet.unet.")
    except KeyError as error:
        raise CheckpointError("state_dict", f"is of no VarNet: it has no {error}", "Give a checkpoint of a fastMRI VarNet.") from error
    num_cascades = sum(bool(re.fullmatch(r"cascades\.\d+\.dc_weight", name)) for name in state)
    return VarNetConfig(num_cascades=num_cascades, chans=chans, pools=pools, sens_chans=sens_chans, sens_pools=sens_pools)


def _ours(name: str) -> str:
    for pattern, replacement in _IMPORT:
        name = re.sub(pattern, replacement, name)
    return name


def _theirs(name: str, last: Mapping[str, int]) -> str:
    unet = name.partition(".unet.")[0]
    name = re.sub(r"^cascades\.(\d+)\.regularizer\.", r"cascades.\1.model.", name)
    name = re.sub(r"\.encoder\.(\d+)\.", r".down_sample_layers.\1.", name)
    name = name.replace(".bottleneck.", ".conv.")
    name = re.sub(r"\.up\.(\d+)\.conv\.", r".up_transpose_conv.\1.layers.0.", name)
    if unet in last:
        name = name.replace(f".decoder.{last[unet]}.", f".up_conv.{last[unet]}.0.")
        name = name.replace(".head.", f".up_conv.{last[unet]}.1.")
    name = re.sub(r"\.decoder\.(\d+)\.", r".up_conv.\1.", name)
    return name.replace(".conv1.", ".layers.0.").replace(".conv2.", ".layers.4.")


def _last_decoder_index(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the number of the last decoder block of each U-Net, by the U-Net's prefix."""
    last: dict[str, int] = {}
    for name in state:
        if match := re.match(r"(.*)\.unet\.decoder\.(\d+)\.", name):
            last[match[1]] = max(last.get(match[1], 0), int(match[2]))
    return last


def _unet_size(state: Mapping[str, Tensor], prefix: str) -> tuple[int, int]:
    chans = state[f"{prefix}encoder.0.conv1.weight"].shape[0]
    return chans, sum(bool(re.fullmatch(rf"{re.escape(prefix)}encoder\.\d+\.conv1\.weight", name)) for name in state)


def _describe(what: str, names: list[str]) -> list[str]:
    return [f"{what} (first: {names[0]})"] if names else []


def _remedy(state: Mapping[str, Tensor]) -> str:
    try:
        found = fastmri_config(state)
    except CheckpointError:
        return "Give a checkpoint of a VarNet."
    settings = f"num_cascades={found.num_cascades} chans={found.chans} pools={found.pools}"
    return f"The checkpoint's model has {settings} sens_chans={found.sens_chans} sens_pools={found.sens_pools}: set those, or give another."
