"""Parts of a catalog that models are trained and tested on."""

from collections.abc import Callable

import pyarrow as pa

from echotrain.data.catalog.rows import SPLITS, Catalog, splits_of_volumes
from echotrain.data.catalog.selection import Where, select
from echotrain.errors import CatalogError
from echotrain.evaluation.results import VolumeResult
from echotrain.studies.study import Study

__all__ = ["count_volumes", "part_name", "require_volumes", "tells"]


def require_volumes(table: pa.Table, part: Where, study: Study) -> None:
    """Refuse a part of the data that has nothing in one of the splits.

    Raises:
        CatalogError: It has none to train on, to validate on, or to test on.
    """
    counts = count_volumes(table, part)
    for split in ("train", "val", study.split):
        if not counts[split]:
            raise CatalogError(part_name(part), f"has no volume in the split {split}", "Name what the catalog has, or split it anew.")


def count_volumes(table: pa.Table, part: Where) -> dict[str, int]:
    """Return how many volumes of each split fit."""
    columns = list(dict.fromkeys(["dataset", "volume", "split", *part.chosen]))
    rows = table.select(columns).group_by(columns).aggregate([]).to_pylist()
    found = {(row["dataset"], row["volume"], row["split"]) for row in rows if part.fits(row)}
    splits = [split for _, _, split in found]
    return {split: splits.count(split) for split in SPLITS}


def part_name(part: Where) -> str:
    """Return what readers call a part of the data: all that it names."""
    return " ".join(str(value) for kept in part.chosen.values() for value in kept) or "all"


def tells(catalog: Catalog, part: Where) -> Callable[[VolumeResult], bool]:
    """Return what tells the volumes of a part of the data from the others."""
    rows = catalog.table.take(pa.array(select(catalog.table, splits=SPLITS, where=part)))
    volumes = set(splits_of_volumes(rows))
    return lambda result: (result.dataset, result.volume) in volumes
