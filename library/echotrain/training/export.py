"""The encoder of a trained run by itself: a plain state_dict that timm's names fit, and beside it what its tensors do not say."""

import dataclasses
import io
import json
from pathlib import PurePosixPath

import torch

from echotrain.errors import ConfigError
from echotrain.models.encoder import HasEncoder
from echotrain.storage.open import absolute_uri, store_of
from echotrain.training.trained import Which, load_network

__all__ = ["export_encoder"]

_ENDING = ".pt"


def export_encoder(run_uri: str, to: str, which: Which = "best") -> str:
    """Write the encoder of a run's checkpoint; return the URI of the file.

    The file is what ``torch.save`` makes of a state_dict, to be read with ``weights_only=True``. Beside it, as ``.json``, lies its shape.

    Args:
        run_uri: Folder of the run.
        to: Path or ``s3://`` URI of the file, ending in ``.pt``.
        which: The checkpoint of the best validation score, the latest one, or one by its name.

    Raises:
        CheckpointError: The run has no such checkpoint, or it is damaged.
        ConfigError: Its network has no encoder to take away, or ``to`` is not so called.
        StorageError: The store failed.
    """
    if PurePosixPath(to).suffix != _ENDING:
        raise ConfigError(f"--to {to}", f"must end in {_ENDING}: its shape is written beside it as .json", f"Say, encoder{_ENDING}.")
    experiment, network = load_network(run_uri, which)
    if not isinstance(network, HasEncoder):
        raise ConfigError(f"{run_uri}: model.kind={experiment.model.kind}", "has no encoder to take away", "Give a run of model.kind=mae.")
    content = io.BytesIO()
    torch.save(network.encoder_state(), content)
    store, key = store_of(absolute_uri(to))
    # Whoever finds the weights finds their shape.
    store.write(f"{key.removesuffix(_ENDING)}.json", json.dumps(dataclasses.asdict(network.encoder_shape())).encode())
    store.write(key, content.getvalue())
    return f"{store.uri}/{key}"
