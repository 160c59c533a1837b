"""Which rows of a catalog a run sees: splits, datasets, anatomies, contrasts and nested fractions of volumes."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from echotrain.data.catalog.subsets import Subset, mask_of_subset
from echotrain.errors import CatalogError

__all__ = ["Selection", "select"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Volumes by what they are; an empty list keeps all.

    Attributes:
        datasets, anatomies, contrasts: Names to keep.
    """

    datasets: tuple[str, ...] = ()
    anatomies: tuple[str, ...] = ()
    contrasts: tuple[str, ...] = ()

    def fits(self, dataset: str, anatomy: str, contrast: str) -> bool:
        """Return whether a volume is kept."""
        wanted = ((self.datasets, dataset), (self.anatomies, anatomy), (self.contrasts, contrast))
        return all(not names or name in names for names, name in wanted)


def select(
    table: pa.Table,
    *,
    splits: Sequence[str],
    subset: Subset | None = None,
    fraction: float = 1.0,
    datasets: Sequence[str] = (),
    anatomies: Sequence[str] = (),
    contrasts: Sequence[str] = (),
) -> NDArray[np.int64]:
    """Return the positions of the rows that fit, in catalog order.

    Args:
        table: Catalog rows.
        splits: Names of splits.
        subset: Slices to choose from; None for all.
        fraction: Share of the fitting **volumes**, at least one. Volumes are ranked by a hash of their name, so that a smaller fraction is
            within every larger one, and stays what it is when volumes are added elsewhere.
        datasets: Names of datasets to keep; empty keeps all.
        anatomies: Likewise.
        contrasts: Likewise.

    Raises:
        CatalogError: A name is not in the catalog, or nothing fits; the message names what there is.
        LeakageError: The subset holds slices of another split.
    """
    wanted = {"split": splits, "dataset": datasets, "anatomy": anatomies, "contrast": contrasts}
    keep = np.ones(table.num_rows, bool) if subset is None else mask_of_subset(table, subset, splits)
    for column, names in wanted.items():
        if names or column == "split":
            there = pc.unique(table[column]).to_pylist()
            unknown = [name for name in names if column != "split" and name not in there]
            fits = pc.is_in(table[column], value_set=pa.array(list(names), pa.string()))
            keep &= fits.to_numpy(zero_copy_only=False)
            if unknown or not keep.any():
                raise CatalogError(
                    f"{column} {', '.join(unknown or names) or '(none)'}",
                    "is not in the catalog" if unknown else "selects no slice, together with the selections before it",
                    f"The catalog has {column}: {', '.join(sorted(map(str, there)))}.",
                )
    indices = np.flatnonzero(keep)
    if fraction == 1.0:
        return indices
    volumes = table.select(["dataset", "volume"]).take(pa.array(indices))
    # One code per volume instead of one string per slice: a plan over 100,000 slices stays far below a second.
    joined = pc.binary_join_element_wise(volumes["dataset"], volumes["volume"], "\x1f")
    encoded = pc.dictionary_encode(joined.combine_chunks())
    names = encoded.dictionary.to_pylist()
    ranked = sorted(range(len(names)), key=lambda code: hashlib.blake2b(names[code].encode(), digest_size=8).digest())
    chosen = np.zeros(len(names), bool)
    chosen[ranked[: max(1, math.floor(fraction * len(names) + 0.5))]] = True
    codes: NDArray[np.int64] = encoded.indices.to_numpy(zero_copy_only=False)
    return indices[chosen[codes]]
