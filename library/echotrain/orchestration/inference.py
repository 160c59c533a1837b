"""Running a trained model over many volumes: Ray Data hands out the work, every worker keeps one model."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from echotrain.errors import ConfigError, ResourceError
from echotrain.log import setup_logging
from echotrain.orchestration.cluster import DriverEnvironment, num_cpus, num_gpus
from echotrain.training.trained import TrainedModel, Which, load_trained

__all__ = ["InferenceConfig", "WorkerSetup", "actor_resources"]


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Which model runs, and on how many workers.

    Attributes:
        run: Folder of a training run.
        checkpoint: The best or the latest one, or one by its name.
        overrides: ``dotted.path=value`` changes to the run's configuration: another catalog, another mask.
        workers: Processes with a model each; 0 takes one per GPU, or one per CPU where there is no GPU.
        threads_per_worker: Threads of torch in a CPU worker.
    """

    run: str
    checkpoint: Which = "best"
    overrides: Sequence[str] = ()
    workers: int = 0
    threads_per_worker: int = 1

    def __post_init__(self) -> None:
        if self.workers < 0 or self.threads_per_worker < 1:
            raise ConfigError(
                f"workers={self.workers}, threads_per_worker={self.threads_per_worker}",
                "must be at least 0 and 1",
                "Leave workers out for as many as the cluster holds.",
            )


@dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """What a worker process is told; ``load`` is the first thing it does."""

    config: InferenceConfig
    environment: DriverEnvironment = field(default_factory=DriverEnvironment.here)

    def load(self) -> TrainedModel:
        """Prepare this process and load the model onto its device."""
        self.environment.apply()
        setup_logging("WARNING")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if device.type == "cpu":
            torch.set_num_threads(self.config.threads_per_worker)
        return load_trained(self.config.run, self.config.checkpoint, self.config.overrides, device=device)


def actor_resources(config: InferenceConfig, num_items: int) -> dict[str, float]:
    """Return Ray Data's ``concurrency``, ``num_cpus`` and ``num_gpus`` for the workers.

    Raises:
        ResourceError: The cluster cannot hold as many as were asked for.
    """
    cpus, gpus = num_cpus(), num_gpus()
    capacity = int(gpus or cpus // config.threads_per_worker)
    if config.workers > capacity or not capacity:
        raise ResourceError(
            f"workers={config.workers}",
            f"the cluster has {gpus:g} GPUs and {cpus:g} CPUs, so {capacity} fit",
            "Lower workers or threads_per_worker, or leave them out.",
        )
    workers = min(config.workers or capacity, max(num_items, 1))
    return {"concurrency": workers, "num_cpus": 0 if gpus else config.threads_per_worker, "num_gpus": 1 if gpus else 0}
