"""Running a method over many volumes: Ray hands out the work, every worker keeps the method ready."""

import dataclasses
import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from echotrain.config import to_dict
from echotrain.data.samples.data_config import DataConfig
from echotrain.data.samples.measured import MeasuredBatch
from echotrain.errors import ConfigError, ResourceError
from echotrain.log import setup_logging
from echotrain.orchestration.runtime.capacity import Shape, capacity
from echotrain.orchestration.runtime.checks import located
from echotrain.orchestration.runtime.cluster import DriverEnvironment, reserved_gpus
from echotrain.setting_text import as_typed
from echotrain.shapes import Magnitude
from echotrain.sweeps.best import best_run
from echotrain.training.experiment import Experiment, flatten
from echotrain.training.published import describe_published, is_weights_file, load_published
from echotrain.training.trained import TrainedModel, Which, describe_trained, load_trained, reconstructing_task

__all__ = ["InferenceConfig", "Method", "Reconstructor", "Subject", "WorkerSetup", "actor_resources"]

logger = logging.getLogger(__name__)

_PINNED = "sha256:"
# What of an experiment decides images, and which of these paths decide what is trained on alone.
_HEEDED = ("data", "model", "task")
_OF_TRAINING = ("data.train_split", "data.subset", "data.fraction", "data.val_follows_fraction", "data.balance.")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated, and on what.

    Attributes:
        name: Short, for titles.
        model: What makes the images, in a line.
        weights: URI of its weights; "" for a method that was not trained.
        sha256: Of the file of these weights.
        data: Catalog, selection and masks; outside training these are the same for every seed.
        settings: Whatever else decides the images.
    """

    name: str
    model: str
    weights: str = ""
    sha256: str = ""
    data: DataConfig
    settings: Mapping[str, Any] = field(default_factory=dict)


class Reconstructor(Protocol):
    """Turns what was acquired into images, in one worker."""

    @property
    def device(self) -> torch.device:
        """Where batches must be."""

    def reconstruct(self, batch: MeasuredBatch) -> Magnitude:
        """Return the images of a batch on the target's matrix."""


class Method(Protocol):
    """A way to reconstruct, small enough to be told to every worker."""

    @property
    def workers(self) -> int:
        """Processes; 0 takes as many as the cluster holds."""

    @property
    def threads_per_worker(self) -> int:
        """CPUs of each."""

    @property
    def uses_gpu(self) -> bool:
        """Whether a worker takes a GPU where there is one."""

    def resolved(self) -> tuple["Method", Subject]:
        """Return the method with every choice made, so that all workers make the same, and what it is."""

    def load(self) -> Reconstructor:
        """Make it ready in this process."""


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """A trained model, and on how many workers it runs.

    Attributes:
        run: Folder of a training run, or of a sweep, whose best trial it then is; or a file of published weights: a fastMRI state_dict or
            Lightning checkpoint, which says its network, and of which data and masks are the overrides' alone.
        checkpoint: The best or the latest one, or one by its name; of a file, once resolved, ``sha256:`` and its checksum.
        overrides: ``dotted.path=value`` changes to the run's configuration: another catalog, another mask.
        workers: Processes with a model each; 0 takes one per GPU, or one per CPU where there is no GPU.
        threads_per_worker: Threads of torch in a CPU worker.
    """

    run: str
    checkpoint: Which = "best"
    overrides: Sequence[str] = ()
    workers: int = 0
    threads_per_worker: int = 1
    uses_gpu = True

    def __post_init__(self) -> None:
        if self.workers < 0 or self.threads_per_worker < 1:
            raise ConfigError(
                f"workers={self.workers}, threads_per_worker={self.threads_per_worker}",
                "must be at least 0 and 1",
                "Leave workers out for as many as the cluster holds.",
            )

    def resolved(self) -> tuple["InferenceConfig", Subject]:
        """Name one checkpoint, whatever a run that is still training writes meanwhile, by a path that holds in every process."""
        if is_weights_file(self.run):
            return self._published()
        run = best_run(self.run)
        experiment, meta = describe_trained(run, self.checkpoint, self.overrides)
        _refuse_unheeded(describe_trained(run, self.checkpoint)[0], experiment)
        reconstructing_task(experiment.task.build(), experiment, run)
        model = _model_settings(experiment)
        overrides = [*self.overrides, *(f"{path}={as_typed(value)}" for path, value in model.items())]
        subject = Subject(
            name=experiment.name,
            model=experiment.describe(),
            weights=f"{run}/checkpoints/{meta.name}",
            sha256=meta.files["weights.pt"]["sha256"],
            data=experiment.data,
            settings={**model, **flatten({"task": to_dict(experiment.task)})},
        )
        return dataclasses.replace(self, run=run, checkpoint=meta.name, overrides=overrides), subject

    def _published(self) -> tuple["InferenceConfig", Subject]:
        if self.checkpoint != "best" and not self.checkpoint.startswith(_PINNED):
            raise ConfigError(f"checkpoint={self.checkpoint}", f"has no meaning for {self.run}, a file of weights", "Leave it out.")
        found = describe_published(self.run, self.overrides)
        experiment = found.experiment
        _refuse_unheeded(describe_published(self.run).experiment, experiment)
        logger.info("%s: %s, SHA-256 %s; samples %s", found.uri, experiment.describe(), found.sha256, experiment.data.of_samples)
        subject = Subject(
            name=experiment.name,
            model=f"{experiment.describe()} ({found.name})",
            weights=found.uri,
            sha256=found.sha256,
            data=experiment.data,
            settings={**_model_settings(experiment), **flatten({"task": to_dict(experiment.task)})},
        )
        return dataclasses.replace(self, run=found.uri, checkpoint=f"{_PINNED}{found.sha256}"), subject

    def load(self) -> TrainedModel:
        """Load the model onto this process's device.

        Raises:
            ResourceError: It has a GPU of the cluster's, of which torch knows nothing.
        """
        device = _device(reserved_gpus())
        if device.type == "cpu":
            torch.set_num_threads(self.threads_per_worker)
        if self.checkpoint.startswith(_PINNED):
            return load_published(self.run, self.overrides, sha256=self.checkpoint.removeprefix(_PINNED), device=device)
        return load_trained(self.run, self.checkpoint, self.overrides, device=device)


def _refuse_unheeded(trained: Experiment, changed: Experiment) -> None:
    """Refuse overrides that no image would follow: those of training, and of the place where that was done."""
    before, now = flatten(to_dict(trained)), flatten(to_dict(changed))
    for path in sorted(path for path, value in now.items() if before.get(path) != value):
        if path.split(".")[0] not in _HEEDED or path.startswith(_OF_TRAINING):
            limit = "is of training, and changes neither which images are made nor how"
            raise ConfigError(f"{path}={as_typed(now[path])}", limit, "Leave it out; data.where= and the split choose what is evaluated.")


def _device(gpus: float) -> torch.device:
    """Return the device of a worker that has reserved so many GPUs; on a CPU it would keep them from others, and be slow without a word."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if gpus:
        raise ResourceError(
            f"a worker on {socket.gethostname()} has reserved {gpus:g} GPU{'s' * (gpus != 1)}",
            f"torch {torch.__version__} sees none",
            "Use an image whose torch fits the node's driver (see nvidia-smi there), or a cluster whose nodes declare no GPUs.",
        )
    return torch.device("cpu")


def _model_settings(experiment: Experiment) -> dict[str, Any]:
    return flatten({"model": to_dict(located(experiment.model, begins=False))})


@dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """What a worker process is told; ``prepare`` is the first thing it does."""

    method: Method
    environment: DriverEnvironment = field(default_factory=DriverEnvironment.here)

    def prepare(self) -> None:
        """Set up this process."""
        self.environment.apply()
        setup_logging("WARNING")


def actor_resources(method: Method, num_items: int) -> dict[str, float]:
    """Return ``concurrency``, ``num_cpus`` and ``num_gpus`` for the workers of ``map_items``.

    Raises:
        ResourceError: The cluster cannot hold as many as were asked for, and cannot grow to.
    """
    room = capacity()
    has_gpus = method.uses_gpu and room.gpus > 0
    shape = Shape(gpus=1) if has_gpus else Shape(cpus=method.threads_per_worker)
    fit = room.workers(shape)
    if method.workers > fit or not fit:
        raise ResourceError(f"workers={method.workers}", f"{room}, so {fit} fit", "Lower workers or threads_per_worker, or leave them out.")
    workers = min(method.workers or fit, max(num_items, 1))
    return {"concurrency": workers, "num_cpus": shape.cpus, "num_gpus": shape.gpus}
