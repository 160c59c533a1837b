"""From records of scans to the next version of a catalog: duplicates, splits, and what was left out.

Pure functions: the same records give the same catalog, in whatever order workers finished them.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from echotrain.config import to_dict
from echotrain.data.catalog.leaks import Leaks, find_leaks, leak_notes
from echotrain.data.catalog.rows import SCHEMA, Catalog, splits_of_volumes
from echotrain.data.preparing.convert import ScanRecord
from echotrain.data.preparing.convert_images import IMAGE_CONTENT
from echotrain.data.preparing.identities import (
    inherited_splits,
    is_kept_otherwise,
    keep_ids,
    scan_entry,
    shared_numbers,
    told_apart,
    with_people,
)
from echotrain.data.preparing.people import patients_of
from echotrain.data.preparing.splitting import check_same_split, note_on_patients, with_given_splits
from echotrain.data.splits.given import GivenSplit
from echotrain.data.splits.made import SplitConfig, assign_splits, summarize_patients
from echotrain.errors import CatalogError

__all__ = ["Assembly", "LeftOut", "assemble"]

# Of duplicates in several given splits the one that is trained on least is kept; where splits are made here there is none yet.
_TRAINED_ON = ("", "test", "val", "train")
_HELD_OUT_TOO = "which is kept because it is held out in "


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
        table: Rows with splits, sorted by dataset, volume, slice and frame.
        scans: One entry per kept volume, for the manifest (``identities.scan_entry``).
        left_out: Everything that is not in the table.
        is_changed: Whether it differs from the catalog it is based on.
        notes: What whoever prepares should know of the whole, a sentence each, free of names and identifiers.
        leaks: What lies in two splits although the same patient or the same k-space; no patients where splits were made here.
        split_from: Where the splits come from: the kind of a given split, "" where they were made here.
        shared_numbers: Pseudonyms of patient numbers that stand for several people, told apart by name.
    """

    table: pa.Table
    scans: list[dict[str, Any]]
    left_out: list[LeftOut]
    is_changed: bool
    notes: tuple[str, ...] = ()
    leaks: Leaks = field(default_factory=Leaks)
    split_from: str = ""
    shared_numbers: tuple[str, ...] = ()

    def manifest(self) -> dict[str, Any]:
        """Return its entries of a catalog's manifest."""
        return {
            "scans": self.scans,
            "left_out": [entry.to_dict() for entry in self.left_out],
            "leaks": self.leaks.to_dict(),
            "split_from": self.split_from,
            "shared_numbers": list(self.shared_numbers),
        }


def assemble(records: Sequence[ScanRecord], base: Catalog | None, split: SplitConfig, given: GivenSplit | None = None) -> Assembly:
    """Join new records with an existing catalog.

    A source that was in the catalog before is replaced by its new record, under the volume id that it had. Patients and scans
    that had a split keep it. A patient number that stands over many names says nothing, and the names decide.

    Args:
        records: Of this run, in the order that decides which of two duplicates is kept.
        base: The catalog so far, or None.
        split: How new patients are split, where no split is given.
        given: A split by others, kept as it is: scans that it does not name are left out, and of duplicates in two of its splits the
            one that is held out is kept.

    Raises:
        CatalogError: Nothing is left.
        ConfigError: The catalog's splits come from elsewhere, or the given split differs from what it was.
        LeakageError: A patient would be in two splits that were made here.
    """
    manifest: Mapping[str, Any] = {} if base is None else base.manifest
    if base is not None:
        check_same_split(base, given, records)
    renewed = {record.source for record in records}
    base_scans: Sequence[Mapping[str, Any]] = manifest.get("scans", ())
    records, num_kept = _with_ids(records, base_scans)
    scans = [dict(scan) for scan in base_scans if scan["source"] not in renewed]
    left_out = [_from_dict(entry) for entry in manifest.get("left_out", ()) if entry["source"] not in renewed]
    for record in records:
        left_out += _grouped(record)
    notes: tuple[str, ...] = ()
    if given is not None:
        notes = (*given.notes, *note_on_patients(base, given, records))
        records, unsplit = with_given_splits(records, given)
        left_out += [LeftOut(source=record.source, name=record.name, slices=None, reason=reason) for record, reason in unsplit]
    scans, kept, duplicates = _without_duplicates(records, scans, {} if base is None or given is None else splits_of_volumes(base.table))
    left_out += duplicates
    shared = shared_numbers(scans, manifest.get("shared_numbers", ()))
    table = with_people(_join(base, scans, kept), scans, shared)
    if table.num_rows == 0:
        reasons = sorted({entry.reason for entry in left_out})
        raise CatalogError(
            f"all {len(renewed)} scans were left out",
            f"a catalog needs at least one slice; {'; '.join(reasons)[:600]}",
            "Give other scans.",
        )
    num_torn = 0
    if given is None:
        existing, num_torn = inherited_splits(table, scans, None if base is None else base.table, base_scans)
        table = _with_splits(table, split, existing)
        notes += _note_on_shares(manifest, split)
    leaks = find_leaks(table, scans)
    left_out.sort(key=lambda entry: (entry.name, entry.slices or (), entry.reason))
    assembly = Assembly(
        table,
        sorted(scans, key=lambda scan: scan["source"]),
        left_out,
        is_changed=True,
        notes=(*notes, *_notes_on_people(shared, scans, num_torn, num_kept), *_note_on_duplicates(duplicates), *leak_notes(table, leaks)),
        leaks=leaks,
        split_from="" if given is None else given.kind,
        shared_numbers=tuple(sorted(shared)),
    )
    is_same = (
        base is not None
        and table.equals(base.table)
        and all(assembly.manifest()[name] == manifest.get(name, assembly.manifest()[name]) for name in ("left_out", "leaks"))
        and _people(scans) == _people(base_scans)
    )
    return dataclasses.replace(assembly, is_changed=not is_same)


def _with_ids(records: Sequence[ScanRecord], base_scans: Sequence[Mapping[str, Any]]) -> tuple[list[ScanRecord], int]:
    """Return records under the ids that the catalog gave before, and how many of these would be called otherwise today.

    First come those whose place in the catalog is settled, or a new scan could take the id of one.
    """
    settled = {scan["source"] for scan in base_scans}
    with_ids = keep_ids(records, base_scans)
    num_kept = sum(is_kept_otherwise(record, kept) for record, kept in zip(records, with_ids, strict=True) if kept.rows)
    return sorted(with_ids, key=lambda record: record.source not in settled), num_kept


def _people(scans: Iterable[Mapping[str, Any]]) -> set[tuple[str, ...]]:
    """Return whom the entries name, of each source."""
    return {(scan["source"], scan["person"], scan["born"], *scan["labels"]) for scan in scans if scan.get("person")}


def _notes_on_people(shared: frozenset[str], scans: Sequence[Mapping[str, Any]], num_torn: int, num_kept: int) -> tuple[str, ...]:
    notes = []
    if num_kept:
        which = "1 scan keeps the volume id" if num_kept == 1 else f"{num_kept} scans keep the volume ids"
        notes.append(f"{which} that the catalog gave before, by rules or patterns that differ; prepare into a new place for new ids.")
    if shared:
        people = set(patients_of([scan for scan in scans if scan.get("number") in shared], shared).values())
        which = "1 patient number stands" if len(shared) == 1 else f"{len(shared)} patient numbers stand"
        notes.append(f"{which} over {len(people)} names, so that the names decide who is one patient.")
    if num_torn:
        which = "1 patient turns" if num_torn == 1 else f"{num_torn} patients turn"
        notes.append(
            f"{which} out to have had scans in several splits of the version before; all of them are now in the first of train, val and "
            "test that had one. Do not compare with scores on the earlier version's val and test."
        )
    return tuple(notes)


def _note_on_shares(manifest: Mapping[str, Any], split: SplitConfig) -> tuple[str, ...]:
    before = manifest.get("settings", {}).get("split")
    if before in (None, to_dict(split)):
        return ()
    return ("The catalog's splits were made with other shares, weights or seed: these count for new patients, all others keep theirs.",)


def _note_on_duplicates(duplicates: Sequence[LeftOut]) -> tuple[str, ...]:
    count = sum(_HELD_OUT_TOO in entry.reason for entry in duplicates)
    return (f"{count} scans are in two given splits with the same k-space: only the held-out one of each was kept.",) if count else ()


def _without_duplicates(
    records: Sequence[ScanRecord], scans: Sequence[Mapping[str, Any]], splits: Mapping[tuple[str, str], str]
) -> tuple[list[dict[str, Any]], list[ScanRecord], list[LeftOut]]:
    """Keep one of several scans with one content or one id: the most held out, of the catalog before new ones, then the first.

    Args:
        records: New ones; where the split is given, with their splits.
        scans: Entries of the catalog's scans.
        splits: Of the catalog's volumes where the split is given, else none.

    Returns:
        Entries of all scans that are kept, the records among them, and what was left out.
    """
    candidates = [_Candidate(dict(scan), splits.get((scan["dataset"], scan["volume"]), ""), None) for scan in scans]
    candidates += [_Candidate(scan_entry(record), record.rows[0]["split"], record) for record in records if record.rows]
    candidates.sort(key=lambda candidate: _TRAINED_ON.index(candidate.split))
    in_catalog = {(scan["dataset"], scan["volume"]): scan["content"] for scan in scans}
    contents: dict[str, _Candidate] = {}
    ids: set[tuple[str, str]] = set()
    kept, left_out = [], []
    for found in candidates:
        candidate = _told_apart(found, ids, in_catalog)
        content, identity = candidate.scan["content"], (candidate.scan["dataset"], candidate.scan["volume"])
        first = contents.get(content) if content else None
        # What is in the catalog keeps its id, whatever split a namesake is in, unless the namesake is the same scan, held out.
        is_namesake = candidate.record is not None and identity in in_catalog and not (content and in_catalog[identity] == content)
        if first is not None:
            what = "images" if content.startswith(IMAGE_CONTENT) else "k-space"
            reason = f"duplicate of {first.scan['volume']}: the same {what}"
            left_out.append(candidate.left_out(reason if first.split == candidate.split else f"{reason}, {_HELD_OUT_TOO}{first.split}"))
        elif identity in ids or is_namesake:
            reason = f"another scan of dataset {identity[0]} has the id {identity[1]} already; rename one of them"
            left_out.append(candidate.left_out(reason))
        else:
            kept.append(candidate)
            contents[content] = candidate
            ids.add(identity)
    return [candidate.scan for candidate in kept], [candidate.record for candidate in kept if candidate.record is not None], left_out


class _Candidate(NamedTuple):
    """A scan that may be kept: its entry, its given split or "", and its record unless it is in the catalog already."""

    scan: dict[str, Any]
    split: str
    record: ScanRecord | None

    def left_out(self, reason: str) -> LeftOut:
        return LeftOut(source=self.scan["source"], name=self.scan["volume"], slices=None, reason=reason)


def _told_apart(candidate: _Candidate, ids: set[tuple[str, str]], in_catalog: Mapping[tuple[str, str], str]) -> _Candidate:
    """Give a new scan another pseudonym where that of its name is another scan's."""
    if candidate.record is None:
        return candidate
    content = candidate.record.content
    others = {identity for identity, known in in_catalog.items() if not content or known != content}
    record = told_apart(candidate.record, ids | others)
    return candidate if record is candidate.record else _Candidate(scan_entry(record), candidate.split, record)


def _grouped(record: ScanRecord) -> list[LeftOut]:
    """Join a record's rejections that have one reason."""
    by_reason: dict[str, list[int]] = {}
    frames: dict[tuple[str, int], list[int]] = {}
    whole = []
    for slice_, reason, frame in record.rejections:
        if slice_ is None:
            whole.append(LeftOut(source=record.source, name=record.name, slices=None, reason=reason))
        elif frame is None:
            by_reason.setdefault(reason, []).append(slice_)
        else:
            frames.setdefault((reason, slice_), []).append(frame)
    for (reason, slice_), lost in frames.items():
        by_reason.setdefault(f"{reason} ({_runs(lost)})", []).append(slice_)
    parts = [LeftOut(source=record.source, name=record.name, slices=tuple(slices), reason=reason) for reason, slices in by_reason.items()]
    return whole + parts


def _runs(frames: Sequence[int]) -> str:
    """Return frames, in order, as a phrase: ``frame 3``, ``frames 0 to 4, 7``."""
    runs: list[list[int]] = []
    for frame in frames:
        if runs and frame == runs[-1][1] + 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    named = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in runs)
    return f"frame {named}" if len(frames) == 1 else f"frames {named}"


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
    return table.sort_by([(name, "ascending") for name in ("dataset", "volume", "slice", "frame")]).combine_chunks()


def _with_splits(table: pa.Table, split: SplitConfig, existing: Mapping[str, str]) -> pa.Table:
    assigned = assign_splits(summarize_patients(table), split, existing)
    patients = table["patient"].combine_chunks().dictionary_encode()
    splits = pa.array([assigned[patient] for patient in patients.dictionary.to_pylist()])
    column = pc.take(splits, patients.indices)
    return table.set_column(table.schema.get_field_index("split"), "split", column).cast(SCHEMA)


def _from_dict(entry: Mapping[str, Any]) -> LeftOut:
    slices = entry["slices"]
    return LeftOut(source=entry["source"], name=entry["name"], slices=None if slices is None else tuple(slices), reason=entry["reason"])
