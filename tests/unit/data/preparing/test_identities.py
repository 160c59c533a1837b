"""Who and what a scan is, over the versions of a catalog."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_assemble import committed, record

from echotrain.data.catalog.leaks import check_no_leakage
from echotrain.data.catalog.rows import Catalog
from echotrain.data.formats import Deidentifier
from echotrain.data.formats.deidentify import Identity, is_blank
from echotrain.data.preparing.assemble import assemble
from echotrain.data.splits.given import GivenSplit
from echotrain.data.splits.made import SplitConfig

DEIDENTIFIER = Deidentifier("key")


def scan(name: str, number: str, person: str = "", birth_date: str = "", **changes):
    """Return a record as conversion makes it of a scan with this number and this name in its header."""
    identity = Identity(patient_id=number, patient_name=person, birth_date=birth_date)
    made = record(name, DEIDENTIFIER.patient(identity, name), **changes)
    named = dataclasses.asdict(DEIDENTIFIER.person(identity))
    return dataclasses.replace(made, **named)


PEOPLE = ["Adams^Kim", "Baker^Lee", "Clark^Uma", "Evans^Zoe"]


def version(records, base=None):
    assembly = assemble(records, base, SplitConfig())
    check_no_leakage(assembly.table)
    catalog = committed(assembly)
    catalog.manifest["shared_numbers"] = list(assembly.shared_numbers)
    return catalog, assembly


def split_of(catalog: Catalog, volume: str) -> str:
    return dict(zip(catalog.table["volume"].to_pylist(), catalog.table["split"].to_pylist(), strict=True))[volume]


def patient_of(catalog: Catalog, volume: str) -> str:
    return dict(zip(catalog.table["volume"].to_pylist(), catalog.table["patient"].to_pylist(), strict=True))[volume]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.one_of(st.integers(0, 300).map(str), st.text("aAbB19-_ ", min_size=1, max_size=4)), min_size=1, max_size=12, unique=True)
)
def test_two_scans_of_a_subject_never_leak_however_subjects_are_numbered(numbers):
    numbers = [number for number in numbers if not is_blank(number)] or ["7"]
    records = [scan(f"v{index}_{part}", number, num_slices=1 + index % 3) for index, number in enumerate(numbers) for part in "ab"]
    catalog, _ = version(records)
    for index in range(len(numbers)):
        assert split_of(catalog, f"v{index}_a") == split_of(catalog, f"v{index}_b")
    assert len(set(catalog.table["patient"].to_pylist())) == len({number.strip().casefold() for number in numbers})


def test_a_number_over_three_names_gives_way_to_the_names_and_this_is_told():
    people = ["Doe^Jane", "Roe^Richard", "Poe^Edgar", "Moe^Max"]
    records = [scan(f"v{index}_{part}", "0", person) for index, person in enumerate(people) for part in "ab"]
    catalog, assembly = version(records)
    assert len(set(catalog.table["patient"].to_pylist())) == 4
    assert all(patient_of(catalog, f"v{index}_a") == patient_of(catalog, f"v{index}_b") for index in range(4))
    assert assembly.notes == ("1 patient number stands over 4 names, so that the names decide who is one patient.",)


@pytest.mark.parametrize(
    "people", [["Doe^Jane", "Roe^Jane"], ["Doe^Jane", "DOE JANE", "Jane Doe", "Doe^Jane^Marie"], ["", "xxxx", "Doe^Jane", "Roe^Jane"]]
)
def test_a_marriage_spellings_and_blanks_leave_a_number_one_patient(people):
    catalog, assembly = version([scan(f"v{index}", "4711", person) for index, person in enumerate(people)])
    assert set(catalog.table["patient"].to_pylist()) == {DEIDENTIFIER.patient(Identity(patient_id="4711"), "")}
    assert assembly.notes == ()


SPELLINGS = {
    "visits": ["VOL{i:02d}_visit1", "VOL{i:02d}_visit2", "VOL{i:02d}_visit3"],
    "cut short": ["Doe{a}^Jane", "Doe{a}^J", "Doe{a}", "Doe{a} Jane Mary"],
    "a chain": ["Doe{a}^Jane", "Jane^Roe{a}", "Roe{a}^R", "Rita"],
    "scripts": ["Müller{a}^Jürgen", "Mueller{a}^J", "MULLER{a}", "Juergen Muller{a}"],
    "initials": ["D^J", "Doe{a}^Jane", "Doe{a}", "Jane"],
}


@pytest.mark.parametrize("spellings", SPELLINGS.values(), ids=SPELLINGS.keys())
@pytest.mark.parametrize("at_once", [True, False])
def test_a_patient_of_a_number_of_their_own_is_not_torn_apart_by_spellings_also_when_they_come_later(spellings, at_once):
    names = [[spelling.format(i=i, a="abcdefghi"[i]) for spelling in spellings] for i in range(9)]
    scans = [[scan(f"v{i}_{part}", f"4000{i}", name) for i in range(9) for name in [names[i][part]]] for part in range(len(spellings))]
    catalog, assembly = version([made for step in scans for made in step]) if at_once else (None, None)
    for step in [] if at_once else scans:
        catalog, assembly = version(step, catalog)
    assert len(set(catalog.table["patient"].to_pylist())) == 9
    assert all(len({split_of(catalog, f"v{i}_{part}") for part in range(len(spellings))}) == 1 for i in range(9))
    assert assembly.notes == ()


@pytest.mark.parametrize("number", ["ANON1", "xxxx"])
@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_people_of_one_number_or_of_none_are_one_patient_each_in_every_spelling_and_with_or_without_birth_date(number, order):
    said = [("{0}^{1}", "19760512"), ("{0}^{1}", ""), ("{1} {0}", "1976-05-12"), ("{0}^{1}^{0}ina", "12.05.1976"), ("{0}^{2}", "")]
    scans = [
        scan(f"v{i}_{part}", number, text.format(*(names := person.split("^")), names[1][0]), born)
        for i, person in enumerate(PEOPLE)
        for part, (text, born) in enumerate(said)
    ]
    catalog, _ = version(scans[order])
    assert len(set(catalog.table["patient"].to_pylist())) == 4
    assert all(len({patient_of(catalog, f"v{i}_{part}") for part in range(5)}) == 1 for i in range(4))


def test_namesakes_of_two_birth_dates_are_two_until_a_scan_without_one_leads_from_one_to_the_other():
    pair = [scan("a", "xxxx", "Doe^Jane", "19700314"), scan("b", "xxxx", "Doe^Jane", "19800217")]
    first, _ = version([*pair, scan("c", "8"), scan("d", "9")])
    assert patient_of(first, "a") != patient_of(first, "b")
    second, _ = version([scan("e", "xxxx", "Jane Doe")], first)
    assert patient_of(second, "a") == patient_of(second, "b") == patient_of(second, "e")


def test_three_birth_dates_part_a_number_and_two_do_not():
    dates = ["19700314", "19800217", "19900521"]
    for count, expected in ((2, 1), (3, 3)):
        catalog, _ = version([scan(f"v{i}", "0", "Doe^Jane", dates[i]) for i in range(count)])
        assert len(set(catalog.table["patient"].to_pylist())) == expected


def test_a_leak_of_a_given_split_is_told_though_every_visit_has_a_name_of_its_own():
    splits = ("train", "val", "test")
    scans = [scan(f"v{i}_{part}", f"VOL{i:02d}", f"VOL{i:02d}_visit{part}") for i in range(4) for part in range(3)]
    given_split = GivenSplit(kind="folders", of_sources={record.source: splits[at % 3] for at, record in enumerate(scans)})
    assembly = assemble(scans, None, SplitConfig(), given_split)
    assert len(assembly.leaks.patients) == 4


def test_cmrxrecons_files_of_one_name_are_all_kept():
    scans = [dataclasses.replace(record("P001_cine_sax", "p", content=f"{i}"), source=f"source-{i}") for i in range(3)]
    catalog, assembly = version(scans)
    assert set(catalog.table["volume"].to_pylist()) == {"P001_cine_sax", "volume-1", "volume-2"}
    assert assembly.left_out == []


def test_a_scan_of_a_shared_number_that_names_nobody_stays_with_the_number():
    catalog, _ = version([*(scan(f"v{i}", "0", PEOPLE[i]) for i in range(3)), scan("a", "0"), scan("b", "0")])
    assert patient_of(catalog, "a") == patient_of(catalog, "b") == DEIDENTIFIER.patient(Identity(patient_id="0"), "")


def test_a_person_of_a_shared_number_is_the_same_as_one_without_a_number():
    catalog, _ = version([*(scan(f"v{i}", "0", PEOPLE[i], "19700314") for i in range(3)), scan("a", "xxxx", PEOPLE[1])])
    assert patient_of(catalog, "a") == patient_of(catalog, "v1")


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
def test_a_number_that_turns_out_to_be_shared_later_moves_nobody_and_stays_shared(order):
    names = [PEOPLE[index] for index in order]
    others = [scan(f"o{index}", f"other{index}") for index in range(12)]
    first, _ = version([*others, *(scan(f"v{i}", "0", names[i]) for i in range(2))])
    second, assembly = version([scan(f"v{i}", "0", names[i]) for i in range(2, 4)] + [scan("v0b", "0", names[0])], first)
    assert {split_of(second, f"o{i}") for i in range(12)} == {split_of(first, f"o{i}") for i in range(12)}
    for volume in ("v0", "v1"):
        assert split_of(second, volume) == split_of(first, volume)
    assert patient_of(second, "v0") == patient_of(second, "v0b") != patient_of(second, "v1")
    assert len(assembly.notes) == 1
    # One of the names vanishes with a file that was written anew: who was told apart stays so.
    third, _ = version([scan("v2", "0", names[0], content="anew"), scan("v3", "0", names[0], content="anew too")], second)
    assert patient_of(third, "v1") == patient_of(second, "v1")
    assert patient_of(third, "v2") == patient_of(third, "v3") == patient_of(second, "v0")
    assert all(split_of(third, volume) == split_of(second, volume) for volume in ("v0", "v0b", "v1"))


def test_scans_that_an_earlier_version_took_for_several_patients_come_together_in_the_first_split_and_it_is_told():
    # As catalogs were made when "7" was taken for a blank.
    old = [record(f"v{index}", f"unnamed-{index}") for index in range(40)]
    first, _ = version(old)
    by_split = {split: [v for v in map("v{}".format, range(40)) if split_of(first, v) == split] for split in ("train", "val", "test")}
    pair = [by_split["test"][0], by_split["train"][0]]
    alone = by_split["val"][0]
    renewed = [dataclasses.replace(scan(volume, "7"), key=f"new-{volume}") for volume in pair] + [scan(alone, "8")]
    second, assembly = version(renewed, first)
    assert {split_of(second, volume) for volume in pair} == {"train"}
    assert split_of(second, alone) == "val"
    assert "1 patient turns out to have had scans in several splits" in assembly.notes[0]
    untouched = [f"v{index}" for index in range(40) if f"v{index}" not in pair]
    assert all(split_of(second, volume) == split_of(first, volume) for volume in untouched)


def test_a_source_keeps_the_volume_id_that_the_catalog_has_for_it_and_it_is_told():
    first, _ = version([record("Doe_Jane"), record("b")])
    pseudonym = DEIDENTIFIER.volume("Doe_Jane", Identity())
    renewed = dataclasses.replace(record(pseudonym, "Doe_Jane", num_slices=2), source="s-Doe_Jane")
    newcomer = dataclasses.replace(record("b", content="x"), source="a-first")
    second, assembly = version([newcomer, renewed, record("b")], first)
    assert sorted(second.table["volume"].to_pylist()) == ["Doe_Jane", "Doe_Jane", "b", "b", "b"]
    assert [scan["volume"] for scan in assembly.scans if scan["source"] == "s-Doe_Jane"] == ["Doe_Jane"]
    assert [(entry.source, entry.name) for entry in assembly.left_out] == [("a-first", "b")]
    assert assembly.notes[0].startswith("1 scan keeps the volume id")


def test_files_of_one_name_in_two_folders_are_two_volumes_and_stay_so_in_whatever_order_they_come():
    def made(source, content):
        return dataclasses.replace(record("volume-0123456789ab", source, content=content), source=f"source-{source}")

    first, assembly = version([made("b", "1"), made("c", "2")])
    assert set(first.table["volume"].to_pylist()) == {"volume-0123456789ab", "volume-c"}
    assert assembly.left_out == []
    again, _ = version([made("a", "0"), made("b", "1"), made("c", "2")], first)
    volumes = {scan["source"]: scan["volume"] for scan in again.manifest["scans"]}
    assert volumes == {"source-a": "volume-a", "source-b": "volume-0123456789ab", "source-c": "volume-c"}
    same, assembly = version([made("a", "0"), made("b", "1"), made("c", "2")], again)
    assert not assembly.is_changed
    assert assembly.notes == ()
    assert same.table.equals(again.table)


def test_a_scan_of_a_version_that_listed_no_sources_keeps_its_split_by_its_name():
    records = [record(f"v{index}") for index in range(9)]
    base = Catalog(assemble(records, None, SplitConfig()).table, "root", 1, {})
    second, _ = version([scan(f"v{index}", str(index)) for index in range(9)], base)
    assert all(split_of(second, f"v{index}") == split_of(base, f"v{index}") for index in range(9))
