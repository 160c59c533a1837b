"""Ray's trainer as this platform uses it: a console that is left to us, and workers that are told of SIGTERM."""

from typing import Any

from ray.train import LoggingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from echotrain.orchestration.runtime.cluster import has_dashboard
from echotrain.orchestration.runtime.private_ray import WithoutHelpers
from echotrain.orchestration.runtime.signals import catch_sigterm

__all__ = ["ERRORS_ONLY", "TorchWithSigterm", "quiet_trainer"]

ERRORS_ONLY = LoggingConfig(log_level="ERROR")


def quiet_trainer(*arguments: Any, **options: Any) -> TorchTrainer:
    """Return a ``TorchTrainer`` that, without a dashboard, does not complain of that and starts no process that it can do without."""
    return (TorchTrainer if has_dashboard() else _TrainerWithoutHelpers)(*arguments, **options)


class TorchWithSigterm(TorchConfig):  # type: ignore[misc]
    """The process group of torch's backends, in workers that catch SIGTERM."""

    @property
    def backend_cls(self) -> type[Any]:
        """Return what sets up the workers."""
        return _BackendWithSigterm


class _BackendWithSigterm(TorchConfig().backend_cls):  # type: ignore[misc]
    """Ray calls a backend in the worker's main thread, the only one that may install a handler; training runs in another."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(catch_sigterm)
        super().on_start(worker_group, backend_config)


class _TrainerWithoutHelpers(WithoutHelpers, TorchTrainer):  # type: ignore[misc]
    pass
