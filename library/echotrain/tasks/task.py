"""What the trainer asks of a task: everything a learning paradigm decides, and nothing about loops, ranks or storage.

Pre-training, segmentation and expert models are further implementations of ``Task``, never a second loop.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from echotrain.data.catalog.identity import SampleId
from echotrain.data.samples.batch import Batch
from echotrain.ranks import Ranks
from echotrain.shapes import Magnitude, PerSample
from echotrain.tasks.progress import Progress

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
    """One pass over a split: each rank adds its samples, rank 0 merges and scores. Whether samples need a target is its own affair."""

    def add(self, network: nn.Module, batch: B_contra) -> None:
        """Run the network on a batch and keep the few numbers that the scores need."""

    def state(self) -> Any:
        """Return everything gathered here, to be sent to rank 0."""

    def merge(self, state: Any) -> None:
        """Take in what a rank has gathered; a sample that comes twice counts once."""

    def scores(self) -> dict[str, float]:
        """Return the metrics; empty where no sample was added."""

    def table(self) -> ScoreTable:
        """Return the metrics by group."""


class Task(Protocol[B_contra]):
    """What one step means, of the kind of batch that it takes.

    Its settings say what it goes with: ``models``, the kinds of model that it trains, and ``data``, the kinds of sample that it takes.
    A class that inherits from this one has a task's defaults: the network is the model, nothing follows a step, ``val`` is validated on.
    """

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the validation metrics, each an entry of ``metrics.table``."""

    @property
    def score(self) -> str:
        """The validation metric whose best value, by ``metrics.table``, marks the best checkpoint."""

    @property
    def splits(self) -> tuple[str, ...]:
        """What is validated on: the first split's scores have their metrics' names, those of another are ``split/metric``."""
        return ("val",)

    def network(self, model: nn.Module) -> nn.Module:
        """Return what is trained: the model, or a module that holds it beside what else the task owns (a teacher, heads).

        All of it is optimised where it requires a gradient, averaged, saved and restored. The model has its first weights already.
        """
        return model

    def loss(self, network: nn.Module, batch: B_contra) -> StepLoss:
        """Run the network on a batch and return each sample's loss.

        The network may be wrapped: what is to get gradients goes through its ``forward``, whose output may be a named tuple. No rank
        waits for another in here; what ranks must agree on is gathered in buffers, and reduced in ``after_step``.
        """

    def after_step(self, network: nn.Module, progress: Progress, ranks: Ranks) -> None:
        """Act on the bare network after the optimiser's step (move a teacher, update a router), without gradients.

        Args:
            network: It must come out the same on every rank, buffers included.
            progress: The step that was done.
            ranks: By which statistics are reduced.
        """
        return

    def validation(self) -> Validation[B_contra]:
        """Begin a pass over a split."""

    def panels(self, network: nn.Module, batch: B_contra) -> list[Panel]:
        """Return pictures of a batch's samples."""


@runtime_checkable
class ReconstructingTask(Task[B_contra], Protocol[B_contra]):
    """A task whose models make images, and so can be evaluated as volumes."""

    def reconstruct(self, network: nn.Module, batch: B_contra) -> Magnitude:
        """Return the images of a batch on the target's matrix."""


def bare(network: nn.Module) -> nn.Module:
    """Return the network itself where DDP wraps it: for what it offers beside ``forward``."""
    module: nn.Module = network.module if isinstance(network, DistributedDataParallel) else network
    return module
