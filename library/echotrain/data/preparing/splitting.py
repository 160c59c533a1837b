"""Giving records the splits that others gave, and holding those of a catalog to what they were."""

import dataclasses
from collections.abc import Sequence

from echotrain.data.catalog.rows import Catalog, splits_of_volumes
from echotrain.data.preparing.convert import ScanRecord
from echotrain.data.splits.given import GivenSplit
from echotrain.errors import ConfigError

__all__ = ["check_same_split", "note_on_patients", "with_given_splits"]


def with_given_splits(records: Sequence[ScanRecord], given: GivenSplit) -> tuple[list[ScanRecord], list[tuple[ScanRecord, str]]]:
    """Return the records with their rows' splits, and those without a split with the reason.

    Raises:
        ConfigError: The split names none of the scans that could be read.
    """
    taken, unsplit = [], []
    for record in records:
        if not record.rows:
            taken.append(record)
            continue
        patient = record.rows[0]["patient"]
        split = given.split_of(record.source, patient)
        if split is None:
            unsplit.append((record, given.reason(record.source, patient)))
        else:
            taken.append(dataclasses.replace(record, rows=[{**row, "split": split} for row in record.rows]))
    if unsplit and not any(record.rows for record in taken):
        raise ConfigError(
            f"the split from {given.kind}",
            f"fits none of the {len(unsplit)} scans that could be read: {unsplit[0][1]}",
            "Write ids as the scans' headers have them; pseudonyms are those of this salt.",
        )
    return taken, unsplit


def note_on_patients(base: Catalog | None, given: GivenSplit, records: Sequence[ScanRecord]) -> tuple[str, ...]:
    """Say how many patients of a given split have no scan, neither of this run nor of the catalog; files are counted when they are read."""
    here = {row["patient"] for record in records for row in record.rows}
    here.update(() if base is None else base.table["patient"].to_pylist())
    count = len(given.of_patients.keys() - here)
    return (f"{count} of the split list's {len(given.of_patients)} patients fit no scan that could be read.",) if count else ()


def check_same_split(base: Catalog, given: GivenSplit | None, records: Sequence[ScanRecord]) -> None:
    """Refuse to add to a catalog by another rule than its own: it would mix two splits, of which neither could be compared with anything.

    Args:
        base: The catalog.
        given: The split of this run, None where it is made here.
        records: Of this run.

    Raises:
        ConfigError: The splits come from elsewhere, or say another split, or none, of something in the catalog.
    """
    before, now = base.manifest.get("split_from", ""), "" if given is None else given.kind
    if before != now:
        how = [f"from {kind}" if kind else "by prepare itself" for kind in (before, now)]
        remedy = f"Give --split-from {before}{'' if before == 'folders' else '=URI'}" if before else "Leave out --split-from"
        raise ConfigError(f"splits {how[1]}", f"{base.root} was split {how[0]}", f"{remedy}, or prepare into another place.")
    if given is None:
        return
    changed = _changed_patients(base, given, records) if given.kind == "patients" else _changed_scans(base, given, records)
    if changed:
        raise ConfigError(
            f"the split from {given.kind}",
            f"says another split than {base.root}, or none, of {changed} of its {'patients' if given.kind == 'patients' else 'scans'}",
            "Add to a split without changing it, or prepare into another place.",
        )


def _changed_scans(base: Catalog, given: GivenSplit, records: Sequence[ScanRecord]) -> int:
    """Count the catalog's scans of this run that are given another split than they have, or none."""
    volumes = splits_of_volumes(base.table)
    kept = {scan["source"]: volumes.get((scan["dataset"], scan["volume"])) for scan in base.manifest.get("scans", ())}
    # A scan that cannot be read any more is no contradiction.
    asked = (record for record in records if record.source in kept and (record.rows or record.source in given.left_out))
    return sum(given.split_of(record.source, "") != kept[record.source] for record in asked)


def _changed_patients(base: Catalog, given: GivenSplit, records: Sequence[ScanRecord]) -> int:
    """Count the catalog's patients who are listed with another split, or who have scans in this run and are not listed."""
    here = {row["patient"] for record in records for row in record.rows}
    pairs = base.table.select(["patient", "split"]).group_by(["patient", "split"]).aggregate([]).to_pylist()
    listed = given.of_patients
    return sum(listed.get(pair["patient"], None if pair["patient"] in here else pair["split"]) != pair["split"] for pair in pairs)
