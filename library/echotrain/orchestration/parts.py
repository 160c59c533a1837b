"""The results of single items, kept while a job runs, so that the next one need not do again what a killed one has done."""

import hashlib
import json

from echotrain.orchestration.mapping import Result
from echotrain.storage.open import open_store

__all__ = ["Parts"]

_FOLDER = "parts"


class Parts:
    """Results in a store, one object each; small enough to be told to every worker.

    Args:
        uri: Where the job's outcome will lie.
        identity: Everything that decides the results, as text; those of another identity are not taken for these.
    """

    def __init__(self, uri: str, identity: str = "") -> None:
        self._uri = uri
        self._folder = f"{_FOLDER}/{hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()}"

    def save(self, number: int, result: Result) -> None:
        """Keep the result of an item."""
        blob = json.dumps(result.values).encode() + b"\n" + result.data
        open_store(self._uri).write(f"{self._folder}/{number:06d}", blob)

    def known(self) -> dict[int, Result]:
        """Return what is kept, by the number of the item."""
        store = open_store(self._uri)
        found = {}
        for info in store.list(f"{self._folder}/"):
            values, _, data = store.read(info.key).partition(b"\n")
            found[int(info.key.rpartition("/")[2])] = Result(json.loads(values), data)
        return found

    def clear(self) -> None:
        """Forget everything, of other identities too."""
        store = open_store(self._uri)
        for info in list(store.list(f"{_FOLDER}/")):
            store.delete(info.key)
