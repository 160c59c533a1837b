"""A trained model, ready to use: the configuration it was trained with and the weights of one checkpoint."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from echotrain.config import from_dict, override
from echotrain.data.samples.measured import MeasuredBatch
from echotrain.errors import CheckpointError, ConfigError
from echotrain.shapes import Magnitude
from echotrain.storage.open import open_store
from echotrain.tasks.task import ReconstructingTask, Task
from echotrain.training.checkpoint import CheckpointMeta, describe_mismatch, find_checkpoint, load_weights
from echotrain.training.experiment import Experiment
from echotrain.training.method import Method, build_method

__all__ = ["TrainedModel", "Which", "as_trained", "describe_trained", "load_network", "load_trained", "reconstructing_task"]

Which = Literal["best", "latest"] | str


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model in evaluation mode, and everything that says what it is.

    Attributes:
        experiment: As it was trained, with the caller's overrides.
        model: The network that the task trains, on its device, in evaluation mode, without gradients.
        task: Turns a batch into images.
        checkpoint: URI of the checkpoint.
    """

    experiment: Experiment
    model: nn.Module
    task: ReconstructingTask[MeasuredBatch]
    checkpoint: str

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def reconstruct(self, batch: MeasuredBatch) -> Magnitude:
        """Return the images of a batch on the target's matrix."""
        return self.task.reconstruct(self.model, batch)


def describe_trained(run_uri: str, which: Which = "best", overrides: Sequence[str] = ()) -> tuple[Experiment, CheckpointMeta]:
    """Return what a run's checkpoint is, without loading its weights.

    Args:
        run_uri: Folder of the run.
        which: The checkpoint of the best validation score, the latest one, or one by its name (``step-…``).
        overrides: ``dotted.path=value``, such as another catalog or mask.

    Raises:
        CheckpointError: The run has no such checkpoint.
        ConfigError: An override does not fit.
    """
    meta = find_checkpoint(open_store(run_uri), which)
    if meta is None:
        raise CheckpointError(
            run_uri, f"has no {which} checkpoint", "Train it first: python -m ray_jobs.train RECIPE; or ask for the latest."
        )
    experiment = from_dict(Experiment, meta.config)
    # A run is another's text as a catalog is: what may be read outside of the catalog, only the caller says.
    experiment = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, trusted=()))
    return override(experiment, overrides), meta


def load_trained(run_uri: str, which: Which = "best", overrides: Sequence[str] = (), *, device: torch.device | None = None) -> TrainedModel:
    """Load a run's checkpoint.

    Raises:
        CheckpointError: There is none, it is damaged, or it does not fit the (overridden) model.
        ConfigError: An override does not fit, or the run's task makes no reconstructions.
    """
    experiment, meta = describe_trained(run_uri, which, overrides)
    method = build_method(experiment)
    return as_trained(experiment, method, _load(method.network, run_uri, meta), device)


def load_network(run_uri: str, which: Which = "best") -> tuple[Experiment, nn.Module]:
    """Load a run's network on the CPU, and what it was trained as, whatever its task; errors are those of ``load_trained``."""
    experiment, meta = describe_trained(run_uri, which)
    network = build_method(experiment).network
    _load(network, run_uri, meta)
    return experiment, network.eval().requires_grad_(requires_grad=False)


def as_trained(experiment: Experiment, method: Method, checkpoint: str, device: torch.device | None) -> TrainedModel:
    """Return a network with its weights, made ready for use.

    Raises:
        ConfigError: Its task makes no images.
    """
    task = reconstructing_task(method.task, experiment, checkpoint)
    method.network.to(device or torch.device("cpu")).eval().requires_grad_(requires_grad=False)
    return TrainedModel(experiment=experiment, model=method.network, task=task, checkpoint=checkpoint)


def reconstructing_task(task: Task[Any], experiment: Experiment, where: str) -> ReconstructingTask[Any]:
    """Return a task as one whose networks make images, or raise ConfigError: they do not."""
    if not isinstance(task, ReconstructingTask):
        raise ConfigError(f"task.kind={experiment.task.kind} ({where})", "makes no images", "Name a run that reconstructs.")
    return task


def _load(network: nn.Module, run_uri: str, meta: CheckpointMeta) -> str:
    """Load a checkpoint's weights, and return where it lies."""
    store = open_store(run_uri)
    where = f"{store.uri}/checkpoints/{meta.name}"
    weights = load_weights(store, meta)
    mismatch = describe_mismatch(network.state_dict(), weights)
    if mismatch is not None:
        raise CheckpointError(where, mismatch, "Leave the model's settings as they were in training.")
    network.load_state_dict(weights)
    return where
