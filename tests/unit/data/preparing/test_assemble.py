"""Records to a catalog: duplicates, splits, additions."""

import dataclasses
import random

import pytest

from echotrain.config import to_dict
from echotrain.data.catalog.leaks import check_no_leakage
from echotrain.data.catalog.rows import SCHEMA, Catalog
from echotrain.data.preparing.assemble import assemble
from echotrain.data.preparing.convert import ScanRecord
from echotrain.data.preparing.curate import Rejection
from echotrain.data.splits.given import GivenSplit
from echotrain.data.splits.made import SplitConfig
from echotrain.errors import CatalogError, ConfigError

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
    return Catalog(assembly.table, "root", 1, assembly.manifest())


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


def given_by_files(**splits: str) -> GivenSplit:
    return GivenSplit(kind="files", of_sources={f"s-{name}": split for name, split in splits.items()})


def by_volume(assembly) -> dict[str, str]:
    return dict(zip(assembly.table["volume"].to_pylist(), assembly.table["split"].to_pylist(), strict=True))


def reasons_of(assembly) -> dict[str, str]:
    return {entry.source: entry.reason for entry in assembly.left_out}


def test_a_given_split_is_kept_as_it_is_and_its_leaking_patients_are_named():
    records = [record("a", "p1"), record("b", "p1"), record("c", "p2"), record("d", "p3")]
    assembly = assemble(records, None, SplitConfig(), given_by_files(a="train", b="test", c="train", d="val"))
    assert by_volume(assembly) == {"a": "train", "b": "test", "c": "train", "d": "val"}
    assert assembly.leaks.patients == ("p1",)
    assert assembly.split_from == "files"
    assert "leaks 1 patients (1 in train and test)" in " ".join(assembly.notes)
    check_no_leakage(assembly.table, assembly.leaks.patients)


def test_scans_that_a_given_split_does_not_name_are_left_out_with_the_reason():
    assembly = assemble([record("a"), record("b")], None, SplitConfig(), given_by_files(a="val"))
    assert by_volume(assembly) == {"a": "val"}
    assert reasons_of(assembly) == {"s-b": "the list of the given split has no entry for this file"}
    with pytest.raises(ConfigError, match="files: fits none of the 1 scans that could be read"):
        assemble([record("b")], None, SplitConfig(), given_by_files(a="val"))


def test_a_given_split_of_patients_is_by_the_patients_of_the_rows():
    given = GivenSplit(kind="patients", of_patients={"p1": "test"})
    assembly = assemble([record("a", "p1"), record("b", "p2"), record("c", "unnamed-1")], None, SplitConfig(), given)
    assert by_volume(assembly) == {"a": "test"}
    assert reasons_of(assembly) == {
        "s-b": "the list of the given split has no entry for this patient",
        "s-c": "names no patient, and the given split is by patients",
    }
    assert assembly.notes == ()


def test_patients_of_a_given_split_who_have_no_scan_are_counted_those_of_the_catalog_not_among_them():
    listed = {"p1": "test", "p2": "train", **{f"absent-{n}": "train" for n in range(50)}}
    first = assemble([record("a", "p1")], None, SplitConfig(), GivenSplit(kind="patients", of_patients=listed))
    assert first.notes == ("51 of the split list's 52 patients fit no scan that could be read.",)
    second = assemble([record("b", "p2")], committed(first), SplitConfig(), GivenSplit(kind="patients", of_patients=listed))
    assert second.notes == ("50 of the split list's 52 patients fit no scan that could be read.",)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_of_one_kspace_in_several_given_splits_the_most_held_out_is_kept(order):
    records = [record(name, content="same") for name in ("a", "b", "c")]
    given = given_by_files(a="train", b="val", c="test")
    assembly = assemble(
        [*(records[i] for i in order), record("d")],
        None,
        SplitConfig(),
        GivenSplit(kind="files", of_sources={**given.of_sources, "s-d": "train"}),
    )
    assert by_volume(assembly) == {"c": "test", "d": "train"}
    assert reasons_of(assembly)["s-a"] == "duplicate of c: the same k-space, which is kept because it is held out in test"
    assert "2 scans are in two given splits" in " ".join(assembly.notes)


def test_a_held_out_copy_that_comes_later_takes_the_place_of_the_one_that_was_trained_on():
    base = committed(assemble([record("a"), record("b")], None, SplitConfig(), given_by_files(a="train", b="train")))
    moved = dataclasses.replace(record("a"), source="s-moved")
    assembly = assemble([moved], base, SplitConfig(), given_by_files(moved="test"))
    assert by_volume(assembly) == {"a": "test", "b": "train"}
    assert [scan["source"] for scan in assembly.scans] == ["s-b", "s-moved"]
    assert "held out in test" in reasons_of(assembly)["s-a"]
    back = assemble([dataclasses.replace(record("a"), source="s-third")], committed(assembly), SplitConfig(), given_by_files(third="train"))
    assert by_volume(back) == {"a": "test", "b": "train"}


@pytest.mark.parametrize("content", ["", "other"])
def test_a_namesake_in_a_held_out_split_takes_no_place_in_the_catalog(content):
    first = dataclasses.replace(record("a"), content=content and "c-a")
    base = committed(assemble([first], None, SplitConfig(), given_by_files(a="train")))
    namesake = dataclasses.replace(record("a"), source="s-namesake", content=content)
    assembly = assemble([namesake], base, SplitConfig(), given_by_files(namesake="test"))
    assert by_volume(assembly) == {"a": "train"}
    assert "has the id a already" in reasons_of(assembly)["s-namesake"]


def test_copies_up_to_a_factor_are_told_whoever_made_the_splits_and_all_kept():
    records = [dataclasses.replace(record(f"v{index}"), signature="0123" * 16 if index < 2 else f"{index:04x}" * 16) for index in range(9)]
    for given in (None, GivenSplit(kind="files", of_sources={f"s-v{index}": ("train", "val")[index % 2] for index in range(9)})):
        assembly = assemble(records, None, SplitConfig(), given)
        assert assembly.leaks.scaled_copies[0][:2] == (("d", "v0"), ("d", "v1"))
        assert "scans are copies of one another" in " ".join(assembly.notes)
        assert len(set(assembly.table["volume"].to_pylist())) == 9


def test_a_grown_list_adds_to_the_catalog_and_the_same_one_changes_nothing():
    base = committed(assemble([record("a"), record("b")], None, SplitConfig(), given_by_files(a="train", b="val")))
    again = assemble([record("a"), record("b")], base, SplitConfig(), given_by_files(a="train", b="val"))
    assert not again.is_changed
    grown = assemble([record("a"), record("b"), record("c")], base, SplitConfig(), given_by_files(a="train", b="val", c="test"))
    assert grown.is_changed
    assert by_volume(grown) == {"a": "train", "b": "val", "c": "test"}


@pytest.mark.parametrize("split", ["val", None])
def test_a_list_that_says_otherwise_than_the_catalog_is_refused(split):
    base = committed(assemble([record("a"), record("b")], None, SplitConfig(), given_by_files(a="train", b="val")))
    changed = given_by_files(b="val") if split is None else given_by_files(a=split, b="val")
    with pytest.raises(ConfigError, match="says another split than root, or none, of 1 of its scans"):
        assemble([record("a"), record("b"), record("c")], base, SplitConfig(), changed)
    # What was known beforehand to have no split comes without rows.
    unread = dataclasses.replace(record("a", num_slices=0), rows=[])
    with pytest.raises(ConfigError, match="of 1 of its scans"):
        assemble([unread, record("b")], base, SplitConfig(), dataclasses.replace(given_by_files(b="val"), left_out={"s-a": "no entry"}))


def test_a_catalog_is_not_split_by_two_rules():
    made = committed(assemble([record("a")], None, SplitConfig()))
    given = committed(assemble([record("a")], None, SplitConfig(), given_by_files(a="val")))
    with pytest.raises(ConfigError, match=r"splits from files: root was split by prepare itself\. Leave out --split-from"):
        assemble([record("b")], made, SplitConfig(), given_by_files(b="val"))
    with pytest.raises(ConfigError, match=r"splits by prepare itself: root was split from files\. Give --split-from files=URI"):
        assemble([record("b")], given, SplitConfig())
    with pytest.raises(ConfigError, match="splits from patients: root was split from files"):
        assemble([record("b", "p")], given, SplitConfig(), GivenSplit(kind="patients", of_patients={"p": "val"}))
    # Catalogs from before there were given splits were split by prepare.
    old = Catalog(made.table, "root", 1, {name: made.manifest[name] for name in ("scans", "left_out")})
    assert assemble([record("b")], old, SplitConfig()).table.num_rows == 6


def test_other_shares_are_told_because_they_count_for_new_patients_alone():
    made = assemble([record("a")], None, SplitConfig())
    settings = {"split": to_dict(SplitConfig())}
    base = Catalog(made.table, "root", 1, {**made.manifest(), "settings": settings})
    assert assemble([record("b")], base, SplitConfig()).notes == ()
    assert "these count for new patients" in assemble([record("b")], base, SplitConfig(ratios=(1, 0, 0))).notes[0]


def test_a_list_that_says_otherwise_of_a_patient_is_refused_wherever_the_patients_scans_lie():
    def given_by_patients(**splits: str) -> GivenSplit:
        return GivenSplit(kind="patients", of_patients=splits)

    base = committed(assemble([record("a", "p1"), record("b", "p2")], None, SplitConfig(), given_by_patients(p1="train", p2="val")))
    elsewhere = [record("c", "p3")]
    grown = assemble(elsewhere, base, SplitConfig(), given_by_patients(p3="test"))
    assert by_volume(grown) == {"a": "train", "b": "val", "c": "test"}
    for changed in (given_by_patients(p1="val", p3="test"), given_by_patients(p1="train", p2="test", p3="test")):
        with pytest.raises(ConfigError, match="of 1 of its patients"):
            assemble(elsewhere, base, SplitConfig(), changed)
    with pytest.raises(ConfigError, match="of 1 of its patients"):
        assemble([record("a", "p1"), record("b", "p2")], base, SplitConfig(), given_by_patients(p2="val"))


def test_a_catalog_of_the_first_version_grows_and_keeps_its_ids_and_splits():
    names = [f"knee{index}" for index in range(12)]
    first = assemble([record(name) for name in names], None, SplitConfig())
    keys = ("source", "key", "content", "dataset", "volume")
    scans = [{key: entry[key] for key in keys} for entry in first.scans]
    old = Catalog(first.table, "root", 1, {"scans": scans, "left_out": []})
    # Prepared again the first six would be called otherwise today, and one is new.
    renewed = [dataclasses.replace(record(f"volume-{index:012x}", name), source=f"s-{name}") for index, name in enumerate(names[:6])]
    table = assemble([*renewed, record("new")], old, SplitConfig()).table
    assert set(table["volume"].to_pylist()) == {*names, "new"}
    before = splits_of(first.table)
    assert {patient: split for patient, split in splits_of(table).items() if patient in before} == before
