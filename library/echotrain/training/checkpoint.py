"""Checkpoints in any store: plain state_dicts and JSON, written whole, found through a marker.

A run's folder::

    config.json                          the resolved experiment
    metrics.jsonl                        one line per logged step, one per epoch
    checkpoints/step-000000500/
        weights-<token>.pt               what evaluation loads: the averaged weights, or the weights where none are averaged
        train-<token>.pt                 optimiser state, and the raw weights where the others are averages
        meta.json                        position, science, catalog, scores; name, size and checksum of both files
    LATEST, BEST                         the names of two checkpoints

``LATEST`` is written after everything that it names. It alone decides what a restart resumes: Ray may not yet know of a
checkpoint that is already stored.

A large file goes up in parts, and whoever lost the folder meanwhile may still finish one. So every writer draws a token for the names of
its files, and what ``meta.json`` vouches for is never replaced. Checkpoints of format 2 have none.
"""

import contextlib
import json
import logging
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from echotrain.errors import CheckpointError, ObjectMissingError
from echotrain.storage.bounded_read import read_at_most, read_json
from echotrain.storage.folder import as_folder
from echotrain.storage.object_size import check_size
from echotrain.storage.open import local_path
from echotrain.storage.store import Store
from echotrain.training.state_files import file_checks, map_state, num_bytes, require_space, write_state

__all__ = ["CheckpointMeta", "CheckpointWriter", "find_checkpoint", "load_file", "load_weights", "read_meta"]

logger = logging.getLogger(__name__)

Files = Mapping[str, Mapping[str, Any]]
FORMAT = 3
_READABLE = (2, FORMAT)
# As ``LocalStore`` calls what no listing shows.
_SCRATCH = ".tmp-checkpoint-"
# As ``Position.name`` has it.
_OWN = re.compile(r"checkpoints/step-\d{9}-\d{5}/")
_OBJECT = re.compile(r"(\w+)-[0-9a-f]{16}\.pt")
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
        files: Name (``weights.pt``) to the file's own name, size and SHA-256.
    """

    name: str
    position: dict[str, Any]
    science: dict[str, Any]
    config: dict[str, Any]
    catalog: dict[str, Any]
    scores: dict[str, float] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    format: int = FORMAT

    def key(self, file: str) -> str:
        """Return where ``weights`` or ``train`` lies in the run's folder.

        Raises:
            KeyError, TypeError, ValueError: The description does not say.
        """
        name = self.files[f"{file}.pt"].get("object", f"{file}.pt")
        matched = _OBJECT.fullmatch(name)
        if name != f"{file}.pt" and (matched is None or matched[1] != file):
            raise ValueError(f"{name!r} is no name of a file of {file}")
        return f"checkpoints/{self.name}/{name}"


class CheckpointWriter:
    """Writes checkpoints from a background thread, one at a time, in order.

    Training waits only while the state is copied to a disk of this machine: that of the run's folder, else the one for temporary files. A
    second checkpoint waits for the first's upload.

    Args:
        store: The run's folder.
        keep: Latest checkpoints that stay; the best stays too.
    """

    def __init__(self, store: Store, *, keep: int) -> None:
        self._store = store
        self._keep = keep
        self._token = uuid.uuid4().hex[:16]
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._place = local_path(store.uri)
        if self._place is not None:
            # What a run that was killed left on the run's own disk; it may be many GB.
            for left in self._place.glob(f"{_SCRATCH}*"):
                shutil.rmtree(left, ignore_errors=True)
        self._pending: Future[None] | None = None

    def save(self, meta: CheckpointMeta, files: Files, *, is_best: bool, before_marker: Sequence[Callable[[], None]] = ()) -> None:
        """Store a checkpoint, then do what is to come before the markers (from another thread), then write the markers.

        Returns once the state is copied; a failure is raised by the next ``save`` or ``wait``.
        """
        self.wait()
        if self._place is not None:
            self._place.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            # On the run's own disk, storing a file is giving it its name.
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self._place)))
            require_space(scratch, sum(map(num_bytes, files.values())))
            paths = {f"{name}.pt": scratch / f"{name}-{self._token}.pt" for name in files}
            for path, state in zip(paths.values(), files.values(), strict=True):
                write_state(state, path)
            kept = stack.pop_all()
        self._pending = self._thread.submit(self._write, meta, paths, kept, is_best, before_marker)

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

    def _write(
        self,
        meta: CheckpointMeta,
        paths: Mapping[str, Path],
        scratch: contextlib.ExitStack,
        is_best: bool,
        before_marker: Sequence[Callable[[], None]],
    ) -> None:
        folder = f"checkpoints/{meta.name}"
        with scratch:
            checks = {name: {"object": path.name, **file_checks(path)} for name, path in paths.items()}
            for path in paths.values():
                self._store.upload(path, f"{folder}/{path.name}", consume=True)
        self._store.write(f"{folder}/meta.json", json.dumps({**vars(meta), "files": checks}, indent=1).encode())
        for act in before_marker:
            act()
        if is_best:
            self._store.write("BEST", meta.name.encode())
        self._store.write("LATEST", meta.name.encode())
        self._prune(meta.name)

    def _prune(self, latest: str) -> None:
        """Delete all but the kept; folders newer than ``latest`` are leftovers of a run that was cut off and go as well.

        What has another name than checkpoints made here is somebody's own.
        """
        objects = [info.key for info in self._store.list("checkpoints/") if _OWN.match(info.key)]
        names = sorted({key.split("/")[1] for key in objects})
        kept = {name for name in names if name <= latest}
        kept = set(sorted(kept)[-self._keep :]) | {_read_marker(self._store, "BEST") or latest}
        strays = (stray for name in kept - {latest} for stray in self._strays(name, objects))
        for key in [*(key for key in objects if key.split("/")[1] not in kept), *strays]:
            self._store.delete(key)

    def _strays(self, name: str, objects: Sequence[str]) -> list[str]:
        """Return the files of a checkpoint that others began, and that its description does not name."""
        found = [key for key in objects if key.startswith(f"checkpoints/{name}/") and _OBJECT.fullmatch(key.split("/", 2)[2])]
        if len({key.rpartition("-")[0] for key in found}) == len(found):
            return []
        try:
            meta = read_meta(self._store, name)
            named = {meta.key(file.removesuffix(".pt")) for file in meta.files}
        except (CheckpointError, KeyError, TypeError, ValueError):
            return []  # Whoever resumes from it is told.
        return [key for key in found if key not in named]


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
    if meta.format not in _READABLE:
        limit = f"has format {meta.format}, this version reads {' and '.join(map(str, _READABLE))}"
        raise CheckpointError(where, limit, "Use the version that wrote it.")
    return meta


def load_file(store: Store, meta: CheckpointMeta, file: str) -> dict[str, Any]:
    """Return the content of ``weights`` or ``train`` of a checkpoint, on the CPU.

    The tensors are the file's own bytes, read when they are used; of a bucket's, those of a copy that is gone with them.

    Raises:
        CheckpointError: The file is missing, truncated, altered, or holds more than plain tensors and values.
    """
    where = f"{store.uri}/checkpoints/{meta.name}/{file}.pt"
    remedy = "Remove this checkpoint and the markers that name it, or resume from another."
    try:
        said, key = meta.files[f"{file}.pt"], meta.key(file)
        where = f"{store.uri}/{key}"
        expected = {"size": int(said["size"]), "sha256": said["sha256"]}
        check_size(where, store.size(key) or 0, expected["size"])
        with as_folder(store.uri, [key]) as folder:
            found = file_checks(folder / key)
            if found != expected:
                limit = f"is damaged: {found['size']} bytes that are not the {expected['size']} that were written"
                raise CheckpointError(where, limit, remedy)
            return map_state(folder / key, where, remedy)
    except ObjectMissingError as error:
        raise CheckpointError(where, "is missing", remedy) from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(where, f"has no name, size or checksum of its own in meta.json ({error!r})", remedy) from error


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


def _read_marker(store: Store, marker: str) -> str | None:
    try:
        return read_at_most(store, marker, _LARGEST_MARKER).decode().strip()
    except ObjectMissingError:
        return None
