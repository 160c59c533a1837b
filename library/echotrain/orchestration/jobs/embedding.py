"""Vectors of a catalog's slices, or of their patches: made volume by volume on the cluster, kept, and read back a volume at a time."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from echotrain.data.catalog.rows import Catalog, SliceRow
from echotrain.data.catalog.store import load_catalog
from echotrain.data.samples.reading import SliceReader
from echotrain.errors import CatalogError, ResourceError
from echotrain.log import setup_logging, track
from echotrain.orchestration.runtime.capacity import Shape, capacity
from echotrain.orchestration.runtime.cluster import DriverEnvironment, connect
from echotrain.orchestration.runtime.mapping import Result, map_items
from echotrain.orchestration.runtime.parts import Parts
from echotrain.similarity.embedders import make_embedder
from echotrain.similarity.patches import PatchConfig, are_blank, are_duplicates, cut_patches
from echotrain.storage.folder import as_file
from echotrain.storage.ranged import RangeReader
from echotrain.training.published import is_weights_file

__all__ = ["EmbeddedVolume", "EmbeddedVolumes", "EmbeddingConfig", "embed_volumes"]


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """What makes the vectors.

    Attributes:
        embedder: One of ``EMBEDDERS``.
        weights: URI of what it needs.
        patches: How slices are cut; None embeds them whole.
        workers: Processes; 0 takes one per CPU.
        trusted: As ``data.trusted``.
    """

    embedder: str
    weights: str = ""
    patches: PatchConfig | None = None
    workers: int = 0
    trusted: tuple[str, ...] = ()

    def identity(self) -> str:
        """Return as text what decides the vectors."""
        cut = "" if self.patches is None else f" {json.dumps(dataclasses.asdict(self.patches))}"
        return f"{self.embedder} {self.weights}{cut}"


@dataclass(frozen=True, kw_only=True)
class EmbeddedVolume:
    """The vectors of a volume's whole slices, or of those of its patches that are not blank.

    Attributes:
        vectors: float32 (n, features).
        slices: Position in the catalog of the slice that each vector is of, (n,).
        is_duplicate: Which are near-duplicates of one before them, (n,); of whole slices none.
        num_blank: Patches that were blank.
    """

    vectors: NDArray[np.float32]
    slices: NDArray[np.int64]
    is_duplicate: NDArray[np.bool_]
    num_blank: int = 0

    def taken(self, mask: NDArray[np.bool_]) -> "EmbeddedVolume":
        """Return it with those vectors alone."""
        return dataclasses.replace(self, vectors=self.vectors[mask], slices=self.slices[mask], is_duplicate=self.is_duplicate[mask])


class EmbeddedVolumes:
    """Embedded volumes in the store, in catalog order; one at a time is in memory.

    Args:
        parts: Where they are kept.
        items: Number and positions of each volume.
        num_rows: Of the catalog.
    """

    def __init__(self, parts: Parts, items: list[dict[str, Any]], num_rows: int) -> None:
        self._parts = parts
        self._items = items
        self._num_rows = num_rows

    def of(self, positions: NDArray[np.int64]) -> Iterator[EmbeddedVolume]:
        """Yield the volumes that slices at these positions are of, with the vectors of those alone."""
        wanted = np.zeros(self._num_rows, bool)
        wanted[positions] = True
        for item in self._items:
            if wanted[item["positions"]].any():
                volume = _as_volume(self._parts.load(item["volume"]))
                yield volume.taken(wanted[volume.slices])


def embed_volumes(catalog: Catalog, positions: NDArray[np.int64], config: EmbeddingConfig) -> EmbeddedVolumes:
    """Embed slices volume by volume on the cluster; what an earlier job has left is not made again.

    The vectors stay in the store, below ``embeddings/`` of the catalog's root, and never gather in memory: 4 bytes a number of a whole
    slice, 2 of a patch. By patches of 128, DreamSim's of MosaicMRI's 56,235 training slices are 1 to 2 GB.

    Raises:
        CatalogError: A volume has no maximum to divide patches by.
        CheckpointError: The embedder's weights are not what they should be.
        ResourceError: The cluster is too small.
    """
    connect()
    items = _volumes(catalog, positions)
    where = f"{catalog.root}@{catalog.version}"
    parts = Parts(f"{catalog.root}/embeddings", f"{config.identity()} {where} {items}{_content_of(config.weights)}")
    known = parts.numbers()
    todo = [item for item in items if item["volume"] not in known]
    room = capacity()
    fit = room.workers(Shape(cpus=1))
    if config.workers > fit or not fit:
        raise ResourceError(f"workers={config.workers}", f"{room}: {fit} fit", "Lower workers, or leave it out.")
    workers = min(config.workers or fit, max(len(todo), 1))
    mapped = map_items(todo, _VolumeEmbedder, DriverEnvironment.here(), where, config, parts, concurrency=workers, num_cpus=1)
    for _ in track(mapped, "Embedding", total=len(todo)):
        pass
    return EmbeddedVolumes(parts, items, len(catalog))


def _content_of(weights: str) -> str:
    """Return what a file of weights holds, as text: an encoder that is exported again to one place gives other vectors. "" of a folder."""
    if not weights or not is_weights_file(weights):
        return ""
    with as_file(weights) as path, path.open("rb") as file:
        return f" sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


class _VolumeEmbedder:
    """Reads the targets of a volume's slices and embeds them; one lives in each worker."""

    def __init__(self, environment: DriverEnvironment, catalog_uri: str, config: EmbeddingConfig, parts: Parts) -> None:
        environment.apply()
        setup_logging("WARNING")
        self._catalog = load_catalog(catalog_uri, trusted=config.trusted)
        self._reader = SliceReader(self._catalog.root, RangeReader())
        self._embedder = make_embedder(config.embedder, config.weights)
        self._patches = config.patches
        self._parts = parts

    def __call__(self, item: dict[str, Any]) -> Result:
        rows = self._catalog.rows(np.asarray(item["positions"]))
        if self._patches is None:
            vectors = np.concatenate([self._embedder(self._target(row)[None]) for row in rows])
            result = Result(item, vectors.tobytes())
        else:
            result = self._cut(item, rows, self._patches)
        self._parts.save(item["volume"], result)
        return Result({"volume": item["volume"]})

    def _cut(self, item: dict[str, Any], rows: list[SliceRow], patches: PatchConfig) -> Result:
        blank = self._embedder.embed_patches(np.zeros((1, patches.side, patches.side), np.float32))[0]
        clear, owners, num_blank = [], [], 0
        for position, row in zip(item["positions"], rows, strict=True):
            vectors = self._embedder.embed_patches(cut_patches(_of_maximum(self._target(row), row), patches.side))
            is_blank = are_blank(vectors, blank, patches.blank_cosine)
            clear.append(vectors[~is_blank].astype(np.float16))
            owners += [position] * len(clear[-1])
            num_blank += int(is_blank.sum())
        halves = np.concatenate(clear)
        duplicates = are_duplicates(halves.astype(np.float32), patches.duplicate_cosine)
        values = {**item, "slices": owners, "is_duplicate": duplicates.tolist(), "num_blank": num_blank}
        return Result(values, halves.tobytes())

    def _target(self, row: SliceRow) -> NDArray[np.float32]:
        image = np.empty((row.recon_height, row.recon_width), np.float32)
        self._reader.read_target(row, image)
        return image


def _of_maximum(image: NDArray[np.float32], row: SliceRow) -> NDArray[np.float32]:
    """Return a slice as shares of its volume's maximum."""
    if row.max_value <= 0 and image.any():
        value = f"{row.dataset}/{row.volume}: max_value={row.max_value}"
        remedy = "Prepare the data again, or compare whole slices: leave --patches out."
        raise CatalogError(value, "is no maximum of its target, by which patches are divided", remedy)
    return image / np.float32(row.max_value or 1)


def _as_volume(result: Result) -> EmbeddedVolume:
    values = result.values
    if "slices" not in values:
        positions = np.asarray(values["positions"])
        vectors = np.frombuffer(result.data, np.float32).reshape(len(positions), -1)
        return EmbeddedVolume(vectors=vectors, slices=positions, is_duplicate=np.zeros(len(positions), bool))
    owners = np.asarray(values["slices"], np.int64)
    halves = np.frombuffer(result.data, np.float16).astype(np.float32)
    vectors = halves.reshape(len(owners), -1) if len(owners) else halves.reshape(0, 1)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return EmbeddedVolume(vectors=unit, slices=owners, is_duplicate=np.asarray(values["is_duplicate"], bool), num_blank=values["num_blank"])


def _volumes(catalog: Catalog, positions: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return an item per volume: its number, and the positions of its slices."""
    grouped: dict[tuple[str, str], list[int]] = {}
    columns = catalog.table.select(["dataset", "volume"]).take(pa.array(positions)).to_pylist()
    for position, row in zip(positions.tolist(), columns, strict=True):
        grouped.setdefault((row["dataset"], row["volume"]), []).append(position)
    return [{"volume": number, "positions": members} for number, members in enumerate(grouped.values())]
