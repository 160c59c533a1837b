"""A whole experiment in one flat, frozen configuration with two halves.

``Science`` decides the numbers; ``Place`` must not: the same science on one or four workers gives the same losses up to
the order of summation. A run is resumed only by its own science, and may be moved to any other place.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from echotrain.config import override, to_dict, with_present_names
from echotrain.data.config import StreamConfig
from echotrain.data.samples.image import ImageData
from echotrain.data.samples.kspace_kt import KtData
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import ConfigError
from echotrain.models.bridge.network import BridgeNetworkConfig
from echotrain.models.mae.network import MaeNetworkConfig
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.storage.lease import LONGEST_SILENCE_S, SILENCE_S
from echotrain.tasks.bridge import BridgeConfig
from echotrain.tasks.mae import MaeConfig
from echotrain.tasks.reconstruction import ReconstructionConfig
from echotrain.training.optim import OptimConfig
from echotrain.training.precision import Precision

__all__ = [
    "NUMBERLESS",
    "Experiment",
    "ModelConfig",
    "Place",
    "SampleConfig",
    "Science",
    "TaskConfig",
    "WandbConfig",
    "changed_keys",
    "flatten",
    "science",
]

# Every kind of sample, every network and every task; ``kind`` tells them apart, and the first is what settings that name none mean.
SampleConfig = LinesData | KtData | ImageData
ModelConfig = VarNetConfig | BridgeNetworkConfig | MaeNetworkConfig
TaskConfig = ReconstructionConfig | BridgeConfig | MaeConfig

# Settings among those of the science half that say how work is done, and change no number.
NUMBERLESS = ("model.activation_checkpointing", "model.compile_regularizer")
# They, and those that decide when to stop and where bytes lie, may differ between the starts of a run.
_FREE = ("epochs", "data.catalog", "data.trusted", *NUMBERLESS)


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases: on by default, offline where no ``WANDB_API_KEY`` is set.

    Attributes:
        enabled: Whether to keep a W&B run at all.
        project, entity, group: As W&B uses them; ``entity=""`` is the account's default.
        name: Shown there; "" takes the run's.
        panels: Validation slices shown as pictures after each epoch.
    """

    enabled: bool = True
    project: str = "echotrain"
    entity: str = ""
    group: str = ""
    name: str = ""
    panels: int = 2

    def __post_init__(self) -> None:
        _at_least("wandb.panels", self.panels, 0)


@dataclass(frozen=True, kw_only=True)
class Science:
    """The half that decides the numbers.

    Attributes:
        seed: Root of every draw: weights, order, masks.
        epochs: Where to stop. Raising it continues a finished run.
        batch_size: Samples of one step over **all** workers.
        data, task, model, optim: What is learnt from, what a step means, the network, the optimiser.
        precision: ``bf16`` runs forward and loss under autocast; weights and optimiser stay float32.
        ema_decay: Decay of an exponential moving average of the weights, which is then what is validated and kept as the
            weights of a checkpoint; 0 keeps none.
        validate_every: Epochs between validations; the last epoch is always validated.
    """

    seed: int = 42
    epochs: int = 50
    batch_size: int = 4
    data: Annotated[SampleConfig, Field(discriminator="kind")] = field(default_factory=LinesData)
    task: Annotated[TaskConfig, Field(discriminator="kind")] = field(default_factory=ReconstructionConfig)
    model: Annotated[ModelConfig, Field(discriminator="kind")] = field(default_factory=VarNetConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    precision: Precision = "fp32"
    ema_decay: float = 0.0
    validate_every: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "validate_every"):
            _at_least(name, getattr(self, name), 1)
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay={self.ema_decay}", "must lie in [0, 1)", "Use 0 for no average, or say 0.999.")
        _check_task(self.task, self.model, self.data)
        shown, taken = (getattr(part, "num_adjacent", 1) for part in (self.data, self.model))
        if shown != taken:
            raise ConfigError(
                f"data.num_adjacent={shown} and model.num_adjacent={taken}",
                "must be one number: a network takes windows as they are (kinds without that setting have single frames)",
                "Give both the same.",
            )

    def describe(self) -> str:
        """Return what a table calls the method."""
        return ", ".join(part for part in (self.task.describe(), self.model.describe()) if part)


@dataclass(frozen=True, kw_only=True)
class Place:
    """The half that must not change a number.

    Attributes:
        name: Folder of the run below ``storage``; the same name is the same run and is resumed.
        storage: Folder or ``s3://bucket/prefix`` that keeps configuration, metrics and checkpoints.
        workers: Training processes, one device each.
        device: ``auto`` takes a GPU per worker where the cluster has enough of them.
        cpus_per_worker: CPUs each worker reserves in Ray.
        threads_per_worker: Threads of torch in a CPU worker.
        max_failures: Worker deaths after which the run gives up; -1 never does.
        log_every: Steps between lines of the metric sinks.
        checkpoint_every: Steps between checkpoints; 0 writes them at the end of epochs only.
        micro_batch: Samples that a worker runs at once, at most: less memory, and the same numbers up to the order of summation. 0 runs
            all of a step that have one shape.
        keep_checkpoints: Latest checkpoints to keep, besides the best.
        lease_s: Seconds without a sign of a run's driver on another machine, after which the run may be taken over from there.
        stream: How payload is fetched.
        wandb: The W&B sink.
    """

    name: str = "run"
    storage: str = "runs"
    workers: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cpus_per_worker: float = 1.0
    threads_per_worker: int = 1
    max_failures: int = 3
    log_every: int = 20
    checkpoint_every: int = 500
    micro_batch: int = 0
    keep_checkpoints: int = 2
    lease_s: float = SILENCE_S
    stream: StreamConfig = field(default_factory=StreamConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        for name in ("workers", "threads_per_worker", "log_every", "keep_checkpoints"):
            _at_least(name, getattr(self, name), 1)
        for name in ("checkpoint_every", "micro_batch"):
            _at_least(name, getattr(self, name), 0)
        _at_least("max_failures", self.max_failures, -1)
        if not 1 <= self.lease_s <= LONGEST_SILENCE_S:
            raise ConfigError(f"lease_s={self.lease_s:g}", f"must lie in [1, {LONGEST_SILENCE_S:g}]", f"Use {SILENCE_S:g} where in doubt.")
        if self.cpus_per_worker <= 0:
            raise ConfigError(f"cpus_per_worker={self.cpus_per_worker}", "must be positive", "Use 1 where in doubt.")
        if not self.name or any(part in {"", ".", ".."} for part in self.name.split("/")):
            raise ConfigError(f"name={self.name!r}", "must be a relative path of plain words", "Name the run, say name=knee-x4.")
        if not self.storage:
            raise ConfigError("storage=''", "must be a folder or an s3:// URI", "Use storage=runs.")

    @property
    def run_uri(self) -> str:
        """The folder of this run."""
        return f"{self.storage.rstrip('/')}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Experiment(Science, Place):
    """Science and place in one flat configuration: ``workers=2 optim.lr=1e-3`` are its override paths."""

    def __post_init__(self) -> None:
        Science.__post_init__(self)
        Place.__post_init__(self)
        if self.batch_size < self.workers:
            raise ConfigError(
                f"batch_size={self.batch_size}",
                f"is less than workers={self.workers}, so that a worker would have nothing to do",
                "Raise batch_size (it counts samples over all workers) or use fewer workers.",
            )


def science(experiment: Experiment) -> dict[str, Any]:
    """Return the settings that decide the numbers, flat: dotted path to plain value."""
    names = {f.name for f in dataclasses.fields(Science)}
    flat = flatten({name: value for name, value in to_dict(experiment).items() if name in names})
    return {path: value for path, value in flat.items() if path not in _FREE}


def changed_keys(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, with the value before and now (None where there is no such setting).

    A setting that this version has and ``before`` lacks came later: before it was as its default is.
    """
    before = with_present_names(Experiment, before)
    kinds = [f"{path}={before[path]}" for path in ("data.kind", "task.kind", "model.kind") if path in before]
    defaults = science(override(Experiment(), kinds))
    before = {**{path: value for path, value in defaults.items() if path in now}, **before}
    paths = sorted(set(before) | set(now))
    return {path: (before.get(path), now.get(path)) for path in paths if before.get(path) != now.get(path)}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted paths."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _check_task(task: TaskConfig, model: ModelConfig, data: SampleConfig) -> None:
    """Refuse a model or samples that a task has no use for."""
    every: tuple[Any, ...] = get_args(TaskConfig)
    if model.kind not in task.models:
        others = [member.kind for member in every if model.kind in member.models]
        remedy = f"Set task.kind={others[0]}." if others else f"Set model.kind={task.models[0]}."
        raise ConfigError(f"task.kind={task.kind}", f"does not train model.kind={model.kind}", remedy)
    if not issubclass(data.batch, task.data):
        others = [member.kind for member in every if issubclass(data.batch, member.data)]
        fitting = [member.kind for member in get_args(SampleConfig) if issubclass(member.batch, task.data)]
        remedy = f"Set task.kind={others[0]}." if others else f"Set data.kind={fitting[0]}."
        raise ConfigError(f"task.kind={task.kind}", f"does not train data.kind={data.kind}", remedy)


def _at_least(name: str, value: int, limit: int) -> None:
    if value < limit:
        raise ConfigError(f"{name}={value}", f"must be at least {limit}", f"Use {name}={limit} or more.")
