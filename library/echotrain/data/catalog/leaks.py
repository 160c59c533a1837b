"""What a catalog is known to leak between its splits: told to whoever prepares it and to whoever trains on it.

A split that is made here leaks no patient. One that is given is kept as it is, so that figures are comparable to others' with it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa

from echotrain.data.catalog.rows import SPLITS, Catalog, splits_of_volumes
from echotrain.data.catalog.signature import alike
from echotrain.errors import CatalogError, LeakageError

__all__ = ["Leaks", "check_no_leakage", "find_leaks", "leak_notes", "leaking_patients", "leaks_of", "training_warning"]


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """What lies in more than one split, by the ids that rows have.

    Attributes:
        patients: Pseudonyms of patients with scans in two splits or three.
        scaled_copies: Groups of volumes (dataset, volume) with one k-space up to a constant factor, whatever their splits are.
    """

    patients: tuple[str, ...] = ()
    scaled_copies: tuple[tuple[tuple[str, str], ...], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a manifest."""
        return {"patients": list(self.patients), "scaled_copies": [[list(volume) for volume in group] for group in self.scaled_copies]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from what ``to_dict`` gave, or what JSON made of it.

        Raises:
            ValueError: They are other values.
        """
        try:
            groups = tuple(tuple((str(dataset), str(volume)) for dataset, volume in group) for group in values.get("scaled_copies", ()))
            return cls(patients=tuple(map(str, values.get("patients", ()))), scaled_copies=groups)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"no leaks: {error}") from error


def leaks_of(manifest: Mapping[str, Any]) -> Leaks:
    """Return the leaks that a catalog's manifest names; none in catalogs that are older than this entry.

    Raises:
        CatalogError: The entry is damaged.
    """
    try:
        return Leaks.from_dict(manifest.get("leaks", {}))
    except ValueError as error:
        raise CatalogError("leaks of the catalog's manifest", f"are not to be read ({error})", "Use another version.") from error


def leaking_patients(table: pa.Table) -> dict[str, tuple[str, ...]]:
    """Return the splits of every patient who has more than one, by the patient's pseudonym."""
    pairs = table.select(["patient", "split"]).group_by(["patient", "split"]).aggregate([]).to_pylist()
    splits: dict[str, set[str]] = {}
    for pair in pairs:
        splits.setdefault(pair["patient"], set()).add(pair["split"])
    return {patient: tuple(sorted(found)) for patient, found in sorted(splits.items()) if len(found) > 1}


def find_leaks(table: pa.Table, scans: Sequence[Mapping[str, str]]) -> Leaks:
    """Find what rows with splits leak.

    Args:
        table: Catalog rows.
        scans: Entries of the manifest: dataset, volume and signature of every scan.
    """
    groups = alike([scan.get("signature", "") for scan in scans])
    volumes = (tuple(sorted((scans[position]["dataset"], scans[position]["volume"]) for position in group)) for group in groups)
    return Leaks(patients=tuple(leaking_patients(table)), scaled_copies=tuple(sorted(volumes)))


def leak_notes(table: pa.Table, leaks: Leaks) -> tuple[str, ...]:
    """Return sentences on the leaks of a catalog, free of names and identifiers."""
    notes = []
    if leaks.patients:
        splits = leaking_patients(table)
        pairs = [" and ".join(sorted(splits[patient], key=SPLITS.index)) for patient in leaks.patients]
        counts = ", ".join(f"{pairs.count(pair)} in {pair}" for pair in sorted(set(pairs)))
        notes.append(
            f"The given split leaks {len(leaks.patients)} patients ({counts}): it is kept as it is, and the manifest's leaks name them."
        )
    if leaks.scaled_copies:
        across = _num_across(table, leaks)
        num_scans = sum(len(group) for group in leaks.scaled_copies)
        notes.append(
            f"{num_scans} scans are copies of one another up to a constant factor (groups: {len(leaks.scaled_copies)}, of these in more "
            f"than one split: {across}). All are kept; the manifest's leaks name them."
        )
    return tuple(notes)


def training_warning(catalog: Catalog) -> str:
    """Return what whoever trains on a catalog must know of its splits, "" where they leak nothing."""
    leaks = leaks_of(catalog.manifest)
    if not leaks.patients and not _num_across(catalog.table, leaks):
        return ""
    return f"Catalog {catalog.root}@{catalog.version}: {' '.join(leak_notes(catalog.table, leaks))} Held-out figures may be too good."


def _num_across(table: pa.Table, leaks: Leaks) -> int:
    """Count the groups of copies that lie in more than one split."""
    if not leaks.scaled_copies:
        return 0
    splits = splits_of_volumes(table)
    return sum(len({splits.get(volume) for volume in group}) > 1 for group in leaks.scaled_copies)


def check_no_leakage(table: pa.Table, known: Collection[str] = ()) -> None:
    """Refuse catalog rows in which one patient is in two splits.

    Args:
        table: Rows with splits.
        known: Patients of whom that is known, because their split was given so.

    Raises:
        LeakageError: Naming the patient and the splits.
        CatalogError: A known leak is none, so that what is known is of other rows.
    """
    found = leaking_patients(table)
    leaking = [patient for patient in found if patient not in known]
    if leaking:
        raise LeakageError(
            f"patient {leaking[0]!r} and {len(leaking) - 1} others" if len(leaking) > 1 else f"patient {leaking[0]!r}",
            f"lies in the splits {' and '.join(found[leaking[0]])}",
            "Prepare the data again: splits are made by patient, or given by --split-from, which names its leaks.",
        )
    strange = sorted(set(known) - set(found))
    if strange:
        raise CatalogError(
            f"patient {strange[0]!r}",
            "is named as a known leak, and is in one split or in none",
            "Prepare the data again, or use another version.",
        )
