"""Records to a catalog: duplicates, splits, additions."""

import dataclasses
import random

import pytest

from echotrain.data.assemble import assemble
from echotrain.data.catalog import SCHEMA, Catalog
from echotrain.data.convert import ScanRecord
from echotrain.data.curate import Rejection
from echotrain.data.splits import SplitConfig, check_no_leakage
from echotrain.errors import CatalogError

ROW = {
    field.name: {"string": "", "bool": None}.get(str(field.type), 1)
    for field in SCHEMA
} | {"dataset": "d", "kind": "packed", "dtype": "complex64", "anatomy": "knee"}  # fmt: skip


def record(name: str, patient: str = "", *, content: str = "", num_slices: int = 3, rejections: tuple[Rejection, ...] = ()) -> ScanRecord:
    rows = [{**ROW, "volume": name, "slice": index, "patient": patient or name} for index in range(num_slices)]
    return ScanRecord(
        key=f"k-{name}", source=f"s-{name}", name=name, content=content or f"c-{name}", rows=rows, rejections=list(rejections)
    )


def committed(assembly) -> Catalog:
    manifest = {"scans": assembly.scans, "left_out": [entry.to_dict() for entry in assembly.left_out]}
    return Catalog(assembly.table, "root", 1, manifest)


def splits_of(table) -> dict[str, str]:
    return dict(zip(table["patient"].to_pylist(), table["split"].to_pylist(), strict=True))


def test_every_patient_gets_one_split_and_every_split_somebody():
    records = [record(f"v{index}", f"p{index // 2}") for index in range(40)]
    assembly = assemble(records, None, SplitConfig())
    check_no_leakage(assembly.table)
    assert set(splits_of(assembly.table).values()) == {"train", "val", "test"}
    assert assembly.table.num_rows == 120
    assert assembly.is_changed


def test_the_order_in_which_workers_finish_does_not_matter():
    records = [record(f"v{index}", f"p{index // 2}") for index in range(20)]
    shuffled = random.Random(0).sample(records, len(records))
    assert assemble(records, None, SplitConfig()).table.equals(assemble(shuffled, None, SplitConfig()).table)


def test_of_two_scans_with_one_content_or_one_id_the_first_is_kept_and_the_other_named():
    twin = dataclasses.replace(record("twin", content="c-a"), source="s-twin")
    namesake = dataclasses.replace(record("a", content="other"), source="s-namesake")
    assembly = assemble([record("a"), twin, namesake, record("b")], None, SplitConfig())
    assert sorted(set(assembly.table["volume"].to_pylist())) == ["a", "b"]
    reasons = {entry.source: entry.reason for entry in assembly.left_out}
    assert reasons["s-twin"] == "duplicate of a: the same k-space"
    assert "has the id a already" in reasons["s-namesake"]


def test_added_scans_leave_everybody_in_their_split():
    base = committed(assemble([record(f"v{index}", f"p{index}") for index in range(10)], None, SplitConfig()))
    added = [record("new", "p3"), *(record(f"w{index}", f"q{index}", num_slices=9) for index in range(10))]
    table = assemble(added, base, SplitConfig()).table
    before, after = splits_of(base.table), splits_of(table)
    assert {patient: after[patient] for patient in before} == before
    assert table.num_rows == 30 + 3 + 90
    check_no_leakage(table)


def test_the_same_scans_again_change_nothing():
    records = [record("a"), record("b", rejections=(Rejection(7, "k-space is all zero"),)), record("a2", content="c-a")]
    base = committed(assemble(records, None, SplitConfig()))
    again = assemble(records, base, SplitConfig())
    assert not again.is_changed
    assert again.table.equals(base.table)
    assert len(again.left_out) == 2


def test_a_scan_prepared_with_other_settings_replaces_itself():
    base = committed(assemble([record("a"), record("b")], None, SplitConfig()))
    renewed = dataclasses.replace(record("a", num_slices=2), key="k-a2")
    assembly = assemble([renewed], base, SplitConfig())
    assert assembly.is_changed
    assert assembly.table["volume"].to_pylist() == ["a", "a", "b", "b", "b"]
    assert {scan["key"] for scan in assembly.scans} == {"k-a2", "k-b"}


def test_a_scan_already_in_the_catalog_is_not_added_from_elsewhere():
    base = committed(assemble([record("a")], None, SplitConfig()))
    moved = dataclasses.replace(record("a"), source="s-moved")
    assembly = assemble([moved], base, SplitConfig())
    assert assembly.table.num_rows == 3
    assert assembly.left_out[0].reason.startswith("duplicate of a")


def test_slices_left_out_for_one_reason_are_told_together():
    rejections = (Rejection(3, "zero"), Rejection(5, "zero"), Rejection(6, "nan"))
    left_out = assemble([record("a", rejections=rejections)], None, SplitConfig()).left_out
    assert [(entry.slices, entry.reason) for entry in left_out] == [((3, 5), "zero"), ((6,), "nan")]


def test_a_catalog_of_nothing_is_refused_with_the_reasons():
    bad = record("a", num_slices=0, rejections=(Rejection(None, "3D encode"),))
    with pytest.raises(CatalogError, match="3D encode"):
        assemble([bad], None, SplitConfig())
