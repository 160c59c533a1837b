"""Similarity filtering as a job: embed magnitude slices, find the training slices nearest to some queries, keep them as a subset."""

import dataclasses
import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from echotrain.data.batch import SampleId
from echotrain.data.catalog import Catalog
from echotrain.data.catalog_store import load_catalog
from echotrain.data.containment import absolute_trusted
from echotrain.data.reading import SliceReader
from echotrain.data.selection import select
from echotrain.data.subsets import Subset, save_subset
from echotrain.errors import ConfigError, LeakageError, ResourceError
from echotrain.log import setup_logging, track
from echotrain.orchestration.cluster import DriverEnvironment, connect, num_cpus
from echotrain.orchestration.mapping import Result, map_items
from echotrain.orchestration.parts import Parts
from echotrain.similarity.embedders import make_embedder
from echotrain.similarity.neighbors import check_neighbors, nearest_union
from echotrain.storage.open import absolute_uri
from echotrain.storage.ranged import RangeReader

__all__ = ["FilterConfig", "Filtered", "filter_catalog"]


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Which slices are chosen, and how.

    Attributes:
        catalog: As ``data.catalog``.
        trusted: As ``data.trusted``.
        name: Of the subset.
        query_split: Where queries come from; ``test`` is refused.
        datasets, anatomies, contrasts: What the queries show; empty takes all.
        k: Neighbours of each query.
        embedder: ``gradients``, or another of ``EMBEDDERS``.
        weights: URI of what the embedder needs, where it needs any.
        workers: Processes; 0 takes one per CPU.
    """

    catalog: str
    name: str
    query_split: str = "val"
    datasets: tuple[str, ...] = ()
    anatomies: tuple[str, ...] = ()
    contrasts: tuple[str, ...] = ()
    k: int = 4
    embedder: str = "gradients"
    weights: str = ""
    workers: int = 0
    trusted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.query_split == "test":
            raise LeakageError(
                "queries from the test split", "would let training see what it is judged on", "Use --query-split val, as the paper does."
            )
        if self.query_split not in ("val", "train"):
            raise ConfigError(f"query_split={self.query_split!r}", "must be val or train", "Use val.")
        if self.k < 1 or self.workers < 0:
            raise ConfigError(f"k={self.k}, workers={self.workers}", "must be at least 1 and 0", "The paper's k is 4.")


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """What was chosen.

    Attributes:
        subset: Stored below the catalog.
        num_queries, num_pool: Slices that were asked with, and chosen from.
        by_anatomy: Slices chosen of each anatomy.
    """

    subset: Subset
    num_queries: int
    num_pool: int
    by_anatomy: dict[str, int]


def filter_catalog(config: FilterConfig) -> Filtered:
    """Choose the training slices that are nearest to the queries; a killed job goes on where it was.

    Only the targets of queries and training slices are read, no k-space.

    Raises:
        LeakageError: The queries are of the test split.
        CatalogError: There is no catalog, nothing to ask with or to choose from, or another subset of this name.
        ConfigError: An unknown embedder, or one without its weights or its package; k larger than what there is.
        CheckpointError: The embedder's weights are not what they should be.
        ResourceError: The cluster is too small.
    """
    if config.weights:
        config = dataclasses.replace(config, weights=absolute_uri(config.weights))
    make_embedder(config.embedder, config.weights)
    config = dataclasses.replace(config, trusted=absolute_trusted(config.trusted))
    catalog = load_catalog(config.catalog, trusted=config.trusted)
    queries = select(
        catalog.table,
        splits=(config.query_split,),
        datasets=config.datasets,
        anatomies=config.anatomies,
        contrasts=config.contrasts,
    )
    pool = select(catalog.table, splits=("train",))
    check_neighbors(config.k, len(queries), len(pool))
    vectors = _embed(catalog, np.union1d(queries, pool), config)
    chosen = pool[nearest_union(np.stack([vectors[i] for i in queries.tolist()]), np.stack([vectors[i] for i in pool.tolist()]), config.k)]
    rows = catalog.rows(chosen)
    by_anatomy = dict(Counter(row.anatomy or "unknown" for row in rows).most_common())
    about = {**dataclasses.asdict(config), "catalog": f"{catalog.root}@{catalog.version}", "by_anatomy": by_anatomy}
    subset = save_subset(catalog.root, config.name, [SampleId(row.dataset, row.volume, row.slice) for row in rows], about)
    return Filtered(subset=subset, num_queries=len(queries), num_pool=len(pool), by_anatomy=by_anatomy)


def _embed(catalog: Catalog, positions: NDArray[np.int64], config: FilterConfig) -> dict[int, NDArray[np.float32]]:
    """Return the vector of each slice by its position, embedding volume by volume on the cluster."""
    connect()
    items = _volumes(catalog, positions)
    where = f"{catalog.root}@{catalog.version}"
    parts = Parts(f"{catalog.root}/embeddings", f"{config.embedder} {config.weights} {where} {items}")
    known = parts.known()
    todo = [item for item in items if item["volume"] not in known]
    capacity = int(num_cpus())
    if config.workers > capacity:
        raise ResourceError(f"workers={config.workers}", f"the cluster has {capacity} CPUs", "Lower workers, or leave it out.")
    workers = min(config.workers or capacity, max(len(todo), 1))
    told = (DriverEnvironment.here(), where, config.trusted, config.embedder, config.weights, parts)
    mapped = map_items(todo, _VolumeEmbedder, *told, concurrency=workers, num_cpus=1)
    vectors: dict[int, NDArray[np.float32]] = {}
    for result in track(itertools.chain(known.values(), mapped), "Embedding", total=len(items)):
        found = np.frombuffer(result.data, np.float32).reshape(len(result.values["positions"]), -1)
        vectors.update(zip(result.values["positions"], found, strict=True))
    return vectors


class _VolumeEmbedder:
    """Reads the targets of a volume's slices and embeds them; one lives in each worker."""

    def __init__(
        self, environment: DriverEnvironment, catalog_uri: str, trusted: tuple[str, ...], embedder: str, weights: str, parts: Parts
    ) -> None:
        environment.apply()
        setup_logging("WARNING")
        self._catalog = load_catalog(catalog_uri, trusted=trusted)
        self._reader = SliceReader(self._catalog.root, RangeReader())
        self._embedder = make_embedder(embedder, weights)
        self._parts = parts

    def __call__(self, item: dict[str, Any]) -> Result:
        rows = self._catalog.rows(np.asarray(item["positions"]))
        images = [np.empty((row.recon_height, row.recon_width), np.float32) for row in rows]
        for row, image in zip(rows, images, strict=True):
            self._reader.read_target(row, image)
        vectors = np.concatenate([self._embedder(image[None]) for image in images])
        result = Result(item, vectors.tobytes())
        self._parts.save(item["volume"], result)
        return result


def _volumes(catalog: Catalog, positions: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return an item per volume: its number, and the positions of its slices."""
    grouped: dict[tuple[str, str], list[int]] = {}
    columns = catalog.table.select(["dataset", "volume"]).take(pa.array(positions)).to_pylist()
    for position, row in zip(positions.tolist(), columns, strict=True):
        grouped.setdefault((row["dataset"], row["volume"]), []).append(position)
    return [{"volume": number, "positions": members} for number, members in enumerate(grouped.values())]
