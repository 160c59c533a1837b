"""Manifests with one thing changed, for comparing two judges of manifests."""

import copy
import random
from collections.abc import Iterator
from typing import Any

__all__ = ["mutants"]

_VALUES: tuple[Any, ...] = (None, True, 0, -1, 7, 1.5, 2**40, "", "text", "7", "1Gi", "Never", [], ["text"], [None], {}, {"key": "text"})
# The server looks the object up by these; and labels of templates are judged more strictly than by the server, on purpose.
_KEPT = {"apiVersion", "kind", "name", "namespace", "labels"}


def mutants(document: dict[str, Any], rng: random.Random, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``count`` copies with one change each, and what was changed."""
    for _ in range(count):
        changed = copy.deepcopy(document)
        path, holder, key = rng.choice(list(_places(changed, "")))
        change = rng.choice(_CHANGES)
        yield f"{change.__name__} {path}", change(changed, holder, key, rng)


def _places(value: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield (path, container, key) of everything that is in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        here = f"{path}.{key}"
        if key not in _KEPT and here != ".metadata":
            yield here, value, key
        if key != "labels":
            yield from _places(item, here)


def _removed(document: Any, holder: Any, key: Any, rng: random.Random) -> Any:
    del holder[key]
    return document


def _replaced(document: Any, holder: Any, key: Any, rng: random.Random) -> Any:
    holder[key] = copy.deepcopy(rng.choice(_VALUES))
    return document


def _misspelt(document: Any, holder: Any, key: Any, rng: random.Random) -> Any:
    if isinstance(holder, dict):
        holder[f"{key}s"] = holder.pop(key)
    else:
        holder[key] = [holder[key]]
    return document


def _added(document: Any, holder: Any, key: Any, rng: random.Random) -> Any:
    value = holder[key]
    if isinstance(value, dict):
        value["additional"] = copy.deepcopy(rng.choice(_VALUES))
    elif isinstance(value, list):
        value.append(copy.deepcopy(rng.choice([*value, *_VALUES])))
    else:
        holder[key] = [value]
    return document


_CHANGES = (_removed, _replaced, _misspelt, _added)
