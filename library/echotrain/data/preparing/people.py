"""Who is one person, by the pseudonyms of names' words and of birth dates: groups that relate, whatever led from one to the other.

To tear a person apart leaks into a test; to take two for one only unbalances the splits. So in doubt two headers are one person's.
Pure functions over manifest entries (``identities.scan_entry``).
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["groups_of", "patients_of"]

Scan = Mapping[str, Any]


def groups_of(scans: Iterable[Scan]) -> list[list[Scan]]:
    """Return people: groups of entries that relate, each with one entry for all that say the same.

    Scans of one patient number relate where their names share a word, or one's word is an initial or the beginning of the other's, or one
    has no word of its own. Without a number in common every word of the shorter name has to fit one of the longer's. Two birth dates
    that differ part them, unless a third scan leads from one to the other.

    Args:
        scans: Entries with ``person``.
    """
    distinct = list({_says(scan): scan for scan in scans}.values())
    parents = list(range(len(distinct)))

    def root(at: int) -> int:
        while parents[at] != at:
            parents[at] = parents[parents[at]]
            at = parents[at]
        return at

    for at, other in _candidates(distinct):
        first, second = root(at), root(other)
        if first != second and _relate(distinct[at], distinct[other]):
            parents[max(first, second)] = min(first, second)
    groups: dict[int, list[Scan]] = defaultdict(list)
    for at, scan in enumerate(distinct):
        groups[root(at)].append(scan)
    return list(groups.values())


def patients_of(scans: Sequence[Scan], shared: frozenset[str]) -> dict[tuple[str, str], str]:
    """Return the patient of every volume whose name decides: of a number that several people share, or of none.

    Args:
        scans: Entries of all scans.
        shared: Numbers that stand for several people.
    """
    pool = [scan for scan in scans if scan.get("person") and (not _number(scan) or _number(scan) in shared)]
    groups = groups_of(pool)
    names = [min(scan["person"] for scan in group) for group in groups]
    patients: dict[tuple[str, ...], str] = {}
    for group, name in zip(groups, names, strict=True):
        # Namesakes of different birth dates.
        born = min((scan["born"] for scan in group if scan["born"]), default="")
        patient = name if names.count(name) == 1 else f"patient-{hashlib.blake2b(f'{name} {born}'.encode(), digest_size=6).hexdigest()}"
        patients |= {_says(scan): patient for scan in group}
    return {(scan["dataset"], scan["volume"]): patients[_says(scan)] for scan in pool}


def _says(scan: Scan) -> tuple[str, ...]:
    return (_number(scan), scan["person"], scan["born"], *scan["labels"])


def _number(scan: Scan) -> str:
    """Return the patient number's pseudonym; "" where the header has a name alone."""
    number: str = scan["number"]
    return "" if number == scan["person"] else number


def _candidates(scans: Sequence[Scan]) -> Iterable[tuple[int, int]]:
    """Yield pairs that may relate: they have a label, a word or a word's beginning in common, or one of them has no word, in one number."""
    by_key: dict[str, set[int]] = defaultdict(set)
    by_number: dict[str, list[int]] = defaultdict(list)
    for at, scan in enumerate(scans):
        by_number[_number(scan)].append(at)
        for key in {*scan["labels"], *(word[0] for word in scan["words"])}:
            by_key[key].add(at)
    for at, scan in enumerate(scans):
        keys = {*scan["labels"], *(part for word in scan["words"] for part in word)}
        found = {other for key in keys for other in by_key.get(key, ())}
        if not scan["words"]:
            found.update(by_number[_number(scan)])
        yield from ((at, other) for other in sorted(found) if other != at)


def _relate(first: Scan, second: Scan) -> bool:
    if first["born"] and second["born"] and first["born"] != second["born"]:
        return False
    few, many = sorted((first["words"], second["words"]), key=len)
    if _number(first) and _number(first) == _number(second):
        return not few or any(_fit(word, other) for word in few for other in many)
    if first["person"] == second["person"]:
        return True
    if not few:
        return bool(set(first["labels"]) & set(second["labels"]))
    return all(any(_fit(word, other) for other in many) for word in few)


def _fit(word: Sequence[str], other: Sequence[str]) -> bool:
    """Say whether two words are one, or one is the beginning of the other; each is its pseudonym, then those of its beginnings."""
    return word[0] in other or other[0] in word
