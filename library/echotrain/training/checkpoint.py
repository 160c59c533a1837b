"""Checkpoints in any store: plain state_dicts and JSON, written whole, found through a marker.

A run's folder::

    config.json                          the resolved experiment
    metrics.jsonl                        one line per logged step, one per epoch
    checkpoints/step-000000500/
        weights.pt                       what evaluation loads: the averaged weights, or the weights where none are averaged
        train.pt                         optimiser state, and the raw weights where weights.pt holds averages
        meta.json                        position, science, catalog, scores, size and checksum of both files
    LATEST, BEST                         the names of two checkpoints

``LATEST`` is written after everything that it names. It alone decides what a restart resumes: Ray may not yet know of a
checkpoint that is already stored.
"""

import hashlib
import io
import json
import logging
import pickle
import zipfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from echotrain.errors import CheckpointError, ObjectMissingError
from echotrain.storage.bounded_read import read_at_most, read_json
from echotrain.storage.store import Store

__all__ = ["CheckpointMeta", "CheckpointWriter", "find_checkpoint", "load_file", "load_weights", "read_meta"]

logger = logging.getLogger(__name__)

Files = Mapping[str, Mapping[str, Any]]
FORMAT = 2
_LARGEST_META, _LARGEST_MARKER = 16 << 20, 4 << 10


@dataclass(frozen=True, kw_only=True)
class CheckpointMeta:
    """What ``meta.json`` says.

    Attributes:
        name: ``step-…``, the folder below ``checkpoints/``.
        position: Plan position and running sums (``Position.to_dict``).
        science: The settings that decide the numbers, flat.
        config: The whole resolved experiment.
        catalog: Identity of the catalog version that the plan was made from.
        scores: Validation metrics of the latest epoch, empty before the first.
        files: File name to its size and SHA-256.
    """

    name: str
    position: dict[str, Any]
    science: dict[str, Any]
    config: dict[str, Any]
    catalog: dict[str, Any]
    scores: dict[str, float] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    format: int = FORMAT


class CheckpointWriter:
    """Writes checkpoints from a background thread, one at a time, in order.

    Training waits only while the state is copied into memory; a second checkpoint waits for the first's upload.

    Args:
        store: The run's folder.
        keep: Latest checkpoints that stay; the best stays too.
    """

    def __init__(self, store: Store, *, keep: int) -> None:
        self._store = store
        self._keep = keep
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, meta: CheckpointMeta, files: Files, *, is_best: bool, before_marker: Mapping[str, bytes]) -> None:
        """Store a checkpoint, then ``before_marker``'s objects, then the markers.

        Returns once the state is copied; a failure is raised by the next ``save`` or ``wait``.
        """
        self.wait()
        blobs = {f"{name}.pt": _serialize(state) for name, state in files.items()}
        self._pending = self._thread.submit(self._write, meta, blobs, is_best, dict(before_marker))

    def wait(self) -> None:
        """Wait for the upload in progress; raises what it raised."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Wait for the upload in progress and stop the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown(wait=True)

    def _write(self, meta: CheckpointMeta, blobs: Mapping[str, bytes], is_best: bool, before_marker: Mapping[str, bytes]) -> None:
        folder = f"checkpoints/{meta.name}"
        checks = {name: {"size": len(blob), "sha256": hashlib.sha256(blob).hexdigest()} for name, blob in blobs.items()}
        for name, blob in blobs.items():
            self._store.write(f"{folder}/{name}", blob)
        self._store.write(f"{folder}/meta.json", json.dumps({**vars(meta), "files": checks}, indent=1).encode())
        for key, data in before_marker.items():
            self._store.write(key, data)
        if is_best:
            self._store.write("BEST", meta.name.encode())
        self._store.write("LATEST", meta.name.encode())
        self._prune(meta.name)

    def _prune(self, latest: str) -> None:
        """Delete all but the kept; folders newer than ``latest`` are leftovers of a run that was cut off and go as well."""
        objects = [info.key for info in self._store.list("checkpoints/")]
        names = sorted({key.split("/")[1] for key in objects})
        kept = {name for name in names if name <= latest}
        kept = set(sorted(kept)[-self._keep :]) | {_read_marker(self._store, "BEST") or latest}
        for key in objects:
            if key.split("/")[1] not in kept:
                self._store.delete(key)


def find_checkpoint(store: Store, which: Literal["latest", "best"] | str = "latest") -> CheckpointMeta | None:
    """Return the checkpoint of a run folder that a marker, or a name (``step-…``), points to; None where there is no marker.

    Raises:
        CheckpointError: The marker names a checkpoint that is missing or damaged.
    """
    name = _read_marker(store, which.upper()) if which in {"latest", "best"} else which
    return read_meta(store, name) if name else None


def read_meta(store: Store, name: str) -> CheckpointMeta:
    """Return ``meta.json`` of one checkpoint.

    Raises:
        CheckpointError: It is missing, not JSON, or of a format that this version does not read.
    """
    where = f"{store.uri}/checkpoints/{name}"
    try:
        values = read_json(store, f"checkpoints/{name}/meta.json", _LARGEST_META)
        meta = CheckpointMeta(**values)
    except ObjectMissingError as error:
        raise CheckpointError(where, "does not exist, although it was named", "Name one that is listed below checkpoints/.") from error
    except (ValueError, TypeError) as error:
        raise CheckpointError(where, f"has a damaged meta.json ({error})", "Remove it, or resume from another checkpoint.") from error
    if meta.format != FORMAT:
        raise CheckpointError(where, f"has format {meta.format}, this version reads {FORMAT}", "Use the version that wrote it.")
    return meta


def load_file(store: Store, meta: CheckpointMeta, file: str) -> dict[str, Any]:
    """Return the content of ``weights`` or ``train`` of a checkpoint, on the CPU.

    Raises:
        CheckpointError: The file is missing, truncated, altered, or holds more than plain tensors and values.
    """
    name = f"{file}.pt"
    where = f"{store.uri}/checkpoints/{meta.name}/{name}"
    remedy = "Remove this checkpoint and the markers that name it, or resume from another."
    try:
        expected = {"size": int(meta.files[name]["size"]), "sha256": meta.files[name]["sha256"]}
        blob = read_at_most(store, f"checkpoints/{meta.name}/{name}", expected["size"])
    except ObjectMissingError as error:
        raise CheckpointError(where, "is missing", remedy) from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(where, f"has no size or checksum in meta.json ({error!r})", remedy) from error
    if len(blob) != expected["size"] or hashlib.sha256(blob).hexdigest() != expected["sha256"]:
        raise CheckpointError(where, f"is damaged: {len(blob)} bytes that are not the {expected['size']} that were written", remedy)
    try:
        _check_stored(blob)
        state: dict[str, Any] = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(where, "holds more than tensors and plain values, such as code to be run", remedy) from error
    except (ValueError, RuntimeError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise CheckpointError(where, f"does not hold tensors and plain values ({said})", remedy) from error
    return state


def load_weights(store: Store, meta: CheckpointMeta) -> dict[str, Tensor]:
    """Return the weights that evaluation uses."""
    weights: dict[str, Tensor] = load_file(store, meta, "weights")
    return weights


def describe_mismatch(model_state: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str | None:
    """Say how weights differ from a model's own in names and shapes; None where they fit."""
    missing = sorted(set(model_state) - set(weights))
    foreign = sorted(set(weights) - set(model_state))
    reshaped = [name for name in sorted(set(weights) & set(model_state)) if weights[name].shape != model_state[name].shape]
    parts = [f"lacks {len(missing)} of the model's tensors (first {missing[0]})"] if missing else []
    parts += [f"has {len(foreign)} that the model does not know (first {foreign[0]})"] if foreign else []
    if reshaped:
        name = reshaped[0]
        shapes = f"{tuple(weights[name].shape)}, the model has {tuple(model_state[name].shape)}"
        parts.append(f"disagrees in {len(reshaped)} shapes (first {name}: {shapes})")
    return "; ".join(parts) or None


def _serialize(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _check_stored(blob: bytes) -> None:
    """Refuse an archive that unpacks to more than it has: PyTorch unpacks what its own writer never packs."""
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(entry.file_size for entry in entries) > len(blob):
        raise ValueError("its entries are packed")


def _read_marker(store: Store, marker: str) -> str | None:
    try:
        return read_at_most(store, marker, _LARGEST_MARKER).decode().strip()
    except ObjectMissingError:
        return None
