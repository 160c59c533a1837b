"""Similarity filtering as a job: embed the targets of slices, find the training slices nearest to some queries, keep them as a subset.

In two forms. By **patches**, as Lin et al. (arXiv:2508.13822) and MosaicMRI (arXiv:2604.11762, 5.6) do: slices are divided by their
volume's maximum and cut; blank patches, and near-duplicates within a volume to choose from, do not count; a slice is chosen when one of
its patches is among the k nearest of a patch of a query. By **whole slices**, each scaled by itself to one vector: quicker, and no paper's.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from echotrain.data.catalog.containment import absolute_trusted
from echotrain.data.catalog.rows import Catalog
from echotrain.data.catalog.selection import Where, select
from echotrain.data.catalog.store import load_catalog
from echotrain.data.catalog.subsets import Subset, save_subset
from echotrain.errors import ConfigError, LeakageError
from echotrain.orchestration.jobs.embedding import EmbeddedVolumes, EmbeddingConfig, embed_volumes
from echotrain.similarity.embedders import make_embedder
from echotrain.similarity.neighbors import Nearest, check_neighbors
from echotrain.similarity.patches import PatchConfig, num_patches
from echotrain.storage.open import absolute_uri

__all__ = ["FilterConfig", "Filtered", "PatchCounts", "filter_catalog"]

# Query vectors that are held at a time: 235 MB of DreamSim's. More of them mean another passage of the pool.
_MOST_QUERIES = 32_768


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Which slices are chosen, and how.

    Attributes:
        catalog: As ``data.catalog``.
        trusted: As ``data.trusted``.
        name: Of the subset.
        query_split: Where queries come from; ``test`` is refused.
        where: What the queries show; empty takes all.
        k: Neighbours of each query, or of each of its patches.
        patches: How slices are cut and which patches count; None compares whole slices.
        embedder: ``gradients``, or another of ``EMBEDDERS``.
        weights: URI of what the embedder needs, where it needs any.
        workers: Processes; 0 takes one per CPU.
    """

    catalog: str
    name: str
    query_split: str = "val"
    where: Where = field(default_factory=Where)
    k: int = 4
    patches: PatchConfig | None = None
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

    @property
    def compared(self) -> str:
        """Say what is compared with what, in words."""
        return "whole slices" if self.patches is None else f"patches of {self.patches.side} x {self.patches.side}"


@dataclass(frozen=True, kw_only=True)
class PatchCounts:
    """How many patches counted.

    Attributes:
        num_queries, num_pool: Patches that were asked with, and chosen from.
        num_blank, num_duplicates: Patches of the slices to choose from that did not count.
    """

    num_queries: int
    num_pool: int
    num_blank: int
    num_duplicates: int


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """What was chosen.

    Attributes:
        subset: Stored below the catalog.
        num_queries, num_pool: Slices that were asked with, and chosen from.
        by_anatomy: Slices chosen of each anatomy.
        patches: How many patches counted; None where whole slices were compared.
    """

    subset: Subset
    num_queries: int
    num_pool: int
    by_anatomy: dict[str, int]
    patches: PatchCounts | None = None


def filter_catalog(config: FilterConfig) -> Filtered:
    """Choose the training slices that are nearest to the queries; a killed job goes on where it was.

    Only the targets of queries and training slices are read, no k-space. Memory does not grow with the catalog: a worker holds a volume,
    the driver some thousand queries, a volume to choose from, and a block of their cosines.

    Raises:
        LeakageError: The queries are of the test split.
        CatalogError: There is no catalog, nothing to ask with or to choose from, a volume without a maximum, or another subset of this
            name.
        ConfigError: An unknown embedder, or one without its weights or its package; k larger than what there is; nothing but blank
            patches.
        CheckpointError: The embedder's weights are not what they should be.
        ResourceError: The cluster is too small.
    """
    if config.weights:
        config = dataclasses.replace(config, weights=absolute_uri(config.weights))
    make_embedder(config.embedder, config.weights)
    config = dataclasses.replace(config, trusted=absolute_trusted(config.trusted))
    catalog = load_catalog(config.catalog, trusted=config.trusted)
    queries = select(catalog.table, splits=(config.query_split,), where=config.where, payload="image")
    pool = select(catalog.table, splits=("train",), payload="image")
    _check_before(config, catalog, len(queries), pool)
    embedding = EmbeddingConfig(
        embedder=config.embedder, weights=config.weights, patches=config.patches, workers=config.workers, trusted=config.trusted
    )
    chosen, counts = _choose(embed_volumes(catalog, np.union1d(queries, pool), embedding), queries, pool, config)
    rows = catalog.rows(chosen)
    by_anatomy = dict(Counter(row.anatomy or "unknown" for row in rows).most_common())
    about = {
        **dataclasses.asdict(config),
        "compared": config.compared,
        "catalog": f"{catalog.root}@{catalog.version}",
        "by_anatomy": by_anatomy,
    }
    subset = save_subset(catalog.root, config.name, [row.id for row in rows], about)
    patches = None if config.patches is None else counts
    return Filtered(subset=subset, num_queries=len(queries), num_pool=len(pool), by_anatomy=by_anatomy, patches=patches)


def _check_before(config: FilterConfig, catalog: Catalog, num_queries: int, pool: NDArray[np.int64]) -> None:
    """Refuse a k that there are not enough slices, or patches of them, for, before any is read."""
    if config.patches is None:
        check_neighbors(config.k, num_queries, len(pool))
        return
    side = config.patches.side
    sizes = Counter(zip(*(catalog.table[name].take(pa.array(pool)).to_pylist() for name in ("recon_height", "recon_width")), strict=True))
    most = sum(count * num_patches(shape, side) for shape, count in sizes.items())
    check_neighbors(config.k, num_queries, most, what="patches")


def _choose(
    volumes: EmbeddedVolumes, queries: NDArray[np.int64], pool: NDArray[np.int64], config: FilterConfig
) -> tuple[NDArray[np.int64], PatchCounts]:
    """Return the positions of the slices that are chosen, and how many vectors counted."""
    found: set[int] = set()
    num_queries = num_pool = num_blank = num_duplicates = 0
    for group in _in_groups(volumes, queries):
        nearest = Nearest(group, config.k)
        num_blank = num_duplicates = 0
        for volume in volumes.of(pool):
            first = volume.taken(~volume.is_duplicate)
            nearest.add(first.vectors, first.slices)
            num_blank += volume.num_blank
            num_duplicates += int(volume.is_duplicate.sum())
        num_queries, num_pool = num_queries + len(group), nearest.num_seen
        found.update(nearest.chosen().tolist())
    what = "slices" if config.patches is None else "patches that are not blank"
    if num_queries:
        check_neighbors(config.k, num_queries, num_pool, what=what)
    else:
        raise ConfigError(f"0 {what}", "leave nothing to be similar to", "Choose other queries, or a larger --blank-cosine.")
    counts = PatchCounts(num_queries=num_queries, num_pool=num_pool, num_blank=num_blank, num_duplicates=num_duplicates)
    return np.array(sorted(found)), counts


def _in_groups(volumes: EmbeddedVolumes, queries: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    """Yield the queries' vectors, some volumes' at a time."""
    waiting: list[NDArray[np.float32]] = []
    for volume in volumes.of(queries):
        if len(volume.vectors):
            waiting.append(volume.vectors)
        if sum(map(len, waiting)) >= _MOST_QUERIES:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)
