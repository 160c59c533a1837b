"""Typed configuration: frozen dataclasses, changed only by ``dotted.path=value``.

The command line, sweeps and the chart all speak this one syntax. The annotation of a setting says how its value is read, so that it is
what a person sees; pydantic checks it, so ``model.num_cascades=twelve`` fails before anything starts. What could be taken for two things
is refused.

- A text is what was typed, character for character: ``storage=/data/runs #2``, ``name=on``, ``name=12:30``, ``name=[a]``, spaces
  included. Quotes are the shell's: those that are left when it is done belong to the text, and ``name=`` is the empty one.
- A number is in decimal digits: ``8``, ``1_000``, ``.5``, ``1e-3``; a whole one may be written ``1e3`` or ``4.0``. Refused are ``010``
  (octal to some), ``0x10``, ``1:30``, ``nan`` and ``inf``.
- ``true``, ``yes``, ``on`` and ``1`` are true, ``false``, ``no``, ``off`` and ``0`` are not, in upper or lower case.
- ``null`` is None where a setting may be None, also where it may be a text instead.
- A list is ``[a, b]``, several settings of a group are ``{path: value, path: value}``. Inside of brackets a word ends at a comma or a
  bracket, and spaces around it do not count; what is in double quotes (as in JSON) or single ones (doubled inside) is a text of its own.
- Where no type says what a value is, ``true``, ``false``, ``null`` and numbers as JSON writes them are that, and all else is text.

A setting that is one of several dataclasses is a union of them, with ``Field(discriminator="kind")``: the field ``kind``, which
each of them has, says which. Values without a ``kind`` are those of the union's first member.

A setting that was called otherwise once is known by that name too: a dataclass may have ``renamed``, from old names to present paths.
"""

import dataclasses
import difflib
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError

from echotrain.errors import ConfigError
from echotrain.setting_text import Quoted, Typed, alternatives, item_type, read_flow, read_typed, takes_text

__all__ = [
    "fingerprint",
    "from_dict",
    "keys",
    "override",
    "parse_arguments",
    "parse_assignment",
    "renamed_settings",
    "to_dict",
    "with_present_names",
]

C = TypeVar("C")


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as nested plain values that JSON can hold."""
    return cast(dict[str, Any], _adapter(cast(Any, type(config))).dump_python(config, mode="json"))


def from_dict(cls: type[C], values: Mapping[str, Any]) -> C:
    """Build a configuration of type ``cls`` from nested plain values.

    Raises:
        ConfigError: A key is unknown (the nearest known one is named), a value has the wrong type, or a
            check of the dataclass itself fails.
    """
    walk = _Walk(set(keys(cls, values)))
    fitted = walk.group(cls, values, "")
    try:
        return cast(C, _adapter(cast(Any, cls)).validate_python(fitted))
    except ValidationError as error:
        raise _wrong_type(_path_of(error, walk.seen), error) from error


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
    renamed = renamed_settings(type(config))
    typed = [part for path, text in map(parse_assignment, assignments) for part in _flat(path, Typed(text), known)]
    given = [(renamed.get(path, path), value) for path, value in typed]
    for path, value in sorted(given, key=lambda part: part[0] not in kinds):
        if path in kinds:
            _set_kind(values, path.split("."), value)
            known = set(keys(type(config), values))
        if path not in known:
            raise _unknown_key(path, known)
        _set(values, path.split("."), value)
    return from_dict(type(config), values)


def parse_arguments(function: Callable[..., Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Parse ``name=value`` assignments into keyword arguments of a function, read and checked by its annotations.

    Raises:
        ConfigError: As ``override``.
    """
    hints = get_type_hints(function)
    known = set(inspect.signature(function).parameters)
    values: dict[str, Any] = {}
    for path, text in map(parse_assignment, assignments):
        if path not in known:
            raise _unknown_key(path, known)
        fitted = _Walk(known).value(hints[path], Typed(text), path)
        try:
            values[path] = TypeAdapter(hints[path]).validate_python(fitted)
        except ValidationError as error:
            raise _wrong_type(path, error) from error
    return values


def parse_assignment(assignment: str) -> tuple[str, str]:
    """Return the path of one ``dotted.path=value``, and what was typed as its value.

    Raises:
        ConfigError: It has no ``=``.
    """
    path, separator, text = assignment.partition("=")
    if not separator or not path:
        raise ConfigError(repr(assignment), "is not of the form dotted.path=value", "Write it as, say, optim.lr=1e-3.")
    return path, text


def renamed_settings(cls: Any, prefix: str = "") -> dict[str, str]:
    """Return the present path of every setting of a configuration class that was called otherwise, by its old path."""
    found = {f"{prefix}{old}": f"{prefix}{new}" for old, new in getattr(cls, "renamed", {}).items()}
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        for member in _members(hints[field.name]):
            found |= renamed_settings(member, f"{prefix}{field.name}.")
    return found


def with_present_names(cls: Any, flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a configuration class by dotted path, old paths replaced by present ones."""
    renamed = renamed_settings(cls)
    return {renamed.get(path, path): value for path, value in flat.items()}


def fingerprint(values: Mapping[str, Any]) -> str:
    """Hash plain configuration values to 12 hexadecimal digits; the order of keys does not matter."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


class _Walk:
    """One way through nested values: refuses unknown keys, writes out kinds, and reads what was typed.

    Args:
        known: Every path of the whole, for what was meant by an unknown one.
    """

    def __init__(self, known: set[str]) -> None:
        self._known = known
        self.seen = set(known)

    def group(self, cls: Any, values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        """Return the values of one dataclass; ``prefix`` is its path with a dot."""
        hints = get_type_hints(cls)
        values = _renamed(cls, values, prefix)
        own = set(keys(cls, values, prefix))
        self.seen |= own
        for key in values:
            if key not in hints:
                raise _unknown_key(f"{prefix}{key}", self._known if own <= self._known else own)
        return {key: self.value(hints[key], value, f"{prefix}{key}") for key, value in values.items()}

    def value(self, annotation: Any, value: Any, path: str) -> Any:
        """Return one value of a type."""
        if isinstance(value, Typed):
            value = _read(annotation, value, path)
        member = _member(annotation, value, path)
        if isinstance(value, Mapping) and member is not None:
            kind = {"kind": member.kind} if len(_members(annotation)) > 1 else {}
            return self.group(member, {**kind, **value}, f"{path}.")
        if isinstance(value, Mapping):
            return {key: self._item(annotation, part, path, str(key), key) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self._item(annotation, part, path, index, index) for index, part in enumerate(value)]
        return value

    def _item(self, annotation: Any, value: Any, path: str, key: int | str, name: Any) -> Any:
        self.seen.add(f"{path}.{name}")
        return self.value(item_type(annotation, key), value, f"{path}.{name}")


def _renamed(cls: Any, values: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
    """Return the values of one dataclass with old names replaced by present ones."""
    old = {key: path for key, path in getattr(cls, "renamed", {}).items() if key in values}
    if not old:
        return values
    present = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items() if key not in old}
    for key, path in old.items():
        if _has(present, path.split(".")):
            raise ConfigError(
                f"{prefix}{key} and {prefix}{path}", "are one setting, given twice", f"Leave out {prefix}{key}, its old name."
            )
        _set(present, path.split("."), values[key])
    return present


def _has(values: Mapping[str, Any], path: list[str]) -> bool:
    for part in path:
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True


def _read(annotation: Any, text: Typed, path: str) -> Any:
    """Read what was typed for one setting; words inside of brackets are still to be read."""
    if not isinstance(text, Quoted) and text.lstrip().startswith(("[", "{")) and not takes_text(annotation):
        return read_flow(text, path)
    value = read_typed(annotation, text, path)
    if isinstance(value, str) and _members(annotation) and len(_members(annotation)) == len(set(alternatives(annotation)) - {type(None)}):
        raise ConfigError(f"{path}={value}", "is a group of settings", f"Write {path}={{name: value}}, or {path}.name=value.")
    return value


@functools.cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _flat(path: str, value: Any, known: set[str]) -> Iterator[tuple[str, Any]]:
    """Yield an assignment; of a mapping that is given to a group of settings, one for each of them."""
    is_group = any(key.startswith(f"{path}.") for key in known)
    if is_group and isinstance(value, Typed) and value.lstrip().startswith("{"):
        value = read_flow(value, path)
    if not is_group or not isinstance(value, Mapping):
        yield path, value
        return
    if not value:
        raise ConfigError(f"{path}={{}}", "sets nothing", "Leave it out, or name settings of the group.")
    for key, part in value.items():
        yield from _flat(f"{path}.{key}", part, known)


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
    return [member for member in alternatives(annotation) if dataclasses.is_dataclass(member)]


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


def _unions(cls: Any, prefix: str = "") -> Iterator[str]:
    """Yield the path of every setting that is one of several dataclasses."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        path, members = f"{prefix}{field.name}", _members(hints[field.name])
        if len(members) > 1:
            yield path
        for member in members:
            yield from _unions(member, f"{path}.")


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
