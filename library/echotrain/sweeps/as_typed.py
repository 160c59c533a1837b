"""A sweep file's YAML, read as a person sees it: of its words only ``true``, ``false``, ``null`` and plain numbers are no text.

YAML 1.1, which W&B reads the file by, takes ``on`` for true, ``12:30`` for 750 and ``010`` for 8. Here such a word is a text, which the
setting that it is for reads as it would on the command line; that W&B takes it for something else is said in the log.
"""

import logging
from collections.abc import Hashable
from typing import Any, ClassVar

import yaml

from echotrain.errors import ConfigError
from echotrain.setting_text import plain_value, read_number

__all__ = ["load_as_typed"]

logger = logging.getLogger(__name__)

_SCALAR, _LIST, _MAPPING = (yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG, "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")


def load_as_typed(text: str) -> Any:
    """Return the one document of a YAML text.

    Raises:
        YAMLError: It is no YAML, names a key twice, or has tags, which this reading knows nothing of.
    """
    return yaml.load(text, _AsTyped)


class _AsTyped(yaml.SafeLoader):
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.yaml_implicit_resolvers = {}

    def scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        if node.style is not None:
            return text
        if _is_read_otherwise(text):
            logger.warning("line %d: W&B takes %s for something else; write %r in quotes", node.start_mark.line + 1, text, text)
        return plain_value(text) if text else None

    def mapping(self, node: yaml.MappingNode) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str) or key in found:
                said = f"{key!r} is named twice" if isinstance(key, str) else "a key is no word"
                raise yaml.constructor.ConstructorError(None, None, said, key_node.start_mark)
            found[key] = self.construct_object(value_node, deep=True)
        return found

    def tagged(self, node: yaml.Node) -> Any:
        raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag!r} is unknown here", node.start_mark)

    def sequence(self, node: yaml.SequenceNode) -> list[Any]:
        return [self.construct_object(item, deep=True) for item in node.value]


_AsTyped.add_constructor(_SCALAR, _AsTyped.scalar)
_AsTyped.add_constructor(_LIST, _AsTyped.sequence)
_AsTyped.add_constructor(_MAPPING, _AsTyped.mapping)
_AsTyped.add_constructor(None, _AsTyped.tagged)


def _is_read_otherwise(text: str) -> bool:
    """Whether YAML 1.1 makes another thing of a word than a person sees."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return False
    if value is None or isinstance(value, str):
        return text in ("~", "Null", "NULL")
    if isinstance(value, bool):
        return text.lower() not in ("true", "false")
    try:
        return not isinstance(value, int | float) or read_number(text, "") != value
    except ConfigError:
        return True
