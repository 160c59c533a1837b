"""Who and what a scan is across the versions of a catalog: ids that stay, numbers that stand for several people, splits that are inherited.

Pure functions over records and manifest entries; all they see are pseudonyms.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from echotrain.data.catalog.rows import SPLITS
from echotrain.data.formats.deidentify import VOLUME_PREFIX
from echotrain.data.formats.public_names import is_repeated_stem
from echotrain.data.preparing.convert import ScanRecord
from echotrain.data.preparing.people import groups_of, patients_of

__all__ = ["inherited_splits", "is_kept_otherwise", "keep_ids", "scan_entry", "shared_numbers", "told_apart", "with_people"]

VolumeKey = tuple[str, str]
# Two names of one number may be a marriage, or a spelling; three that have nothing in common are what an anonymiser's number has.
_MIN_NAMES = 3


def keep_ids(records: Iterable[ScanRecord], scans: Iterable[Mapping[str, str]]) -> list[ScanRecord]:
    """Give each record the volume id that its source has in the catalog already, however it would be called today.

    Args:
        records: Of this run.
        scans: The manifest's entries.
    """
    known = {scan["source"]: scan["volume"] for scan in scans}
    return [_renamed(record, known.get(record.source, record.name)) for record in records]


def told_apart(record: ScanRecord, taken: set[VolumeKey]) -> ScanRecord:
    """Return a record whose pseudonym no other scan has: folders of several patients hold files of one name.

    An id that is a name, and not a pseudonym, stays: whoever reads it expects the file of that name. CMRxRecon's are no such names, as
    several of its folders hold files of one subject and name.
    """
    is_own_name = not record.name.startswith(VOLUME_PREFIX) and not is_repeated_stem(record.name)
    if not record.rows or is_own_name or (record.rows[0]["dataset"], record.name) not in taken:
        return record
    return _renamed(record, _by_source(record))


def is_kept_otherwise(record: ScanRecord, kept: ScanRecord) -> bool:
    """Say whether a record kept an id that it would not be given today."""
    return kept.name not in (record.name, _by_source(record))


def _renamed(record: ScanRecord, volume: str) -> ScanRecord:
    """Return a record under another volume id."""
    if volume == record.name:
        return record
    return dataclasses.replace(record, name=volume, rows=[{**row, "volume": volume} for row in record.rows])


def shared_numbers(scans: Iterable[Mapping[str, Any]], known: Iterable[str] = ()) -> frozenset[str]:
    """Return the patient numbers that stand over three or more people who have nothing in common: what an anonymiser writes for everybody.

    Args:
        scans: Entries of all scans, with ``number`` and ``person`` where a header has both.
        known: What earlier versions found; it stays so, or whoever was told apart would be merged again.
    """
    named: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for scan in scans:
        if scan.get("person") and scan["person"] != scan["number"]:
            named[scan["number"]].append(scan)
    return frozenset(known) | {number for number, found in named.items() if len(groups_of(found)) >= _MIN_NAMES}


def with_people(table: pa.Table, scans: Sequence[Mapping[str, Any]], shared: frozenset[str]) -> pa.Table:
    """Let the name decide who a scan is of, where its patient number stands for several people or there is none.

    A scan of such a number that names nobody keeps the number, as one patient with all that do so.
    """
    people = patients_of(scans, shared)
    if not people:
        return table
    keys = zip(table["dataset"].to_pylist(), table["volume"].to_pylist(), table["patient"].to_pylist(), strict=True)
    patients = pa.array([people.get((dataset, volume), patient) for dataset, volume, patient in keys], pa.string())
    return table.set_column(table.schema.get_field_index("patient"), "patient", patients)


def inherited_splits(
    table: pa.Table, scans: Iterable[Mapping[str, str]], base: pa.Table | None, base_scans: Sequence[Mapping[str, str]]
) -> tuple[dict[str, str], int]:
    """Return the split of every patient who was in the catalog already, by pseudonym or by a scan, and how many had several.

    A patient's pseudonym may change between versions: a number that was taken for a blank is one now, or the name decides.
    The scans stay where they were. Where scans of several splits turn out to be one person's, all go to the first of train, val
    and test that has one: what was trained on must not come into a test.

    Args:
        table: The rows to be split.
        scans: Their entries, by whose source a volume is known again.
        base: Rows of the catalog so far.
        base_scans: Their entries.
    """
    if base is None:
        return {}, 0
    by_patient = dict(zip(base["patient"].to_pylist(), base["split"].to_pylist(), strict=True))
    by_volume = dict(zip(_keys(base), base["split"].to_pylist(), strict=True))
    before = {scan["source"]: (scan["dataset"], scan["volume"]) for scan in base_scans}
    old_key = {(scan["dataset"], scan["volume"]): before.get(scan["source"]) for scan in scans}
    found: dict[str, set[str]] = defaultdict(set)
    for key, patient in set(zip(_keys(table), table["patient"].to_pylist(), strict=True)):
        # A version that lists no sources still has its volumes' names.
        place = old_key.get(key) if base_scans else key
        splits = (by_patient.get(patient), by_volume.get(place) if place else None)
        found[patient].update(split for split in splits if split is not None)
    first = {patient: min(splits, key=SPLITS.index) for patient, splits in found.items() if splits}
    return first, sum(len(splits) > 1 for splits in found.values())


def _by_source(record: ScanRecord) -> str:
    return f"{VOLUME_PREFIX}{record.source.removeprefix('source-')}"


def _keys(table: pa.Table) -> list[VolumeKey]:
    return list(zip(table["dataset"].to_pylist(), table["volume"].to_pylist(), strict=True))


def scan_entry(record: ScanRecord) -> dict[str, Any]:
    """Return what a manifest keeps of a scan: where it came from, what it is called, and which pseudonyms its header gave."""
    row = record.rows[0]
    entry: dict[str, Any] = {name: getattr(record, name) for name in ("source", "key", "content", "signature", "findings")}
    entry |= {"dataset": row["dataset"], "volume": row["volume"], "slices": len(record.rows)}
    if not record.person:
        return entry
    return entry | {"number": row["patient"]} | {name: getattr(record, name) for name in ("person", "words", "labels", "born")}
