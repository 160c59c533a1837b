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
from echotrain.data.identities import inherited_splits, is_kept_otherwise, keep_ids, scan_entry, shared_numbers, told_apart, with_people
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
        scans: One entry per kept volume, for the manifest: source, key, content, dataset, volume.
        left_out: Everything that is not in the table.
        is_changed: Whether it differs from the catalog it is based on.
        notes: What whoever prepares should know of the whole, a sentence each, free of names and identifiers.
        shared_numbers: Pseudonyms of patient numbers that stand for several people, told apart by name; kept in the manifest.
    """

    table: pa.Table
    scans: list[dict[str, str]]
    left_out: list[LeftOut]
    is_changed: bool
    notes: tuple[str, ...] = ()
    shared_numbers: tuple[str, ...] = ()


def assemble(records: Sequence[ScanRecord], base: Catalog | None, split: SplitConfig) -> Assembly:
    """Join new records with an existing catalog.

    A source that was in the catalog before is replaced by its new record, under the volume id that it had. Patients and scans
    that had a split keep it. A patient number that stands over many names says nothing, and the names decide.

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
    base_scans: Sequence[Mapping[str, str]] = manifest.get("scans", ())
    # First those whose place in the catalog is settled, or a new scan could take the id of one.
    settled = {scan["source"] for scan in base_scans}
    with_ids = keep_ids(records, base_scans)
    num_kept = sum(is_kept_otherwise(record, kept) for record, kept in zip(records, with_ids, strict=True) if kept.rows)
    records = sorted(with_ids, key=lambda record: record.source not in settled)
    scans = [dict(scan) for scan in base_scans if scan["source"] not in renewed]
    left_out = [_from_dict(entry) for entry in manifest.get("left_out", ()) if entry["source"] not in renewed]
    kept, duplicates = _without_duplicates(records, scans)
    left_out += duplicates
    for record in records:
        left_out += _grouped(record)
    scans = scans + [scan_entry(record) for record in kept]
    shared = shared_numbers(scans, manifest.get("shared_numbers", ()))
    table = with_people(_join(base, scans, kept), scans, shared)
    if table.num_rows == 0:
        reasons = sorted({entry.reason for entry in left_out})
        raise CatalogError(
            f"all {len(records)} scans were left out",
            f"a catalog needs at least one slice; {'; '.join(reasons)[:600]}",
            "Give other scans.",
        )
    existing, num_torn = inherited_splits(table, scans, None if base is None else base.table, base_scans)
    table = _with_splits(table, split, existing)
    left_out.sort(key=lambda entry: (entry.name, entry.slices or (), entry.reason))
    is_changed = (
        base is None
        or not table.equals(base.table)
        or [entry.to_dict() for entry in left_out] != manifest.get("left_out")
        or _people(scans) != _people(base_scans)
    )
    scans.sort(key=lambda scan: scan["source"])
    return Assembly(table, scans, left_out, is_changed, _notes(shared, scans, num_torn, num_kept), tuple(sorted(shared)))


def _without_duplicates(records: Iterable[ScanRecord], scans: Sequence[Mapping[str, str]]) -> tuple[list[ScanRecord], list[LeftOut]]:
    """Keep the first of several records with one content or one id; volumes already in the catalog come first."""
    contents = {scan["content"]: scan["volume"] for scan in scans if scan["content"]}
    ids = {(scan["dataset"], scan["volume"]) for scan in scans}
    kept, left_out = [], []
    for record in records:
        if not record.rows:
            continue
        record = told_apart(record, ids)  # noqa: PLW2901
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


def _people(scans: Iterable[Mapping[str, str]]) -> set[tuple[str, str]]:
    """Return whom the entries name, of each source."""
    return {(scan["source"], scan["person_name"]) for scan in scans if scan.get("person_name")}


def _notes(shared: frozenset[str], scans: Sequence[Mapping[str, str]], num_torn: int, num_kept: int) -> tuple[str, ...]:
    notes = []
    if num_kept:
        which = "1 scan keeps the volume id" if num_kept == 1 else f"{num_kept} scans keep the volume ids"
        notes.append(f"{which} that the catalog gave before, by rules or patterns that differ; prepare into a new place for new ids.")
    if shared:
        people = {scan["person"] for scan in scans if scan.get("number") in shared}
        which = "1 patient number stands" if len(shared) == 1 else f"{len(shared)} patient numbers stand"
        notes.append(f"{which} over {len(people)} names, so that the names decide who is one patient.")
    if num_torn:
        which = "1 patient turns" if num_torn == 1 else f"{num_torn} patients turn"
        notes.append(
            f"{which} out to have had scans in several splits of the version before; all of them are now in the first of train, val and "
            "test that had one. Do not compare with scores on the earlier version's val and test."
        )
    return tuple(notes)


def _join(base: Catalog | None, scans: Sequence[Mapping[str, str]], kept: Sequence[ScanRecord]) -> pa.Table:
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
