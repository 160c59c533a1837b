"""Reads back what W&B keeps of an offline run: a LevelDB log of protobuf records."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

__all__ = ["read_history_rows", "read_records"]

_BLOCK = 32768
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def read_history_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's history in their order, each by the names of its values."""
    rows = (message for kind, message in read_records(path) if kind == "history")
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row.item} for row in rows]


def read_records(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (kind, message) of every record of a ``run-<id>.wandb`` file."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    parts, position = [], 7
    while position + 7 <= len(content):
        if _BLOCK - position % _BLOCK < 7:
            position += _BLOCK - position % _BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        if kind == 0:
            break
        if kind in (_FULL, _FIRST):
            parts = []
        parts.append(content[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (_FULL, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            name = record.WhichOneof("record_type")
            if name:
                yield name, getattr(record, name)
