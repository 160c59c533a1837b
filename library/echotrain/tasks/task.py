"""What the trainer asks of a task: everything a learning paradigm decides, and nothing about loops, ranks or storage.

Pre-training, segmentation and expert models are further implementations of ``Task``, never a second loop.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from echotrain.data.catalog.identity import SampleId
from echotrain.data.samples.batch import Batch
from echotrain.shapes import Magnitude, PerSample

B_contra = TypeVar("B_contra", bound=Batch, contravariant=True)

__all__ = ["Panel", "ReconstructingTask", "ScoreTable", "StepLoss", "Task", "Validation", "bare"]


class StepLoss(NamedTuple):
    """The losses of a batch, one per sample, so that the trainer alone decides how samples of a step are averaged.

    Attributes:
        per_sample: Losses with their graph.
        logs: Further per-sample numbers, the same names for every batch; averaged and logged like the loss.
    """

    per_sample: PerSample
    logs: dict[str, PerSample]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Pictures of one validation sample, to be shown in a row.

    Attributes:
        sample: Which one it is.
        caption: Names it, never a patient.
        images: Name to image (y, x), in the order of showing.
        scale: The value shown as white.
    """

    sample: SampleId
    caption: str
    images: dict[str, NDArray[np.float32]]
    scale: float


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Validation scores by group.

    Attributes:
        title: What the groups are: ``anatomy``.
        columns: The group's name first, then how many members it has, then metrics.
        rows: One per group.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]


class Validation(Protocol[B_contra]):
    """One pass over the validation split: each rank adds its samples, rank 0 merges and scores."""

    def add(self, model: nn.Module, batch: B_contra) -> None:
        """Run the model on a batch and keep the few numbers that the scores need."""

    def state(self) -> Any:
        """Return everything gathered here, to be sent to rank 0."""

    def merge(self, state: Any) -> None:
        """Take in what a rank has gathered; a sample that comes twice counts once."""

    def scores(self) -> dict[str, float]:
        """Return the metrics; empty where no sample was added."""

    def table(self) -> ScoreTable:
        """Return the metrics by group."""


class Task(Protocol[B_contra]):
    """What one step means, of the kind of batch that it takes."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the validation metrics."""

    @property
    def score(self) -> str:
        """The validation metric whose highest value marks the best checkpoint."""

    def loss(self, model: nn.Module, batch: B_contra) -> StepLoss:
        """Run the model on a batch and return each sample's loss."""

    def after_step(self, model: nn.Module, global_step: int) -> None:
        """Act on the bare model after the optimiser's step (move a teacher, update a router)."""

    def validation(self) -> Validation[B_contra]:
        """Begin a pass over the validation split."""

    def panels(self, model: nn.Module, batch: B_contra) -> list[Panel]:
        """Return pictures of a batch's samples."""


class ReconstructingTask(Task[B_contra], Protocol[B_contra]):
    """A task whose models make images, and so can be evaluated as volumes."""

    def reconstruct(self, model: nn.Module, batch: B_contra) -> Magnitude:
        """Return the images of a batch on the target's matrix."""


def bare(model: nn.Module) -> nn.Module:
    """Return the network itself where DDP wraps it: for what it offers beside ``forward``."""
    module: nn.Module = model.module if isinstance(model, DistributedDataParallel) else model
    return module
