"""Ray's trainer as this platform uses it: workers that are kept alive, and a console that is left to us."""

from typing import Any

from ray.train import LoggingConfig
from ray.train.torch import TorchTrainer

from echotrain.orchestration.runtime.cluster import has_dashboard
from echotrain.orchestration.runtime.private_ray import PlacementGroupCleanerCallback

__all__ = ["ERRORS_ONLY", "QuietTrainer"]

ERRORS_ONLY = LoggingConfig(log_level="ERROR")


class QuietTrainer(TorchTrainer):  # type: ignore[misc]
    """Without Ray's watch over placement groups where it cannot work: it asks the dashboard, and complains where there is none.

    What it guards against, a controller that dies while the cluster lives on, cannot happen on a cluster that lives as long as the driver.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return callbacks if has_dashboard() else [each for each in callbacks if not isinstance(each, PlacementGroupCleanerCallback)]
