"""Named subsets: slices chosen once, by whatever means, and kept beside their catalog for any recipe to train on.

``subsets/<name>.parquet`` holds their ids, and how they were chosen in its metadata. It is never changed: a name means the same slices for
every run that is told it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from echotrain.data.catalog.bounded_parquet import read_parquet
from echotrain.data.catalog.identity import SampleId
from echotrain.errors import CatalogError, ConfigError, LeakageError, ObjectMissingError
from echotrain.storage.bounded_read import read_at_most
from echotrain.storage.open import open_store

__all__ = ["Subset", "load_subset", "mask_of_subset", "save_subset"]

_KEYS = ("dataset", "volume", "slice")
_SCHEMA = pa.schema([("dataset", pa.string()), ("volume", pa.string()), ("slice", pa.int32())])
_ABOUT = b"echotrain"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Ids of ten million slices.
_LARGEST_TABLE, _LARGEST_FILE = 1 << 30, 256 << 20


@dataclass(frozen=True, kw_only=True)
class Subset:
    """A stored subset.

    Attributes:
        name: Below its catalog.
        slices: A row per slice: dataset, volume, slice.
        about: How it was chosen, as plain values.
    """

    name: str
    slices: pa.Table
    about: Mapping[str, Any]


def save_subset(root: str, name: str, slices: Sequence[SampleId], about: Mapping[str, Any]) -> Subset:
    """Keep a subset below a catalog's root; the same one again changes nothing.

    Raises:
        ConfigError: The name is no plain word.
        CatalogError: There are no slices, or there is another subset of this name.
        StorageError: The store failed.
    """
    key = _key(name)
    # A subset is of slices: whoever takes one takes all of its frames.
    rows = sorted({slice_[: len(_KEYS)] for slice_ in slices})
    if not rows:
        raise CatalogError(f"subset {name}", "would be empty", "Choose by other queries or a larger k.")
    table = pa.Table.from_pylist([dict(zip(_KEYS, row, strict=True)) for row in rows], schema=_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({_ABOUT: json.dumps(dict(about)).encode()}), sink, compression="zstd")
    store = open_store(root)
    if not store.write(key, sink.getvalue().to_pybytes(), only_if_absent=True) and not load_subset(root, name).slices.equals(table):
        raise CatalogError(f"{store.uri}/{key}", "is another subset of this name", "Give this one a new name: runs rely on the old one.")
    return Subset(name=name, slices=table, about=about)


def load_subset(root: str, name: str) -> Subset:
    """Load a subset.

    Raises:
        ConfigError: The name is no plain word.
        CatalogError: There is none of this name, or it is damaged; the message names those that there are.
    """
    store, key = open_store(root), _key(name)
    try:
        data = read_at_most(store, key, _LARGEST_FILE)
        slices = read_parquet(data, _SCHEMA, f"{store.uri}/{key}", limit=_LARGEST_TABLE, may_lack=False)
        about = json.loads((pq.read_metadata(pa.BufferReader(data)).metadata or {}).get(_ABOUT, b"{}"))
        return Subset(name=name, slices=slices, about=about)
    except ObjectMissingError as error:
        there = sorted(info.key.removeprefix("subsets/").removesuffix(".parquet") for info in store.list("subsets/"))
        remedy = f"There are: {', '.join(there)}." if there else "There is none yet: python -m ray_jobs.filter makes one."
        raise CatalogError(f"data.subset={name}", f"is not among the subsets of {store.uri}", remedy) from error
    except CatalogError as error:
        raise CatalogError(f"{store.uri}/{key}", f"is no subset: it {error.limit}", error.remedy) from error
    except (pa.ArrowException, RecursionError, ValueError) as error:
        raise CatalogError(f"{store.uri}/{key}", f"is no subset ({error})", "Make it again under a new name.") from error


def mask_of_subset(table: pa.Table, subset: Subset, splits: Sequence[str]) -> NDArray[np.bool_]:
    """Return which rows of a catalog are in a subset.

    Args:
        table: All rows of the catalog.
        subset: Of training slices.
        splits: Those that are trained on.

    Raises:
        CatalogError: The catalog lacks some of the slices.
        LeakageError: Some of them are in no split that is trained on.
    """
    positions = pa.array(np.arange(table.num_rows))
    found = subset.slices.join(table.select([*_KEYS, "split"]).append_column("position", positions), list(_KEYS), join_type="left outer")
    missing = found.filter(pc.is_null(found["position"]))
    if missing.num_rows:
        raise CatalogError(
            f"subset {subset.name}: {_first(missing)}",
            f"and {missing.num_rows - 1} more of its {subset.slices.num_rows} slices are not in the catalog",
            "Name the version of the catalog that it was made from.",
        )
    strange = found.filter(pc.invert(pc.is_in(found["split"], pa.array(list(splits)))))
    if strange.num_rows:
        split = strange["split"][0].as_py()
        raise LeakageError(
            f"subset {subset.name}: {_first(strange)}",
            f"and {strange.num_rows - 1} more of its slices are held out ({split})",
            f"Choose from {' and '.join(splits)} alone.",
        )
    mask = np.zeros(table.num_rows, bool)
    mask[found["position"].to_numpy()] = True
    return mask


def _first(table: pa.Table) -> str:
    row = table.slice(0, 1).to_pylist()[0]
    return f"{row['dataset']}/{row['volume']}[{row['slice']}]"


def _key(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"subset {name!r}", "must be a plain word", "Name it, say, knee-like-4nn.")
    return f"subsets/{name}.parquet"
