"""What lies in two splits: found, told without names, and known to a catalog for exactly what it is."""

import json

import pyarrow as pa
import pytest

from echotrain.data.catalog.leaks import Leaks, check_no_leakage, find_leaks, leak_notes, leaking_patients, leaks_of, training_warning
from echotrain.data.catalog.rows import Catalog
from echotrain.errors import CatalogError, LeakageError

ROWS = [
    ("d", "v1", "p1", "train"),
    ("d", "v1", "p1", "train"),
    ("d", "v2", "p2", "train"),
    ("d", "v3", "p2", "test"),
    ("e", "v1", "p3", "val"),
]
TABLE = pa.Table.from_pylist([dict(zip(("dataset", "volume", "patient", "split"), row, strict=True)) for row in ROWS])


def scan(dataset: str, volume: str, digit: str) -> dict[str, str]:
    return {"dataset": dataset, "volume": volume, "signature": f"0{digit}00" * 16 if digit else ""}


def test_a_patient_in_two_splits_is_a_leak_and_scans_of_one_split_are_none():
    assert leaking_patients(TABLE) == {"p2": ("test", "train")}


def test_copies_are_found_whatever_their_splits_are_and_counted_where_they_lie_in_two():
    scans = [scan("d", "v1", "1"), scan("d", "v2", "1"), scan("d", "v3", "2"), scan("e", "v1", "2"), {"dataset": "d", "volume": "old"}]
    leaks = find_leaks(TABLE, scans)
    assert leaks == Leaks(patients=("p2",), scaled_copies=((("d", "v1"), ("d", "v2")), (("d", "v3"), ("e", "v1"))))
    patients, copies = leak_notes(TABLE, leaks)
    assert "leaks 1 patients (1 in train and test)" in patients
    assert "4 scans are copies" in copies
    assert "(groups: 2, of these in more than one split: 1)" in copies
    assert not any(name in patients + copies for name in ("p2", "v1"))


def test_leaks_survive_a_manifest_and_a_damaged_one_is_refused():
    leaks = Leaks(patients=("p2",), scaled_copies=((("d", "v1"), ("d", "v2")),))
    assert leaks_of(json.loads(json.dumps({"leaks": leaks.to_dict()}))) == leaks
    assert leaks_of({}) == Leaks()
    for damaged in ([1], {"patients": 3}, {"scaled_copies": [["d"]]}, None):
        with pytest.raises(CatalogError, match="leaks of the catalog's manifest"):
            leaks_of({"leaks": damaged})


def test_known_leaks_pass_and_they_must_be_exactly_those():
    check_no_leakage(TABLE, ["p2"])
    with pytest.raises(LeakageError, match=r"patient 'p2'.*test and train"):
        check_no_leakage(TABLE, ["p1x"])
    with pytest.raises(CatalogError, match=r"patient 'p1'.*known leak"):
        check_no_leakage(TABLE, ["p1", "p2"])


def test_whoever_trains_is_warned_of_what_lies_in_two_splits_and_of_nothing_else():
    within = {"scaled_copies": [[["d", "v1"], ["d", "v2"]]]}
    assert training_warning(Catalog(TABLE, "root", 3, {"leaks": within})) == ""
    assert training_warning(Catalog(TABLE, "root", 3)) == ""
    for leaks in ({"patients": ["p2"]}, {"scaled_copies": [[["d", "v1"], ["e", "v1"]]]}):
        warning = training_warning(Catalog(TABLE, "root", 3, {"leaks": leaks}))
        assert warning.startswith("Catalog root@3: ")
        assert warning.endswith("Held-out figures may be too good.")
