"""Typed configuration: frozen dataclasses, changed only by ``dotted.path=value``.

The command line, sweeps and the chart all speak this one syntax. Values are YAML scalars or lists;
types come from the annotations and are checked by pydantic, so ``model.num_cascades=twelve`` fails
before anything starts.

A setting that is one of several dataclasses is a union of them, with ``Field(discriminator="kind")``: the field ``kind``, which
each of them has, says which. Values without a ``kind`` are those of the union's first member.
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

__all__ = ["fingerprint", "from_dict", "keys", "override", "parse_arguments", "parse_assignment", "to_dict"]

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
    values = _with_kinds(cls, values)
    known = set(keys(cls, values))
    for path in _leaf_paths(values):
        if path not in known:
            raise _unknown_key(path, known)
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        raise _wrong_type(_path_of(error, known), error) from error


def keys(cls: Any, values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield every dotted path of a configuration class, nested dataclasses included, in order.

    Args:
        cls: The class.
        values: Nested plain values; of a union, the paths are those of the member that these are of.
        prefix: Of every path.

    Raises:
        ConfigError: A ``kind`` is not one of its union's.
    """
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        path = f"{prefix}{field.name}"
        yield path
        value = values.get(field.name)
        member = _member(hints[field.name], value, path)
        if member is not None:
            yield from keys(member, value if isinstance(value, Mapping) else {}, f"{path}.")


def override(config: C, assignments: Sequence[str]) -> C:
    """Return a copy of ``config`` with each ``dotted.path=value`` applied, left to right.

    A mapping sets several settings of one group at once: ``data.mask={accelerations: [8], center_fractions: [0.04]}``.
    What a group of settings is comes first, wherever it stands: ``model.kind=bridge`` begins with the defaults of that kind.

    Raises:
        ConfigError: An assignment has no ``=``, names an unknown key, or gives a value that does not fit.
    """
    values = to_dict(config)
    known = set(keys(type(config), values))
    kinds = {f"{path}.kind" for path in _unions(type(config))}
    for path, value in sorted(_flat(map(parse_assignment, assignments), known), key=lambda assignment: assignment[0] not in kinds):
        if path in kinds:
            _set_kind(values, path.split("."), value)
            known = set(keys(type(config), values))
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
    for path, value in map(parse_assignment, assignments):
        if path not in known:
            raise _unknown_key(path, known)
        try:
            values[path] = TypeAdapter(hints[path]).validate_python(value)
        except ValidationError as error:
            raise _wrong_type(path, error) from error
    return values


def parse_assignment(assignment: str) -> tuple[str, Any]:
    """Return the path and the value of one ``dotted.path=value``.

    Raises:
        ConfigError: It has no ``=``, or its value is no YAML.
    """
    path, separator, text = assignment.partition("=")
    if not separator or not path:
        raise ConfigError(repr(assignment), "is not of the form dotted.path=value", "Write it as, say, optim.lr=1e-3.")
    try:
        return path, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{path}={text}", "is not a YAML value", "Quote it for the shell, or write a plain number, word or [list]."
        ) from error


def fingerprint(values: Mapping[str, Any]) -> str:
    """Hash plain configuration values to 12 hexadecimal digits; the order of keys does not matter."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


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


def _set_kind(values: dict[str, Any], path: list[str], kind: Any) -> None:
    """Drop a group's settings where it becomes of another kind."""
    for part in path[:-2]:
        values = values[part]
    group = values[path[-2]]
    if not isinstance(group, dict) or group["kind"] != kind:
        values[path[-2]] = {"kind": kind}


def _members(annotation: Any) -> list[Any]:
    """Return the dataclasses that an annotation admits: itself, or members of a union."""
    return [member for member in (annotation, *getattr(annotation, "__args__", ())) if dataclasses.is_dataclass(member)]


def _member(annotation: Any, value: Any, path: str) -> Any:
    """Return the dataclass that a value is of, None where it is of none."""
    members = _members(annotation)
    if len(members) < 2 or not isinstance(value, Mapping) or "kind" not in value:
        return members[0] if members else None
    by_kind, kind = {member.kind: member for member in members}, str(value["kind"])
    if kind not in by_kind:
        nearest = difflib.get_close_matches(kind, by_kind, n=1, cutoff=0.0)[0]
        raise ConfigError(f"{path}.kind={value['kind']!r}", f"is none of {', '.join(by_kind)}", f"Did you mean {nearest!r}?")
    return by_kind[kind]


def _with_kinds(cls: Any, values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return values with the ``kind`` of every union written out."""
    hints = get_type_hints(cls)
    named = dict(values)
    for field in dataclasses.fields(cls):
        path, value = f"{prefix}{field.name}", values.get(field.name)
        member = _member(hints[field.name], value, path)
        if member is not None and isinstance(value, Mapping):
            own = {"kind": member.kind} if len(_members(hints[field.name])) > 1 else {}
            named[field.name] = _with_kinds(member, {**own, **value}, f"{path}.")
    return named


def _unions(cls: Any, prefix: str = "") -> Iterator[str]:
    """Yield the path of every setting that is one of several dataclasses."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        path, members = f"{prefix}{field.name}", _members(hints[field.name])
        if len(members) > 1:
            yield path
        for member in members:
            yield from _unions(member, f"{path}.")


def _leaf_paths(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaf_paths(value, f"{prefix}{key}.")


def _path_of(error: ValidationError, known: set[str]) -> str:
    """Return the path of the setting that is wrong, as a user writes it; pydantic also says which member of a union it tried."""
    path = ""
    for part in error.errors()[0]["loc"]:
        longer = f"{path}.{part}".removeprefix(".")
        if isinstance(part, int) or longer in known:
            path = longer
    return path


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
