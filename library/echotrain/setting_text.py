"""What a person types as the value of a setting, read by the type of the setting, as the person sees it.

YAML's own rules are not used: they read ``on`` as true, ``12:30`` as 750, ``010`` as 8, ``1e-3`` as text, and end a path at `` #``.
"""

import difflib
import json
import math
import re
import types
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import is_dataclass
from decimal import Decimal
from typing import Any, Literal, NewType, Union, get_args, get_origin

from echotrain.errors import ConfigError

__all__ = [
    "Quoted",
    "Typed",
    "alternatives",
    "as_typed",
    "item_type",
    "plain_value",
    "read_flow",
    "read_number",
    "read_typed",
    "takes_text",
]

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_DIGITS = r"\d+(?:_\d+)*"
_NUMBER = re.compile(rf"[+-]?(?P<whole>{_DIGITS})?(?:\.(?P<part>{_DIGITS})?)?(?:[eE][+-]?\d{{1,9}})?", re.ASCII)
# A setting is at most so large, and a list of lists at most so deep.
_BITS = 63
_DEEPEST = 32
_SIMPLE = (bool, int, float)


class Typed(str):
    """What somebody typed outside of quotes: the type of the setting says what it is."""

    __slots__ = ()


class Quoted(Typed):
    """What somebody typed in quotes inside of brackets."""

    __slots__ = ()


def as_typed(value: Any) -> str:
    """Return a plain value as somebody would type it for a setting: a text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the types that an annotation admits, those of a union one by one."""
    while isinstance(annotation, NewType):
        annotation = annotation.__supertype__
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for each in get_args(annotation) for member in alternatives(each))
    return (annotation,)


def item_type(annotation: Any, key: int | str) -> Any:
    """Return the annotation of one item of a list, a tuple or a mapping; ``Any`` where it has none."""
    wanted = Mapping if isinstance(key, str) else (Sequence, AbstractSet)
    for container in alternatives(annotation):
        origin, inner = get_origin(container), get_args(container)
        if isinstance(origin, type) and issubclass(origin, wanted) and inner:
            if isinstance(key, str):
                return inner[1]
            if origin is not tuple or inner[-1] is Ellipsis:
                return inner[0]
            return inner[key] if key < len(inner) else Any
    return Any


def takes_text(annotation: Any) -> bool:
    """Whether what is typed for such a setting is its value, character for character."""
    return not any(_is_container(each) for each in alternatives(annotation)) and any(_is_text(each) for each in alternatives(annotation))


def read_typed(annotation: Any, text: Typed, path: str) -> Any:
    """Read one value that is no list and no mapping.

    Args:
        annotation: The setting's type.
        text: What was typed.
        path: Of the setting, for messages.

    Raises:
        ConfigError: It is no value of that type, or could be taken for two.
    """
    choices = alternatives(annotation)
    texts = [choice for choice in choices if _is_text(choice)]
    word = text if texts else text.strip()
    if type(None) in choices and not isinstance(text, Quoted) and (word == "null" or (word == "None" and not texts)):
        return None
    if Any in choices:
        return str(text) if isinstance(text, Quoted) else plain_value(text)
    refused: list[ConfigError] = []
    for choice in choices:
        try:
            if get_origin(choice) is Literal:
                return _read_literal(choice, text, path)
            if choice in _SIMPLE:
                return _READERS[choice](text.strip(), path)
        except ConfigError as error:
            refused.append(error)
    if refused and all(get_origin(each) is Literal for each in texts):
        raise refused[0]
    return str(text)


def read_number(text: str, path: str) -> int | float:
    """Read a number in decimal digits, ``1_000``, ``.5`` and ``1e-3`` included; whole where it has neither point nor exponent.

    Raises:
        ConfigError: It is none, is not finite, is beyond what is told apart, or has a leading zero, which some read as octal.
    """
    found = _NUMBER.fullmatch(text)
    if found is None or not (found["whole"] or found["part"]):
        limit = "is not a finite number" if text.strip("+-.").lower() in ("nan", "inf", "infinity") else "is not a number in decimal digits"
        raise ConfigError(_shown(path, text), limit, f"Write it as, say, {path}=8 or {path}=1e-3.")
    if found["whole"] and len(found["whole"]) > 1 and found["whole"][0] == "0":
        without = re.sub(r"(?<!\d)0[0_]*(?=\d)", "", text, count=1)
        raise ConfigError(f"{path}={text}", "has a leading zero, which some read as octal", f"Write it as {path}={without}.")
    value = float(text)
    if not math.isfinite(value) or (value == 0 and re.search("[1-9]", re.split("[eE]", text)[0])):
        raise ConfigError(f"{path}={text}", "is beyond the numbers that can be told apart", "Give one between 1e-300 and 1e300.")
    is_whole = found["part"] is None and "." not in text and "e" not in text.lower()
    return int(text) if is_whole and abs(value) <= 2.0**_BITS else value


def plain_value(text: str) -> Any:
    """Return what is meant where no type says it: ``true``, ``false``, ``null``, or a number, if it would be written just so; else text."""
    try:
        value = json.loads(text, parse_constant=lambda _: "")
        return value if not isinstance(value, str | list | dict) and json.dumps(value) == text else str(text)
    except ValueError:
        return str(text)


def read_flow(text: str, path: str) -> Any:
    """Read ``[a, "b, c", [d]]`` or ``{a: b, c: [d]}`` into lists and mappings of ``Typed`` words and ``Quoted`` texts.

    Raises:
        ConfigError: It is not closed, or has an item that wants quotes.
    """
    try:
        value, end = _value(text, _skip(text, 0), 0)
        if text[end:].strip():
            raise ValueError(f"{text[end:].strip()!r} comes after its end")
    except (ValueError, IndexError) as error:
        said = str(error) if type(error) is ValueError else "it has no end"
        remedy = 'Write [a, b] or {a: b}, and an item with a comma, a bracket or a quote in it as "item".'
        raise ConfigError(f"{path}={text}", f"is not a YAML list or mapping: {said}", remedy) from error
    return value


def _is_container(choice: Any) -> bool:
    origin = get_origin(choice) or choice
    is_text = isinstance(origin, type) and issubclass(origin, str | bytes)
    return is_dataclass(choice) or (isinstance(origin, type) and not is_text and issubclass(origin, Mapping | Sequence | AbstractSet))


def _is_text(choice: Any) -> bool:
    return choice is not Any and choice is not type(None) and choice not in _SIMPLE and not _is_container(choice)


def _read_literal(choice: Any, text: str, path: str) -> Any:
    for value in get_args(choice):
        if isinstance(value, str):
            if value == text:
                return value
        elif type(value) in _SIMPLE:
            try:
                if _READERS[type(value)](text.strip(), path) == value:
                    return value
            except ConfigError:
                continue
    words = [str(value) for value in get_args(choice)]
    nearest = difflib.get_close_matches(text, words, n=1, cutoff=0.0)[0]
    raise ConfigError(_shown(path, text), f"must be one of {', '.join(words)}", f"Did you mean {nearest}?")


def _read_bool(text: str, path: str) -> bool:
    if text.lower() not in _WORDS:
        raise ConfigError(_shown(path, text), "must be true or false", f"Write {path}=true or {path}=false.")
    return _WORDS[text.lower()]


def _read_int(text: str, path: str) -> int:
    value = read_number(text, path)
    exact = Decimal(text) if 0 < abs(value) <= 2.0**_BITS else Decimal(value)
    if exact != exact.to_integral_value() or abs(exact) >= 2**_BITS:
        limit = "must be a whole number" if abs(exact) < 2**_BITS else f"must be below 2^{_BITS}"
        raise ConfigError(f"{path}={text}", limit, f"Write it as, say, {path}=8.")
    return int(exact)


def _read_float(text: str, path: str) -> float:
    return float(read_number(text, path))


_READERS: dict[Any, Any] = {bool: _read_bool, int: _read_int, float: _read_float}


def _shown(path: str, text: str) -> str:
    return f"{path}={text}" if _NUMBER.fullmatch(text) and text else f"{path}={text!r}"


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    """Return the value that begins at a position, and the position after it."""
    if depth > _DEEPEST:
        raise ValueError(f"it is deeper than {_DEEPEST} brackets")
    if text[at] == "[":
        return _list(text, at + 1, depth)
    if text[at] == "{":
        return _mapping(text, at + 1, depth)
    return _quoted(text, at) if text[at] in "\"'" else _word(text, at)


def _list(text: str, at: int, depth: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    while text[at := _skip(text, at)] != "]":
        value, at = _value(text, at, depth + 1)
        items.append(value)
        at = _after(text, at, "]")
    return items, at + 1


def _mapping(text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
    items: dict[str, Any] = {}
    while text[at := _skip(text, at)] != "}":
        key, at = _key(text, at)
        if key in items:
            raise ValueError(f"{key!r} is named twice")
        items[key], at = _value(text, _skip(text, at), depth + 1)
        at = _after(text, at, "}")
    return items, at + 1


def _after(text: str, at: int, closing: str) -> int:
    """Return where the next item, or the closing bracket, begins."""
    at = _skip(text, at)
    if text[at] == ",":
        return at + 1
    if text[at] != closing:
        raise ValueError(f"{text[at:][:20]!r} comes where a comma or {closing} is due")
    return at


def _key(text: str, at: int) -> tuple[str, int]:
    if text[at] in "\"'":
        key, at = _quoted(text, at)
        at = _skip(text, at)
        if text[at] != ":":
            raise ValueError(f"the key {key!r} has no value")
        return str(key), at + 1
    found = re.compile(r"([^,\[\]{}]*?)\s*:(?=[\s\[{\"'])").match(text, at)
    if found is None or not found[1]:
        raise ValueError(f"{re.split('[,}]', text[at:])[0]!r} is not 'key: value'")
    return found[1], found.end()


def _quoted(text: str, at: int) -> tuple[Quoted, int]:
    if text[at] == '"':
        value, end = json.JSONDecoder(strict=False).raw_decode(text, at)
        return Quoted(value), end
    found = re.compile(r"'((?:[^']|'')*)'").match(text, at)
    if found is None:
        raise ValueError("a quote has no end")
    return Quoted(found[1].replace("''", "'")), found.end()


def _word(text: str, at: int) -> tuple[Typed, int]:
    """Return what stands outside of quotes up to a comma or a closing bracket."""
    end = re.compile(r"[^,\[\]{}]*").match(text, at).end()  # type: ignore[union-attr]
    word = text[at:end].strip()
    if not word:
        raise ValueError("it has an empty item")
    if text[end] in "[{":
        raise ValueError(f"{word!r} is followed by a bracket")
    return Typed(word), end
