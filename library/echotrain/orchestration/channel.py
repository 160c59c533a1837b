"""The thin line between a driver and its workers: progress one way, a request to stop the other way.

Both are a few hundred bytes in the key-value store of Ray's control service, so that neither needs an actor of its own, nor the
run's storage.
"""

import collections
import json
from typing import Any

from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_exists, _internal_kv_get, _internal_kv_put

from echotrain.training.sinks import Record

__all__ = ["RunChannel"]

_NAMESPACE = "echotrain"
_KEPT = 256


class RunChannel:
    """One run's line; made by the driver and by rank 0 alike.

    Args:
        run_id: The run's id.
    """

    def __init__(self, run_id: str) -> None:
        self._progress = f"progress/{run_id}"
        self._stop = f"stop/{run_id}"
        self._sent: collections.deque[list[Any]] = collections.deque(maxlen=_KEPT)

    def publish(self, record: Record) -> None:
        """Send a record to the driver; rank 0 only."""
        if not self._sent:
            self._sent.extend(self._read())
        number = self._sent[-1][0] + 1 if self._sent else 1
        self._sent.append([number, dict(record)])
        _internal_kv_put(self._progress, json.dumps(list(self._sent)).encode(), overwrite=True, namespace=_NAMESPACE)

    def records(self, after: int = 0) -> list[tuple[int, Record]]:
        """Return the numbered records that came after number ``after``."""
        return [(number, record) for number, record in self._read() if number > after]

    def request_stop(self) -> None:
        """Ask the workers to save and stop."""
        _internal_kv_put(self._stop, b"1", overwrite=True, namespace=_NAMESPACE)

    def is_stop_requested(self) -> bool:
        """Whether the driver asked to stop."""
        return bool(_internal_kv_exists(self._stop, namespace=_NAMESPACE))

    def clear(self) -> None:
        """Forget everything of this run."""
        for key in (self._progress, self._stop):
            _internal_kv_del(key, namespace=_NAMESPACE)

    def _read(self) -> list[list[Any]]:
        found = _internal_kv_get(self._progress, namespace=_NAMESPACE)
        return json.loads(found) if found else []
