"""Every name that is taken from Ray's inside, in one place: what an upgrade of Ray may break.

* ``state`` reads the autoscaler's limits, as Ray Train itself does; there is no public way.
* ``_internal_kv_*`` is the small store of a cluster, where drivers and workers leave each other notes; the dashboard leaves its address.
* ``WorkerCallback`` and ``WorkerGroupCallback`` are told what becomes of training workers, ``get_train_context`` is their place among them.
* ``PlacementGroupCleanerCallback`` watches over placement groups by way of the dashboard, which is not everywhere.
"""

from ray._private.state import state
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_exists, _internal_kv_get, _internal_kv_put
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import WorkerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.context import get_train_context

__all__ = [
    "PlacementGroupCleanerCallback",
    "WorkerCallback",
    "WorkerGroupCallback",
    "get_train_context",
    "kv_delete",
    "kv_exists",
    "kv_get",
    "kv_put",
    "state",
]

kv_delete, kv_exists, kv_get, kv_put = _internal_kv_del, _internal_kv_exists, _internal_kv_get, _internal_kv_put
