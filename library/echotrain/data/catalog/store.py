"""Catalogs in a store: immutable versions, each committed by one small write.

``catalog/v000003-<hash>-<token>.parquet`` holds the rows; ``catalog/v000003.json``, written after it and only if no one else has
written that version, is the commit point. Whoever reads sees a whole version or none.
"""

import json
import logging
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from echotrain.data.catalog.bounded_parquet import read_parquet
from echotrain.data.catalog.columns import codes_of, taken
from echotrain.data.catalog.containment import check_contained, check_key
from echotrain.data.catalog.identity import SampleId
from echotrain.data.catalog.leaks import check_no_leakage, leaks_of
from echotrain.data.catalog.rows import KINDS, SCHEMA, SPLITS, Catalog
from echotrain.errors import CatalogError, ConfigError
from echotrain.storage.bounded_read import read_at_most, read_json
from echotrain.storage.open import open_store
from echotrain.storage.store import Store

__all__ = ["CATALOG_FORMAT", "commit_catalog", "commit_version", "load_catalog", "split_version"]

logger = logging.getLogger(__name__)

# Raised when a column changes its meaning; a reader refuses what it does not know.
CATALOG_FORMAT = 1

_MANIFEST = re.compile(r"catalog/v(\d{6})\.json")
_COMMIT_ATTEMPTS = 20
# Of two million slices a table takes about 1 GB, and a tenth of that as a file. A quarter of the first may lie in memory; a larger table,
# of 25 million slices at most, lies in a temporary file, and what is looked into is in memory only as long as nothing else needs that.
_LARGEST_IN_MEMORY, _LARGEST_MAPPED, _LARGEST_FILE, _LARGEST_MANIFEST = 1 << 30, 12 << 30, 1 << 30, 64 << 20


def load_catalog(uri: str, *, trusted: Sequence[str] = (), reads_payload: bool = True) -> Catalog:
    """Load the newest version of the catalog below ``uri``, or the one that ``uri@3`` names.

    Args:
        uri: Folder or ``s3://`` prefix.
        trusted: Places outside of the catalog that its rows may point to.
        reads_payload: False where only the rows are wanted, and nothing that they point to will ever be read.

    Raises:
        CatalogError: There is none, it is damaged, of a newer format, a row is inconsistent, or points out of the catalog.
        LeakageError: A patient is in two splits, and the manifest does not name them as a known leak of a given split.
    """
    root, version = split_version(uri)
    store = open_store(root)
    versions = _versions(store)
    if not versions:
        raise CatalogError(root, "holds no catalog", "Prepare one: python -m ray_jobs.prepare SOURCE --to URI")
    if version is None:
        version = versions[-1]
    elif version not in versions:
        raise CatalogError(f"{root}@{version}", f"does not exist; versions are {versions}", "Name one of these, or leave out @version.")
    manifest = _read_manifest(store, version)
    check_key(store.uri, manifest["table"])
    data = read_at_most(store, manifest["table"], _LARGEST_FILE)
    if xxhash.xxh3_64_intdigest(data) != manifest["checksum"]:
        raise CatalogError(f"{store.uri}/{manifest['table']}", "does not have the checksum of its manifest", "Use another version.")
    table = read_parquet(
        data, SCHEMA, f"{store.uri}/{manifest['table']}", limit=_LARGEST_IN_MEMORY, mapped_limit=_LARGEST_MAPPED, may_lack=True
    )
    _check(table, manifest)
    if reads_payload:
        check_contained(table, store.uri, trusted)
    logger.info("Loaded catalog %s@%d: %d slices", root, version, table.num_rows)
    return Catalog(table, store.uri, version, manifest)


def commit_catalog(store: Store, table: pa.Table, manifest: Mapping[str, Any]) -> Catalog:
    """Commit the rows as the next version of the store's catalog; all of it or nothing.

    Args:
        store: Where the payload lies too; relative URIs of the rows are keys of it.
        table: Rows as ``SCHEMA``, every one with a split.
        manifest: Plain values to keep beside the rows (settings, rejections, counts, ``leaks`` as ``data.catalog.leaks`` has them);
            ``version``, ``format``, ``table``, ``checksum``, ``num_rows`` and ``columns`` are added.

    Raises:
        CatalogError: The rows are inconsistent.
        LeakageError: A patient is in two splits who is not among the manifest's known leaks.
    """
    for _ in range(_COMMIT_ATTEMPTS):
        catalog = commit_version(store, table, manifest, (_versions(store) or [0])[-1] + 1)
        if catalog is not None:
            return catalog
    raise CatalogError(store.uri, f"was committed to by others {_COMMIT_ATTEMPTS} times in a row", "Run again when they are done.")


def commit_version(store: Store, table: pa.Table, manifest: Mapping[str, Any], version: int) -> Catalog | None:
    """Commit the rows as this very version; return None, with nothing changed, where somebody else has committed it already.

    Arguments and errors are those of ``commit_catalog``.
    """
    table = table.cast(SCHEMA)
    _check(table, manifest)
    sink = pa.BufferOutputStream()
    # Row groups are kept small, and statistics on, so that engines other than ours can prune as well.
    pq.write_table(table, sink, row_group_size=16_384, compression="zstd")
    data = sink.getvalue().to_pybytes()
    checksum = xxhash.xxh3_64_intdigest(data)
    # The token keeps two writers of the same rows apart: the loser removes its own table, never the winner's.
    key = f"catalog/v{version:06d}-{checksum:016x}-{uuid.uuid4().hex[:8]}.parquet"
    store.write(key, data)
    own = {"version": version, "format": CATALOG_FORMAT, "table": key, "checksum": checksum, "num_rows": table.num_rows}
    written = {**manifest, **own, "columns": table.schema.names}
    if not store.write(_manifest_key(version), json.dumps(written, indent=1).encode(), only_if_absent=True):
        store.delete(key)
        return None
    logger.info("Committed catalog %s@%d: %d slices", store.uri, version, table.num_rows)
    return Catalog(table, store.uri, version, written)


def split_version(uri: str) -> tuple[str, int | None]:
    """Split ``uri@3`` into the URI and the version, None where it names none."""
    if not uri:
        raise ConfigError("data.catalog=''", "names no catalog", "Set data.catalog to the URI that prepare wrote to.")
    found = re.fullmatch(r"(.+)@(\d+)", uri)
    return (found.group(1), int(found.group(2))) if found else (uri, None)


def _versions(store: Store) -> list[int]:
    matches = (_MANIFEST.fullmatch(info.key) for info in store.list("catalog/"))
    return sorted(int(found.group(1)) for found in matches if found)


def _manifest_key(version: int) -> str:
    return f"catalog/v{version:06d}.json"


def _read_manifest(store: Store, version: int) -> dict[str, Any]:
    key = _manifest_key(version)
    try:
        manifest: dict[str, Any] = read_json(store, key, _LARGEST_MANIFEST)
        known = (int(manifest["format"]), str(manifest["table"]), int(manifest["checksum"]))
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogError(f"{store.uri}/{key}", f"is not a catalog's manifest ({error!r})", "Use another version.") from error
    if known[0] > CATALOG_FORMAT:
        raise CatalogError(f"{store.uri}/{key}", f"has format {known[0]}, this echotrain reads up to {CATALOG_FORMAT}", "Update echotrain.")
    return manifest


def _check(table: pa.Table, manifest: Mapping[str, Any]) -> None:
    """Refuse rows that nothing could be read from."""
    if table.num_rows == 0:
        raise CatalogError("a catalog of 0 slices", "has nothing to learn from", "See prepare's report for why every scan was left out.")
    for column, allowed in (("split", SPLITS), ("kind", KINDS), ("dtype", ("complex64", "float16"))):
        strange = set(pc.unique(table[column]).to_pylist()) - set(allowed)
        if strange:
            raise CatalogError(f"{column}={sorted(map(str, strange))}", f"must be one of {', '.join(allowed)}", "Prepare the data again.")
    codes = codes_of(table, ["dataset", "volume", "slice", "frame"])[0]
    order = np.argsort(codes, kind="stable")
    twice = order[1:][codes[order[1:]] == codes[order[:-1]]]
    if len(twice):
        sample = SampleId(*taken(table, twice[:1]).select(["dataset", "volume", "slice", "frame"]).to_pylist()[0].values())
        raise CatalogError(str(sample), "is in the catalog twice", "Prepare each volume once.")
    check_no_leakage(table, leaks_of(manifest).patients)
