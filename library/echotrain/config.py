"""Typed configuration: frozen dataclasses, changed only by ``dotted.path=value``.

The command line, sweeps and the chart all speak this one syntax. Values are YAML scalars or lists;
types come from the annotations and are checked by pydantic, so ``model.num_cascades=twelve`` fails
before anything starts.
"""

import dataclasses
import difflib
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from echotrain.errors import ConfigError

__all__ = ["fingerprint", "from_dict", "keys", "override", "parse_arguments", "to_dict"]

C = TypeVar("C")


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as nested plain values that JSON can hold."""
    return cast(dict[str, Any], TypeAdapter(type(config)).dump_python(config, mode="json"))


def from_dict(cls: type[C], values: Mapping[str, Any]) -> C:
    """Build a configuration of type ``cls`` from nested plain values.

    Raises:
        ConfigError: A key is unknown (the nearest known one is named), a value has the wrong type, or a
            check of the dataclass itself fails.
    """
    known = set(keys(cls))
    for path in _leaf_paths(values):
        if path not in known:
            raise _unknown_key(path, known)
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        # A member of a union appears in the location as its class name: no part of the path that a user writes.
        path = ".".join(str(part) for part in error.errors()[0]["loc"] if not str(part)[:1].isupper())
        raise _wrong_type(path, error) from error


def keys(cls: Any, prefix: str = "") -> Iterator[str]:
    """Yield every dotted path of a configuration class, nested dataclasses included, in order."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        path = f"{prefix}{field.name}"
        yield path
        for nested in _nested_dataclasses(hints[field.name]):
            yield from keys(nested, f"{path}.")


def override(config: C, assignments: Sequence[str]) -> C:
    """Return a copy of ``config`` with each ``dotted.path=value`` applied, left to right.

    A mapping sets several settings of one group at once: ``data.mask={accelerations: [8], center_fractions: [0.04]}``.

    Raises:
        ConfigError: An assignment has no ``=``, names an unknown key, or gives a value that does not fit.
    """
    values = to_dict(config)
    known = set(keys(type(config)))
    for path, value in _flat(map(_split, assignments), known):
        if path not in known:
            raise _unknown_key(path, known)
        _set(values, path.split("."), value)
    return from_dict(type(config), values)


def parse_arguments(function: Callable[..., Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Parse ``name=value`` assignments into keyword arguments of a function, checked against its annotations.

    Raises:
        ConfigError: As ``override``.
    """
    hints = get_type_hints(function)
    known = set(inspect.signature(function).parameters)
    values: dict[str, Any] = {}
    for path, value in map(_split, assignments):
        if path not in known:
            raise _unknown_key(path, known)
        try:
            values[path] = TypeAdapter(hints[path]).validate_python(value)
        except ValidationError as error:
            raise _wrong_type(path, error) from error
    return values


def fingerprint(values: Mapping[str, Any]) -> str:
    """Hash plain configuration values to 12 hexadecimal digits; the order of keys does not matter."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _split(assignment: str) -> tuple[str, Any]:
    path, separator, text = assignment.partition("=")
    if not separator or not path:
        raise ConfigError(repr(assignment), "is not of the form dotted.path=value", "Write it as, say, optim.lr=1e-3.")
    try:
        return path, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{path}={text}", "is not a YAML value", "Quote it for the shell, or write a plain number, word or [list]."
        ) from error


def _flat(assignments: Iterable[tuple[str, Any]], known: set[str]) -> Iterator[tuple[str, Any]]:
    """Yield assignments with every mapping that is given to a group of settings taken apart."""
    for path, value in assignments:
        if isinstance(value, Mapping) and value and any(key.startswith(f"{path}.") for key in known):
            yield from _flat(((f"{path}.{key}", part) for key, part in value.items()), known)
        else:
            yield path, value


def _set(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        child = values.get(part)
        values[part] = child if isinstance(child, dict) else {}
        values = values[part]
    values[path[-1]] = value


def _nested_dataclasses(annotation: Any) -> Iterator[Any]:
    """Yield the dataclasses an annotation admits: itself, or the members of a union."""
    if dataclasses.is_dataclass(annotation):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        if dataclasses.is_dataclass(argument):
            yield argument


def _leaf_paths(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaf_paths(value, f"{prefix}{key}.")


def _wrong_type(path: str, error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    is_list = first["type"] in ("tuple_type", "list_type")
    remedy = f"Write it as '{path}=[{first['input']}]'." if is_list else f"Give {path} a value of the documented type."
    return ConfigError(f"{path}={first['input']!r}", first["msg"], remedy)


def _unknown_key(path: str, known: set[str]) -> ConfigError:
    near = difflib.get_close_matches(path, known, n=1, cutoff=0.0)
    last = path.rsplit(".", 1)[-1]
    # The field's words are often written out (learning_rate) where the setting is not (lr).
    meant = {last, "".join(word[:1] for word in last.split("_"))}
    same_leaf = sorted(key for key in known if key.rsplit(".", 1)[-1] in meant)
    nearest = same_leaf[0] if same_leaf else near[0]
    return ConfigError(f"unknown key {path!r}", "is not a setting of this recipe", f"Did you mean {nearest!r}?")
