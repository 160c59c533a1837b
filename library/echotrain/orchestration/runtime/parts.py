"""The results of single items, kept while a job runs, so that the next one need not do again what a killed one has done."""

import hashlib
import json

from echotrain.orchestration.runtime.mapping import Result
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

    def numbers(self) -> set[int]:
        """Return which items are kept, without reading them."""
        return {int(info.key.rpartition("/")[2]) for info in open_store(self._uri).list(f"{self._folder}/")}

    def load(self, number: int) -> Result:
        """Return the result of an item that is kept."""
        values, _, data = open_store(self._uri).read(f"{self._folder}/{number:06d}").partition(b"\n")
        return Result(json.loads(values), data)

    def known(self) -> dict[int, Result]:
        """Return what is kept, by the number of the item."""
        return {number: self.load(number) for number in sorted(self.numbers())}

    def clear(self) -> None:
        """Forget everything, of other identities too."""
        store = open_store(self._uri)
        for info in list(store.list(f"{_FOLDER}/")):
            store.delete(info.key)
