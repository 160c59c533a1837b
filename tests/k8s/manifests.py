"""Manifests as Kubernetes' own tools read them: a key twice is an error, and a timestamp or ``1:30`` is a string."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

__all__ = ["DuplicateKeyError", "read_manifests"]

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DuplicateKeyError(ValueError):
    """A mapping has one key twice; the later would silently win."""


class _Loader(_BASE):
    """Reads YAML 1.1 as sigs.k8s.io/yaml does, which has neither timestamps nor numbers of base 60, and has 1e3."""


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node)
        if key in seen:
            raise DuplicateKeyError(f"line {key_node.start_mark.line + 1}: the key {key!r} is there twice")
        seen.add(key)
    loader.flatten_mapping(node)
    return {loader.construct_object(key): loader.construct_object(value, deep=True) for key, value in node.value}


_INT, _FLOAT, _TIME = ("tag:yaml.org,2002:" + name for name in ("int", "float", "timestamp"))
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INT, _FLOAT, _TIME)]
    for first, resolvers in _BASE.yaml_implicit_resolvers.items()
}
_INTEGER = r"^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$"
_REAL = r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
_Loader.add_implicit_resolver(_INT, re.compile(_INTEGER), list("-+0123456789"))
_Loader.add_implicit_resolver(_FLOAT, re.compile(_REAL), list("-+0123456789."))


def _float(loader: Any, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor(_FLOAT, _float)


def read_manifests(text: str) -> list[dict[str, Any]]:
    """Return the documents of a text; those that are empty are left out.

    Raises:
        DuplicateKeyError: A mapping has one key twice.
        yaml.YAMLError: It is no YAML.
    """
    return [document for document in yaml.load_all(text, Loader=_Loader) if document]
