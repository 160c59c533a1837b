"""Published weights as a trained model: a fastMRI state_dict or Lightning checkpoint, by URI, without a run around it.

The file says the architecture by its names and shapes, and nothing else: where data and masks come from is for whoever evaluates to say.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from echotrain.config import override
from echotrain.errors import CheckpointError, ConfigError
from echotrain.models.importers import check_state, fastmri_config, import_fastmri
from echotrain.models.state_file import LARGEST_FILE, read_state
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.storage.folder import as_file
from echotrain.storage.open import absolute_uri, store_of
from echotrain.training.experiment import Experiment
from echotrain.training.method import build_method
from echotrain.training.trained import TrainedModel, as_trained

__all__ = ["WEIGHTS_ENDINGS", "PublishedWeights", "describe_published", "is_weights_file", "load_published"]

# What such files are called; whether one is, its content decides.
WEIGHTS_ENDINGS = (".pt", ".pth", ".ckpt")


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """A file of weights.

    Attributes:
        uri: Where it lies, the same for every process.
        sha256: Of its bytes.
        experiment: The network that it is of, and the caller's overrides; the rest is default.
    """

    uri: str
    sha256: str
    experiment: Experiment

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(self.uri).name


def is_weights_file(uri: str) -> bool:
    """Whether a URI names an object, as weights are, and not a folder or prefix, as a run is.

    Raises:
        StorageError: The store failed.
    """
    if uri.endswith("/"):
        return False
    store, key = store_of(uri)
    return bool(key) and store.size(key) is not None


def describe_published(uri: str, overrides: Sequence[str] = ()) -> PublishedWeights:
    """Return what a file of weights is.

    Args:
        uri: Path or ``s3://`` URI of the file.
        overrides: ``dotted.path=value``: the catalog and the mask, ``model.mask_center``, which no weights tell.

    Raises:
        CheckpointError: The file is no state_dict, is damaged, or is of another network.
        ConfigError: An override does not fit.
        StorageError: The store failed.
    """
    uri = absolute_uri(uri)
    state, sha256 = _read(uri)
    experiment = override(Experiment(name=PurePosixPath(uri).stem, model=fastmri_config(state, uri)), overrides)
    _check(experiment, state, uri)
    return PublishedWeights(uri=uri, sha256=sha256, experiment=experiment)


def load_published(
    uri: str, overrides: Sequence[str] = (), *, sha256: str | None = None, device: torch.device | None = None
) -> TrainedModel:
    """Load a file of weights.

    Args:
        uri: Path or ``s3://`` URI of the file.
        overrides: As ``describe_published``.
        sha256: Of the file that is meant; None takes whatever is there.
        device: Of the model.

    Raises:
        CheckpointError: As ``describe_published``, or the file is another than the one that is meant.
        ConfigError: An override does not fit.
        StorageError: The store failed.
    """
    state, found = _read(uri)
    if sha256 is not None and found != sha256:
        raise CheckpointError(uri, f"has SHA-256 {found}, and {sha256} was begun with", "Leave the file as it is while it is in use.")
    experiment = override(Experiment(name=PurePosixPath(uri).stem, model=fastmri_config(state, uri)), overrides)
    _check(experiment, state, uri)
    return as_trained(experiment, build_method(experiment, lambda model: model.load_state_dict(state)), uri, device)


def _read(uri: str) -> tuple[dict[str, Tensor], str]:
    """Return a file's tensors by our names, and its SHA-256."""
    with _local_file(uri) as path:
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            state = import_fastmri(read_state(path))
        except CheckpointError as error:  # It may be about a copy that will be gone.
            raise CheckpointError(error.value.replace(str(path), uri), error.limit, error.remedy) from error
    return state, sha256


@contextmanager
def _local_file(uri: str) -> Iterator[Path]:
    """Yield the file on this machine, or a copy that is removed afterwards; its size is known before it is fetched."""
    store, key = store_of(uri)
    size = store.size(key) or 0
    if size > LARGEST_FILE:
        raise CheckpointError(uri, f"has {size} bytes, and at most {LARGEST_FILE} are read", "Save its state_dict alone and give that.")
    with as_file(uri) as path:
        yield path


def _check(experiment: Experiment, state: dict[str, Tensor], uri: str) -> None:
    """Make sure that every tensor of the network is there, and no other, before memory is taken for it."""
    if not isinstance(experiment.model, VarNetConfig):
        raise ConfigError(f"model.kind={experiment.model.kind}", f"is not what {uri} holds", "Leave out model.kind.")
    with torch.device("meta"):
        expected = VarNetConfig.build(experiment.model).state_dict()
    check_state(expected, state, uri)
