"""What a PromQL expression asks for: enough of the grammar for names and labels, none for values."""

import re
from typing import NamedTuple

__all__ = ["Asked", "asked"]

_STRING = re.compile(r'"(?:\\.|[^"\\])*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_MATCHERS = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_NAME = re.compile(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])")
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}


class Asked(NamedTuple):
    """What an expression asks for.

    Attributes:
        matched: Metric to the labels that its selectors name; every metric of the expression is a key.
        grouped: Labels that results are grouped or joined by.
    """

    matched: dict[str, set[str]]
    grouped: set[str]


def asked(expr: str) -> Asked:
    """Return the metrics and labels of an expression."""
    expr = _STRING.sub('""', expr)
    grouped = {label.strip() for group in _GROUPING.findall(expr) for label in group.split(",")} - {""}
    bare = _RANGE.sub("", _GROUPING.sub(" ", expr))
    matched: dict[str, set[str]] = {}
    for metric, matchers in _MATCHERS.findall(bare):
        matched.setdefault(metric, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
    for metric in set(_NAME.findall(re.sub(r"\{[^}]*\}", "", bare))) - _WORDS:
        matched.setdefault(metric, set())
    return Asked(matched, grouped)
