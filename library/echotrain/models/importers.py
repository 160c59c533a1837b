"""Public checkpoints in, public checkpoints out: fastMRI's E2E-VarNet.

Tensors are the same on both sides; only names differ. Lightning checkpoints put ``varnet.`` before every name of the network and
carry the loss's window (``loss.w``) and the sums of metrics (``NMSE.quantity``) beside it; a network that ran in parallel or was
compiled has ``module.`` or ``_orig_mod.`` there as well.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from echotrain.errors import CheckpointError, printable
from echotrain.models.state_file import read_state
from echotrain.models.unrolled.varnet import VarNet, VarNetConfig

__all__ = ["check_state", "export_fastmri", "fastmri_config", "import_fastmri", "load_fastmri", "load_state", "read_fastmri"]

logger = logging.getLogger(__name__)

# What Lightning, DistributedDataParallel and torch.compile put before names, in whatever order they were wrapped.
_WRAPPERS = re.compile(r"^(?:varnet\.|module\.|_orig_mod\.)+")
_COMPILED_WITHIN = re.compile(r"(?<=\.)_orig_mod\.")
# What is below it is the network's; a checkpoint that has it holds whatever else its module kept.
_BELOW_NETWORK = re.compile(r"^(?:module\.|_orig_mod\.)*varnet\.")
_LIGHTNING_EXTRAS = {"loss.w"}
_CASCADE = re.compile(r"cascades\.(\d{1,6})\.")
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
    """Rename a fastMRI VarNet state_dict (plain, of a Lightning module, wrapped or compiled) to ours.

    What a Lightning module keeps beside the network (the loss's window, sums of metrics) is left out, and told.

    Raises:
        CheckpointError: Two tensors have the same name once what wraps the network is taken off.
    """
    bare = {name: _COMPILED_WITHIN.sub("", _WRAPPERS.sub("", name)) for name in state}
    twice = [name for name, count in Counter(bare.values()).items() if count > 1]
    if twice:
        both = " and ".join(name for name in state if bare[name] == twice[0])
        raise CheckpointError(both, "are two tensors of one name, so it holds two networks", "Save the state_dict of one network alone.")
    kept = [name for name in state if bare[name] not in _LIGHTNING_EXTRAS]
    if any(map(_BELOW_NETWORK.match, kept)):
        beside = [name for name in kept if not _BELOW_NETWORK.match(name)]
        kept = [name for name in kept if _BELOW_NETWORK.match(name)]
        if beside:
            logger.warning("left out %d tensors that are not below varnet. (first: %s)", len(beside), printable(beside[0][:80]))
    return {_ours(bare[name]): state[name] for name in kept}


def export_fastmri(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our VarNet state_dict to fastMRI's; the inverse of ``import_fastmri``."""
    last = _last_decoder_index(state)
    return {_theirs(name, last): tensor for name, tensor in state.items()}


def read_fastmri(path: str | Path) -> dict[str, Tensor]:
    """Read a fastMRI state_dict or Lightning checkpoint from disk, names changed to ours; nothing that is pickled in it is run.

    Raises:
        CheckpointError: The file is not a checkpoint, is damaged, or claims sizes that it does not have.
    """
    return import_fastmri(read_state(path))


def load_fastmri(path: str | Path, model: VarNet) -> None:
    """Load a fastMRI checkpoint into ``model``.

    Raises:
        CheckpointError: The checkpoint is of another model; the message names what differs.
    """
    load_state(model, read_fastmri(path), str(path))


def load_state(model: VarNet, state: Mapping[str, Tensor], source: str) -> None:
    """Load ``state`` (our names) from ``source`` into ``model``, or raise CheckpointError naming the differences."""
    check_state(model.state_dict(), state, source)
    model.load_state_dict(dict(state))


def check_state(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Raise CheckpointError, naming the differences, where ``state`` (our names) has other names or shapes than a model expects.

    Nor are weights taken that are no finite floats; those of another precision are, and become the model's when they are loaded.

    Args:
        expected: The model's own; they may be on the meta device, before any memory is taken.
        state: What was read.
        source: What from.
    """
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
    for name, own in expected.items():
        defect = _defect(state[name], own.dtype)
        if defect:
            raise CheckpointError(f"{source}: {name}", f"{defect}, and weights are finite floats", "Give a checkpoint that is whole.")


def fastmri_config(state: Mapping[str, Tensor], source: str = "state_dict") -> VarNetConfig:
    """Read the architecture off the names and shapes of a state_dict with our names.

    ``mask_center`` has no weights, so no file tells it: it stays what the public code's default is, and what its published weights have.

    Args:
        state: Names and tensors.
        source: What they are from, for messages.

    Raises:
        CheckpointError: It is no VarNet's, or lacks some of its tensors; the message names what it is or lacks.
    """
    other = _other_network(state)
    if other:
        raise CheckpointError(source, f"is of no VarNet: it is {other}", "Give a state_dict or a checkpoint of a fastMRI E2E-VarNet.")
    try:
        chans, pools = _unet_size(state, "cascades.0.regularizer.unet.")
        sens_chans, sens_pools = _unet_size(state, "sens_net.norm_unet.unet.")
    except (KeyError, IndexError) as error:
        raise CheckpointError(source, f"is of no VarNet: it has no {error}", "Give a checkpoint of a fastMRI VarNet.") from error
    num_cascades = 1 + max(int(found[1]) for name in state if (found := _CASCADE.match(name)))
    if num_cascades > len(state):
        raise CheckpointError(source, f"numbers {num_cascades} cascades in {len(state)} tensors", "Give a checkpoint that is whole.")
    return VarNetConfig(num_cascades=num_cascades, chans=chans, pools=pools, sens_chans=sens_chans, sens_pools=sens_pools)


def _other_network(state: Mapping[str, Tensor]) -> str:
    """Return which other network of the field these tensors are of, "" where none is known."""
    if any("prompt" in name for name in state):
        return "a PromptMR"
    if any(_CASCADE.match(name) for name in state):
        return ""
    if any(re.match(r"(?:unet\.)?(?:down_sample_layers|encoder)\.\d+\.", name) for name in state):
        return "a U-Net"
    return ""


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
    """Return channels and poolings of a U-Net; KeyError names a tensor that is missing, or that is not twice as wide as the one above."""
    pools = sum(bool(re.fullmatch(rf"{re.escape(prefix)}encoder\.\d+\.conv1\.weight", name)) for name in state)
    names = [f"{prefix}encoder.{level}.conv1.weight" for level in range(max(pools, 1))]
    chans = state[names[0]].shape[0]
    for level, name in enumerate(names):
        if state[name].shape[0] != chans << level:
            raise KeyError(f"{name} of {chans << level} channels")
    return chans, pools


def _defect(tensor: Tensor, dtype: torch.dtype) -> str:
    """Return why a tensor is no weight of this type, "" where it is one."""
    if not tensor.is_floating_point():
        return f"is of {str(tensor.dtype).removeprefix('torch.')}"
    # What is finite in double precision need not be so in single.
    return "" if torch.isfinite(tensor.to(dtype)).all() else f"has values that are not finite in {str(dtype).removeprefix('torch.')}"


def _describe(what: str, names: list[str]) -> list[str]:
    return [f"{what} (first: {names[0]})"] if names else []


def _remedy(state: Mapping[str, Tensor]) -> str:
    try:
        found = fastmri_config(state)
    except CheckpointError:
        return "Give a checkpoint of a VarNet."
    settings = f"num_cascades={found.num_cascades} chans={found.chans} pools={found.pools}"
    return f"The checkpoint's model has {settings} sens_chans={found.sens_chans} sens_pools={found.sens_pools}: set those, or give another."
