"""A strict validator of manifests that needs no cluster: what it passes, an API server takes, and no field is silently dropped.

Kinds of Kubernetes are held against the schemas that the ``kubernetes-validate`` package carries, custom resources against their CRDs, as
the server does it: nulls are pruned, defaults filled in, and then everything that is unknown, missing, twice or of the wrong type is told.
A cluster test compares it with a real server on mutated manifests (``tests/charts/test_validator.py``).

Beyond the server it refuses what a server only warns of or finds out later: deprecated versions, labels and annotations of templates that
no pod could carry, an environment variable given twice, a number that does not fit its format.
"""

import base64
import binascii
import functools
import importlib.resources
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

from tests.k8s.cel_rules import broken_cel_rules
from tests.k8s.cluster import read_documents
from tests.k8s.manifests import DuplicateKeyError, read_manifests
from tests.k8s.names import metadata_problems

__all__ = ["NEWEST_KUBERNETES", "Validator", "embedded_rayjob"]

NEWEST_KUBERNETES = "1.37"

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_UNSTABLE = re.compile(r"(^|/)v\d+(alpha|beta)\d+$")
# Deprecated without a version that says so.
_DEPRECATED = {("v1", "Endpoints"): "discovery.k8s.io/v1 EndpointSlice", ("v1", "ComponentStatus"): "the servers' own health endpoints"}
_INTEGERS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_TEMPLATE_SUFFIX, _TEMPLATE_KEY = "-rayjob", "rayjob.yaml"


class Validator:
    """Holds documents against the schemas of one set of CRDs and one release of Kubernetes."""

    def __init__(self, crds: Iterable[Path] = (), kubernetes: str = NEWEST_KUBERNETES) -> None:
        self._core = _core_definitions(kubernetes)
        self._core_kinds = _core_kinds(kubernetes)
        self._crds: dict[tuple[str, str], dict[str, Any]] = {}
        for path in crds:
            for crd in read_documents(path):
                for version in crd["spec"]["versions"]:
                    if version["served"]:
                        self._crds[f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]] = version
        self._compiled: dict[tuple[str, str], Any] = {}

    def problems(self, document: dict[str, Any]) -> list[str]:
        """Return what is wrong with a document, each with its path; nothing where it is right.

        The RayJob that the chart publishes in a ConfigMap is held against its own schema too.
        """
        found = list(self._problems(document))
        metadata = document.get("metadata")
        if not isinstance(metadata, dict) or not (metadata.get("name") or metadata.get("generateName")):
            found.append("metadata.name: is missing")
        try:
            template = embedded_rayjob(document)
        except (DuplicateKeyError, yaml.YAMLError) as error:
            return [*found, f"data[{_TEMPLATE_KEY!r}]: {error}"]
        if template is not None:
            found += [f"data[{_TEMPLATE_KEY!r}]: {problem}" for problem in self._problems(template)]
        return found

    def _problems(self, document: dict[str, Any]) -> Iterator[str]:
        version, kind = key = (document.get("apiVersion", ""), document.get("kind", ""))
        if key in self._crds:
            entry = self._crds[key]
            if entry.get("deprecated"):
                yield f"apiVersion: {version} {kind} is deprecated"
            schema = entry["schema"]["openAPIV3Schema"]
            document = _settle(document, schema)
            yield from _list_and_rule_problems(document, schema, "")
        elif key in self._core_kinds:
            if key in _DEPRECATED:
                yield f"apiVersion: {version} {kind} is deprecated: use {_DEPRECATED[key]}"
            elif _UNSTABLE.search(version):
                yield f"apiVersion: {version} {kind} is not stable"
            yield from _list_and_rule_problems(document, {"$ref": self._core_kinds[key]}, "", self._core)
        else:
            yield f"apiVersion: there is no schema for {version or 'no apiVersion'} {kind or 'no kind'}"
            return
        yield from metadata_problems(document)
        for error in self._validator(key).iter_errors(document):
            yield f"{_path(error.instance_path)}: {_shortened(error.message)}"

    def _validator(self, key: tuple[str, str]) -> Any:
        if key not in self._compiled:
            schema: dict[str, Any] = {"$defs": self._core}
            if key in self._crds:
                root = _closed(self._crds[key]["schema"]["openAPIV3Schema"])
                root["properties"].update(_OBJECT)
                schema |= {**root, "required": sorted({"apiVersion", "kind", *root.get("required", [])})}
            else:
                schema |= {"$ref": f"#/$defs/{self._core_kinds[key]}"}
            formats = {"byte": _is_base64}
            self._compiled[key] = jsonschema_rs.Draft202012Validator(schema, formats=formats, validate_formats=True)
        return self._compiled[key]


_OBJECT: dict[str, Any] = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"$ref": f"#/$defs/{_META}"}}


def embedded_rayjob(document: dict[str, Any]) -> dict[str, Any] | None:
    """Return the RayJob template that a ConfigMap of the chart publishes, None of any other document.

    Raises:
        DuplicateKeyError: It has one key twice.
        yaml.YAMLError: It is not one YAML mapping.
    """
    name = str((document.get("metadata") or {}).get("name", ""))
    text = (document.get("data") or {}).get(_TEMPLATE_KEY) if document.get("kind") == "ConfigMap" else None
    if text is None or not name.endswith(_TEMPLATE_SUFFIX):
        return None
    documents = read_manifests(text)
    if len(documents) != 1:
        raise yaml.YAMLError(f"has {len(documents)} documents, not one")
    if not isinstance(documents[0], dict):
        raise yaml.YAMLError("is no mapping")
    return documents[0]


@functools.cache
def _core_definitions(kubernetes: str) -> dict[str, Any]:
    """Return the schemas of Kubernetes' own types, closed."""
    folder = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{kubernetes}.0-local-strict"
    definitions = json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))["$defs"]
    return {name: _with_ranges(schema) for name, schema in definitions.items()}


@functools.cache
def _core_kinds(kubernetes: str) -> dict[tuple[str, str], str]:
    """Return the names of the schemas of what can be created, by (apiVersion, kind)."""
    kinds = {}
    for name, schema in _core_definitions(kubernetes).items():
        for gvk in schema.get("x-kubernetes-group-version-kind", ()):
            if "metadata" in schema.get("properties", {}):
                kinds[f"{gvk['group']}/{gvk['version']}".lstrip("/"), gvk["kind"]] = name
    return kinds


def _with_ranges(schema: Any) -> Any:
    """Return a schema whose formats of integers are ranges, at every depth."""
    if isinstance(schema, list):
        return [_with_ranges(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return _with_range({key: _with_ranges(value) for key, value in schema.items()})


def _with_range(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose format of an integer is a range, which JSON Schema knows."""
    name = schema.get("format")
    if not isinstance(name, str) or name not in _INTEGERS:  # A field may be called "format".
        return schema
    low, high = _INTEGERS[name]
    return {"minimum": low, "maximum": high, **schema}


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a CRD's schema as a JSON Schema that lets no unknown field pass."""
    changed: dict[str, Any] = {key: schema[key] for key in _PLAIN_KEYWORDS if key in schema}
    changed |= {key: [_closed(item) for item in schema[key]] for key in ("allOf", "anyOf", "oneOf") if key in schema}
    if "not" in schema:
        changed["not"] = _closed(schema["not"])
    if schema.get("x-kubernetes-int-or-string"):
        changed.pop("anyOf", None)
        changed["type"] = ["integer", "string"]
    if "items" in schema:
        changed["items"] = _closed(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        changed["additionalProperties"] = _closed(schema["additionalProperties"])
    elif _is_closed(schema):
        changed["additionalProperties"] = False
    if "properties" in schema or changed.get("additionalProperties") is False:
        changed["properties"] = {name: _closed(item) for name, item in schema.get("properties", {}).items()}
    if schema.get("x-kubernetes-embedded-resource"):
        changed["properties"] = {**changed.get("properties", {}), **_OBJECT}
        changed["required"] = sorted({"apiVersion", "kind", *schema.get("required", [])})
    if schema.get("nullable"):
        changed["type"] = [*([schema["type"]] if isinstance(schema.get("type"), str) else changed.get("type", [])), "null"]
    return _with_range(changed)


_PLAIN_KEYWORDS = (
    *("type", "format", "enum", "required", "pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum"),
    *("exclusiveMaximum", "multipleOf", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
)


def _is_closed(schema: dict[str, Any]) -> bool:
    """Return whether the server drops the fields of an object that the schema does not name."""
    open_by = ("additionalProperties", "x-kubernetes-preserve-unknown-fields")
    return schema.get("type") == "object" and not any(schema.get(key) for key in open_by)


def _settle(value: Any, schema: dict[str, Any]) -> Any:
    """Return a value as the server sees it: nulls pruned where they are not allowed, then defaults filled in."""
    if isinstance(value, list):
        items = schema.get("items", {})
        return [_settle(item, items) for item in value]
    if not isinstance(value, dict):
        return value
    properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
    settled = {}
    for key, item in value.items():
        known = properties.get(key, rest if isinstance(rest, dict) else None)
        if known is None:
            settled[key] = item
        elif item is not None or known.get("nullable"):
            settled[key] = _settle(item, known)
    for key, known in properties.items():
        if key not in settled and "default" in known:
            settled[key] = _settle(known["default"], known)
    return settled


def _list_and_rule_problems(value: Any, schema: dict[str, Any], path: str, definitions: dict[str, Any] | None = None) -> Iterator[str]:
    """Yield the entries that lists have twice, and the broken CEL rules."""
    if "$ref" in schema:
        schema = (definitions or {})[schema["$ref"].rpartition("/")[2]]
    for problem in broken_cel_rules(schema, value) if value is not None else ():
        yield f"{path or 'the document'}: {problem}"
    if isinstance(value, list):
        yield from _repeated(value, schema, path)
        for index, item in enumerate(value):
            yield from _list_and_rule_problems(item, schema.get("items", {}), f"{path}[{index}]", definitions)
    elif isinstance(value, dict):
        rest = schema.get("additionalProperties")
        for key, item in value.items():
            known = schema.get("properties", {}).get(key, rest if isinstance(rest, dict) else None)
            if known is not None:
                yield from _list_and_rule_problems(item, known, f"{path}.{key}".lstrip("."), definitions)


def _repeated(items: list[Any], schema: dict[str, Any], path: str) -> Iterator[str]:
    """Yield what is there twice in a list that is a set, or a map by some keys."""
    keys = schema.get("x-kubernetes-list-map-keys", ())
    if schema.get("x-kubernetes-list-type") not in ("set", "map"):
        return
    seen = set()
    for index, item in enumerate(items):
        if keys and not isinstance(item, dict):
            continue
        told = {key: item.get(key, _DEFAULT_KEYS.get(key)) for key in keys} if keys else item
        identity = json.dumps(told, sort_keys=True)
        if identity in seen:
            yield f"{path}[{index}]: {identity} is there twice"
        seen.add(identity)


_DEFAULT_KEYS = {"protocol": "TCP"}  # Kubernetes' own schemas do not tell their defaults.


def _path(parts: Iterable[str | int]) -> str:
    text = ""
    for part in parts:
        plain = isinstance(part, str) and re.fullmatch(r"[\w-]+", part)
        text += f".{part}" if plain else f"[{part!r}]"
    return text.lstrip(".") or "the document"


def _shortened(message: str) -> str:
    return message if len(message) <= 300 else f"{message[:140]} … {message[-140:]}"


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True
