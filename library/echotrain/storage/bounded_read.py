"""Reading whole objects of a stranger's: no more of them than they can reasonably have."""

import json
from typing import Any

from echotrain.storage.store import Store

__all__ = ["read_at_most", "read_json"]


def read_at_most(store: Store, key: str, limit: int) -> bytes:
    """Return a whole object, its size known before a byte of it is fetched.

    Args:
        store: Where it lies.
        key: Of the object.
        limit: Bytes, at most.

    Raises:
        ObjectMissingError: There is none.
        StorageError: It is larger; or the store failed.
    """
    return store.read(key, at_most=limit)


def read_json(store: Store, key: str, limit: int) -> Any:
    """Return what an object says as JSON.

    Raises:
        ValueError: It is no JSON, or nested deeper than anything of ours.
        StorageError: As ``read_at_most``.
    """
    try:
        return json.loads(read_at_most(store, key, limit))
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
