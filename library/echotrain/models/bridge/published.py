"""Networks in the layout of diffusers: a folder with ``config.json`` and one file of safetensors."""

import importlib.util
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from echotrain.errors import ConfigError, ObjectMissingError, ResourceError
from echotrain.storage.bounded_read import read_json
from echotrain.storage.folder import as_folder
from echotrain.storage.open import open_store

__all__ = ["check_folder", "find_diffusers", "import_diffusers", "load_autoencoder", "load_tensors"]

_CONFIG = "config.json"
_LARGEST_CONFIG = 1 << 20
_WEIGHTS = "diffusion_pytorch_model.safetensors"


def find_diffusers() -> None:
    """Raise ``ResourceError`` where diffusers is not installed; the seconds of its import are left to who needs it."""
    if importlib.util.find_spec("diffusers") is None:
        raise ResourceError("diffusers", "is not installed", "Install it with: pip install 'echotrain[lbm]'")


def import_diffusers() -> Any:
    """Import diffusers; raises ``ResourceError`` where it is not installed."""
    find_diffusers()
    import diffusers

    return diffusers


def check_folder(setting: str, uri: str, kind: str) -> Mapping[str, Any]:
    """Return what a folder's ``config.json`` says, once both files are known to be there.

    Args:
        setting: What named the folder, for the message.
        uri: A folder or ``s3://bucket/prefix``.
        kind: What diffusers calls such a network.

    Raises:
        ConfigError: A file is missing, or the first is damaged or describes another network.
        StorageError: The store failed after bounded retries.
    """
    store = open_store(uri)
    missing = [key for key in (_CONFIG, _WEIGHTS) if store.size(key) is None]
    if missing:
        raise ConfigError(
            f"{setting}={uri}", f"holds no {' and no '.join(missing)}", "Name a folder that diffusers' save_pretrained wrote, unsharded."
        )
    try:
        described: dict[str, Any] = dict(read_json(store, _CONFIG, _LARGEST_CONFIG))
    except (ValueError, TypeError) as error:
        raise _damaged(setting, uri, error) from error
    found = described.get("_class_name")
    if found != kind:
        raise ConfigError(f"{setting}={uri}", f"is a {found} by its {_CONFIG}, not a {kind}", f"Name the folder of a {kind}.")
    return described


def load_tensors(setting: str, uri: str) -> dict[str, Tensor]:
    """Return the weights of a folder by their names.

    Raises:
        ConfigError: The file is missing or damaged.
        ResourceError: diffusers, which brings what reads them, is not installed.
    """
    find_diffusers()
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with as_folder(uri, [_WEIGHTS]) as folder:
            tensors: dict[str, Tensor] = load_file(folder / _WEIGHTS)
    except (ObjectMissingError, OSError, SafetensorError) as error:
        raise _damaged(setting, uri, error) from error
    return tensors


def load_autoencoder(setting: str, uri: str, device: torch.device) -> Any:
    """Return a frozen ``AutoencoderKL``; torch's global generator stays as it is.

    Raises:
        ConfigError: A file is missing or damaged.
        ResourceError: diffusers is not installed.
    """
    autoencoder_class = import_diffusers().AutoencoderKL
    from safetensors import SafetensorError

    try:
        # Made outside of inference mode, so that a graph may go through it later.
        with torch.random.fork_rng(devices=[]), torch.inference_mode(mode=False), as_folder(uri, [_CONFIG, _WEIGHTS]) as folder:
            autoencoder, info = autoencoder_class.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
            )
            if info["missing_keys"]:
                raise OSError(f"it lacks {sorted(info['missing_keys'])[0]}")
            return autoencoder.to(device).eval().requires_grad_(requires_grad=False)
    except (ObjectMissingError, OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _damaged(setting, uri, error) from error


def _damaged(setting: str, uri: str, error: Exception) -> ConfigError:
    reason = str(error).splitlines()[0]
    return ConfigError(f"{setting}={uri}", f"cannot be read ({reason})", "Copy the folder again from where it was published.")
