"""Every name that is taken from Ray's inside, in one place: what an upgrade of Ray may break. A test of each says so by name.

* ``state.get_cluster_config`` is what an autoscaler has told of its groups; Ray Train and Ray Data ask it, and there is no public way.
* ``PlacementGroupCleanerCallback`` and ``DatasetsCallback`` are among the callbacks of every trainer, and no setting leaves them out.
  Either costs a process (1.9 s of CPU, 200 MB), which a laptop that trains for seconds, or sweeps, can spare. The first, on a cluster
  without a dashboard, asks whatever other cluster it finds on the machine, or prints a stack trace where it finds several; the second
  deals out the datasets that a trainer was given, and ours are given none.
"""

from typing import Any

from ray._private.state import state

__all__ = ["WithoutHelpers", "cluster_config"]


def cluster_config() -> Any:
    """Return what an autoscaler has left word of in the cluster, None where none has."""
    return state.get_cluster_config()


class WithoutHelpers:
    """Put before a trainer, it leaves out Ray's watch over placement groups and its dealing of datasets.

    What the watch guards against, a controller that dies while the cluster lives on, cannot happen on a cluster that ends with its driver.
    """

    def _create_default_callbacks(self) -> list[Any]:
        # Here, because whoever asks for a cluster's size needs no Ray Train, which takes 0.7 s to import.
        from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
        from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

        callbacks: list[Any] = super()._create_default_callbacks()  # type: ignore[misc]
        return [each for each in callbacks if not isinstance(each, DatasetsCallback | PlacementGroupCleanerCallback)]
