"""What Kubernetes asks of names, labels and annotations, which no schema says."""

import re
from collections.abc import Iterator
from typing import Any

__all__ = ["DNS_1035_LABEL", "DNS_LABEL", "DNS_SUBDOMAIN", "is_label_value", "is_qualified_name", "metadata_problems"]

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_1035_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_ANY_PATH_SEGMENT = re.compile(r"(?!\.\.?$)[^/%]+")
_ANNOTATIONS_LIMIT = 256 * 1024  # bytes, keys and values together

# Kinds whose names are stricter, or looser, than a DNS subdomain.
_NAMES = {
    "Namespace": DNS_LABEL,
    "Service": DNS_1035_LABEL,
    "ClusterRole": _ANY_PATH_SEGMENT,
    "ClusterRoleBinding": _ANY_PATH_SEGMENT,
    "Role": _ANY_PATH_SEGMENT,
    "RoleBinding": _ANY_PATH_SEGMENT,
}


def is_qualified_name(key: Any) -> bool:
    """Return whether a label can have this key: a name, and before a slash a DNS subdomain."""
    if not isinstance(key, str):
        return False
    prefix, slash, name = key.rpartition("/")
    return bool(_WORD.fullmatch(name)) and (not slash or bool(DNS_SUBDOMAIN.fullmatch(prefix)))


def is_label_value(value: str) -> bool:
    """Return whether a label can have this value."""
    return not value or bool(_WORD.fullmatch(value))


def metadata_problems(document: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the names, labels and annotations of a document and of every template in it."""
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    pattern = _NAMES.get(document.get("kind", ""), DNS_SUBDOMAIN)
    if isinstance(name, str) and not pattern.fullmatch(name):
        yield f"metadata.name: {name!r} is no valid name of a {document.get('kind')}"
    yield from _walk(document, "")


def _walk(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, f"{path}[{index}]")
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        where = f"{path}.{key}".lstrip(".")
        if key == "metadata" and isinstance(item, dict):
            yield from _labels(item.get("labels"), f"{where}.labels")
            yield from _annotations(item.get("annotations"), f"{where}.annotations")
        elif key in ("matchLabels", "nodeSelector"):
            yield from _labels(item, where)
        yield from _walk(item, where)


def _labels(labels: Any, path: str) -> Iterator[str]:
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if not is_qualified_name(key):
            yield f"{path}: {key!r} is no valid key of a label"
        if isinstance(value, str) and not is_label_value(value):
            yield f"{path}: {value!r} is no valid value of the label {key!r} (63 letters, digits, '-', '_' and '.')"


def _annotations(annotations: Any, path: str) -> Iterator[str]:
    items = annotations.items() if isinstance(annotations, dict) else ()
    for key, _ in items:
        if not isinstance(key, str) or not is_qualified_name(key.lower()):
            yield f"{path}: {key!r} is no valid key of an annotation"
    size = sum(len(str(key).encode()) + len(str(value).encode()) for key, value in items)
    if size > _ANNOTATIONS_LIMIT:
        yield f"{path}: {size} bytes, more than {_ANNOTATIONS_LIMIT}"
