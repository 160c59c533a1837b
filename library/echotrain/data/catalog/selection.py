"""Which rows of a catalog a run sees: splits, what the header columns say, and nested fractions of volumes."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from echotrain.data.catalog.columns import codes_of, taken
from echotrain.data.catalog.payload import Payload, check_payload
from echotrain.data.catalog.subsets import Subset, mask_of_subset
from echotrain.errors import CatalogError

__all__ = ["Where", "select"]

_EVERYTHING_NAMED = 30


@dataclass(frozen=True, kw_only=True)
class Where:
    """Volumes by what the catalog's columns say of them; an empty list keeps all, and what is listed holds together.

    Attributes:
        dataset, volume, patient: Names; a patient's is the pseudonym that the catalog has.
        anatomy, contrast, orientation, acquisition, modality: What was examined, and how.
        vendor, center, field_strength: Where, the field in tesla.
        fat_suppressed, sex, weight_bin_kg: As the header says; rows of which it says nothing are not kept.
        coils, height, width, recon_height, recon_width, num_slices, num_frames: Sizes.
    """

    # What these were called before every column could be chosen by.
    renamed: ClassVar[Mapping[str, str]] = {"datasets": "dataset", "anatomies": "anatomy", "contrasts": "contrast"}

    dataset: tuple[str, ...] = ()
    volume: tuple[str, ...] = ()
    patient: tuple[str, ...] = ()
    anatomy: tuple[str, ...] = ()
    contrast: tuple[str, ...] = ()
    orientation: tuple[str, ...] = ()
    acquisition: tuple[str, ...] = ()
    modality: tuple[str, ...] = ()
    vendor: tuple[str, ...] = ()
    center: tuple[str, ...] = ()
    field_strength: tuple[float, ...] = ()
    fat_suppressed: tuple[bool, ...] = ()
    sex: tuple[str, ...] = ()
    weight_bin_kg: tuple[int, ...] = ()
    coils: tuple[int, ...] = ()
    height: tuple[int, ...] = ()
    width: tuple[int, ...] = ()
    recon_height: tuple[int, ...] = ()
    recon_width: tuple[int, ...] = ()
    num_slices: tuple[int, ...] = ()
    num_frames: tuple[int, ...] = ()

    @property
    def chosen(self) -> dict[str, tuple[Any, ...]]:
        """The columns that are chosen by, and what is kept of each."""
        return {column: kept for column, kept in dataclasses.asdict(self).items() if kept}

    def fits(self, columns: Mapping[str, Any]) -> bool:
        """Return whether a volume with these columns is kept."""
        return all(columns[column] in kept for column, kept in self.chosen.items())


def select(
    table: pa.Table,
    *,
    splits: Sequence[str],
    where: Where | None = None,
    subset: Subset | None = None,
    fraction: float = 1.0,
    payload: Payload = "kspace",
) -> NDArray[np.int64]:
    """Return the positions of the rows that fit, in catalog order.

    Args:
        table: Catalog rows.
        splits: Names of splits.
        where: What the rows show; None keeps all.
        subset: Slices to choose from; None for all.
        fraction: Share of the fitting **volumes**, at least one. Volumes are ranked by a hash of their name, so that a smaller fraction is
            within every larger one, and stays what it is when volumes are added elsewhere.
        payload: What will be read of the rows: each of them must have it.

    Raises:
        CatalogError: A value is not in the catalog, or nothing fits; the message names what there is. Or a row that fits lacks the payload.
        LeakageError: The subset holds slices of another split.
    """
    keep = np.ones(table.num_rows, bool) if subset is None else mask_of_subset(table, subset, splits)
    keep &= _among(table["split"], splits)
    _refuse_nothing(table, "split", splits, keep)
    for column, kept in (Where() if where is None else where).chosen.items():
        unknown = [value for value in kept if not _among(table[column], [value]).any()]
        if unknown:
            raise CatalogError(f"{column} {_listed(unknown)}", "is not in the catalog", _remedy(table, column))
        keep &= _among(table[column], kept)
        _refuse_nothing(table, column, kept, keep)
    indices = np.flatnonzero(keep)
    check_payload(table, indices, payload)
    return indices if fraction == 1.0 else _of_some_volumes(table, indices, fraction)


def _among(column: pa.ChunkedArray, values: Sequence[Any]) -> NDArray[np.bool_]:
    """Return which rows have one of the values, as the column's own type has them: 0.55 in float32, say."""
    return np.asarray(pc.is_in(column, value_set=pa.array(list(values), column.type)).to_numpy(zero_copy_only=False))


def _refuse_nothing(table: pa.Table, column: str, kept: Sequence[Any], keep: NDArray[np.bool_]) -> None:
    if not keep.any():
        limit = "selects no slice, together with the selections before it"
        raise CatalogError(f"{column} {_listed(kept) or '(none)'}", limit, _remedy(table, column))


def _remedy(table: pa.Table, column: str) -> str:
    there = sorted(map(str, pc.unique(table[column]).drop_null().to_pylist()))
    more = f" and {len(there) - _EVERYTHING_NAMED} more" if len(there) > _EVERYTHING_NAMED else ""
    return f"The catalog has {column}: {', '.join(there[:_EVERYTHING_NAMED]) or 'nothing'}{more}."


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _of_some_volumes(table: pa.Table, indices: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """Return those of the rows whose volumes are among the first by the hash of their names."""
    volumes = taken(table, indices, ["dataset", "volume"])
    codes, firsts = codes_of(volumes, ["dataset", "volume"])
    names = ["\x1f".join(row.values()) for row in taken(volumes, firsts).to_pylist()]
    ranked = sorted(range(len(names)), key=lambda code: hashlib.blake2b(names[code].encode(), digest_size=8).digest())
    chosen = np.zeros(len(names), bool)
    chosen[ranked[: max(1, math.floor(fraction * len(names) + 0.5))]] = True
    return indices[chosen[codes]]
