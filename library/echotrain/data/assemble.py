"""From records of scans to the next version of a catalog: duplicates, splits, and what was left out.

Pure functions: the same records give the same catalog, in whatever order workers finished them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from echotrain.data.catalog import SCHEMA, Catalog
from echotrain.data.convert import ScanRecord
from echotrain.data.splits import SplitConfig, assign_splits, summarize_patients
from echotrain.errors import CatalogError

__all__ = ["Assembly", "LeftOut", "assemble"]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Something that is not in the catalog, and why.

    Attributes:
        source: Pseudonym of the source's URI.
        name: The volume's id, or a pseudonym.
        slices: Slice indices, or None for the whole volume.
        reason: Why.
    """

    source: str
    name: str
    slices: tuple[int, ...] | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a manifest."""
        return {
            "source": self.source,
            "name": self.name,
            "slices": None if self.slices is None else list(self.slices),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Assembly:
    """A catalog ready to be committed.

    Attributes:
        table: Rows with splits, sorted by dataset, volume and slice.
        scans: One entry per kept volume, for the manifest: source, key, content, dataset, volume, kept slices, findings.
        left_out: Everything that is not in the table.
        is_changed: Whether it differs from the catalog it is based on.
        notes: What whoever prepares should know of the whole, a sentence each, free of names and identifiers.
    """

    table: pa.Table
    scans: list[dict[str, Any]]
    left_out: list[LeftOut]
    is_changed: bool
    notes: tuple[str, ...] = ()


def assemble(records: Sequence[ScanRecord], base: Catalog | None, split: SplitConfig) -> Assembly:
    """Join new records with an existing catalog.

    A source that was in the catalog before is replaced by its new record. Patients that had a split keep it.

    Args:
        records: Of this run, in the order that decides which of two duplicates is kept.
        base: The catalog so far, or None.
        split: How new patients are split.

    Raises:
        CatalogError: Nothing is left.
        LeakageError: A patient would be in two splits.
    """
    manifest: Mapping[str, Any] = {} if base is None else base.manifest
    renewed = {record.source for record in records}
    scans = [scan for scan in manifest.get("scans", ()) if scan["source"] not in renewed]
    left_out = [_from_dict(entry) for entry in manifest.get("left_out", ()) if entry["source"] not in renewed]
    kept, duplicates = _without_duplicates(records, scans)
    left_out += duplicates
    for record in records:
        left_out += _grouped(record)
    scans = scans + [_scan_entry(record) for record in kept]
    table = _join(base, scans, kept)
    if table.num_rows == 0:
        reasons = sorted({entry.reason for entry in left_out})
        raise CatalogError(
            f"all {len(records)} scans were left out",
            f"a catalog needs at least one slice; {'; '.join(reasons)[:600]}",
            "Give other scans.",
        )
    existing = {} if base is None else dict(zip(base.table["patient"].to_pylist(), base.table["split"].to_pylist(), strict=True))
    table = _with_splits(table, split, existing)
    left_out.sort(key=lambda entry: (entry.name, entry.slices or (), entry.reason))
    is_changed = base is None or not table.equals(base.table) or [entry.to_dict() for entry in left_out] != manifest.get("left_out")
    return Assembly(table, sorted(scans, key=lambda scan: scan["source"]), left_out, is_changed)


def _without_duplicates(records: Iterable[ScanRecord], scans: Sequence[Mapping[str, Any]]) -> tuple[list[ScanRecord], list[LeftOut]]:
    """Keep the first of several records with one content or one id; volumes already in the catalog come first."""
    contents = {scan["content"]: scan["volume"] for scan in scans if scan["content"]}
    ids = {(scan["dataset"], scan["volume"]) for scan in scans}
    kept, left_out = [], []
    for record in records:
        if not record.rows:
            continue
        identity = (record.rows[0]["dataset"], record.name)
        if record.content and record.content in contents:
            reason = f"duplicate of {contents[record.content]}: the same k-space"
        elif identity in ids:
            reason = f"another scan of dataset {identity[0]} has the id {record.name} already; rename one of them"
        else:
            kept.append(record)
            contents[record.content] = record.name
            ids.add(identity)
            continue
        left_out.append(LeftOut(source=record.source, name=record.name, slices=None, reason=reason))
    return kept, left_out


def _grouped(record: ScanRecord) -> list[LeftOut]:
    """Join a record's rejections that have one reason."""
    by_reason: dict[str, list[int]] = {}
    whole = []
    for slice_, reason in record.rejections:
        if slice_ is None:
            whole.append(LeftOut(source=record.source, name=record.name, slices=None, reason=reason))
        else:
            by_reason.setdefault(reason, []).append(slice_)
    parts = [LeftOut(source=record.source, name=record.name, slices=tuple(slices), reason=reason) for reason, slices in by_reason.items()]
    return whole + parts


def _scan_entry(record: ScanRecord) -> dict[str, Any]:
    row = record.rows[0]
    identity = {"source": record.source, "key": record.key, "content": record.content, "dataset": row["dataset"], "volume": row["volume"]}
    return {**identity, "slices": len(record.rows), "findings": record.findings}


def _join(base: Catalog | None, scans: Sequence[Mapping[str, Any]], kept: Sequence[ScanRecord]) -> pa.Table:
    """Return the rows of all scans: those of the base that were not renewed, and the new ones."""
    fresh = pa.Table.from_pylist([row for record in kept for row in record.rows], schema=SCHEMA)
    if base is None:
        return _sorted(fresh)
    renewed = {(row["dataset"], row["volume"]) for record in kept for row in record.rows}
    valid = {(scan["dataset"], scan["volume"]) for scan in scans} - renewed
    pairs = zip(base.table["dataset"].to_pylist(), base.table["volume"].to_pylist(), strict=True)
    is_valid = np.array([pair in valid for pair in pairs], dtype=bool)
    return _sorted(pa.concat_tables([base.table.filter(pa.array(is_valid)), fresh]))


def _sorted(table: pa.Table) -> pa.Table:
    return table.sort_by([("dataset", "ascending"), ("volume", "ascending"), ("slice", "ascending")]).combine_chunks()


def _with_splits(table: pa.Table, split: SplitConfig, existing: Mapping[str, str]) -> pa.Table:
    assigned = assign_splits(summarize_patients(table), split, existing)
    patients = table["patient"].combine_chunks().dictionary_encode()
    splits = pa.array([assigned[patient] for patient in patients.dictionary.to_pylist()])
    column = pc.take(splits, patients.indices)
    return table.set_column(table.schema.get_field_index("split"), "split", column).cast(SCHEMA)


def _from_dict(entry: Mapping[str, Any]) -> LeftOut:
    slices = entry["slices"]
    return LeftOut(source=entry["source"], name=entry["name"], slices=None if slices is None else tuple(slices), reason=entry["reason"])
