"""Splits of others: by folders, by files, by patients."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echotrain.data.formats import Deidentifier
from echotrain.data.formats.deidentify import Identity
from echotrain.data.splits.given import GivenSplitConfig, find_given_split, split_of_folders, splits_of_files, splits_of_patients
from echotrain.data.splits.lists import Entry, SplitList
from echotrain.errors import ConfigError

SALTED = Deidentifier("secret")


def listed(**entries: str) -> SplitList:
    return SplitList(entries={key: Entry(split, number) for number, (key, split) in enumerate(entries.items(), 1)}, num_repeated=0)


def found(places: list[str], **entries: str) -> dict[str, str]:
    of = splits_of_files(listed(**entries).entries, {f"/root/{place}": place for place in places})
    return {uri.removeprefix("/root/"): entry.split for uri, entry in of.items()}


@pytest.mark.parametrize(
    ("place", "split"),
    [
        *(("multicoil_train/a.h5", "train"), ("multicoil_val/a.h5", "val"), ("multicoil_test/a.h5", "test")),
        *(("singlecoil_train/a.h5", "train"), ("singlecoil_val/x/a.h5", "val"), ("brain/multicoil_test_full/a.h5", "test")),
        *(("knee_multicoil_train_batch_0/a.h5", "train"), ("multicoil_test_v2/a.h5", "test"), ("knee_mri_multicoil_val/a.h5", "val")),
        *(("train/a.h5", "train"), ("val/a.h5", "val"), ("TEST/a.h5", "test"), ("Validation/a.h5", "val"), ("training/p1/a.h5", "train")),
        *(("MultiCoil/Cine/TrainingSet/FullSample/P001/a.h5", "train"), ("MultiCoil/Cine/ValidationSet/P001/a.h5", "val")),
        *(("Cine/TestSet/a.h5", "test"), ("multicoil_train/train/a.h5", "train")),
    ],
)
def test_folders_say_the_split(place, split):
    assert split_of_folders(place) == (split, "")


@pytest.mark.parametrize("place", ["train.h5", "a.h5", "study/train.h5", "traint/a.h5", "trainval/a.h5", "my_train/a.h5"])
def test_other_folders_and_names_of_files_say_none(place):
    assert split_of_folders(place) == (None, "is in no folder of the given split")


@pytest.mark.parametrize(
    "place",
    [
        "anatomy_generalization_challenge/ankle/a.h5",
        "MosaicMRI/contrast_generalization_challenge/T1_FS/a.h5",
        "anatomy_transfer_challenge/ankle/a.h5",
        "multicoil_challenge/a.h5",
        "anatomy_generalization_challenge/multicoil_test/a.h5",
    ],
)
def test_sets_of_further_challenges_are_no_part_of_the_split(place):
    split, reason = split_of_folders(place)
    assert split is None
    assert "prepare its folder alone, with --split 0/0/100" in reason


def test_folders_that_contradict_each_other_are_named_and_nothing_else_is():
    with pytest.raises(ConfigError, match=r"folders multicoil_val/…/train: say different splits") as error:
        split_of_folders("Doe_Jane/doe_multicoil_val/MRN42/train/Doe.h5")
    assert "doe" not in str(error.value).casefold()


@pytest.mark.parametrize("key", ["a.h5", "a", "train/a.h5", "train/a", "./x/train/a.h5", "x\\train\\a", "/root/x/train/a.h5", "x/train/a"])
def test_a_file_is_named_by_its_name_stem_or_path(key):
    assert found(["x/train/a.h5", "x/train/b.h5"], **{key: "val"}) == {"x/train/a.h5": "val"}


def test_a_name_in_two_unicode_spellings_is_one():
    assert found(["u\u0308n.h5"], **{"\u00fcn.h5": "train"}) == {"u\u0308n.h5": "train"}


def test_a_name_of_two_scans_is_ambiguous_unless_it_is_the_whole_path_of_one():
    with pytest.raises(ConfigError, match=r"entry 1 .*fits 2 scans"):
        found(["x/a.h5", "y/a.h5"], a="train")
    assert found(["x/a.h5", "y/a.h5"], **{"x/a": "train", "y/a.h5": "val"}) == {"x/a.h5": "train", "y/a.h5": "val"}
    assert found(["a.h5", "y/a.h5"], a="train") == {"a.h5": "train"}


@pytest.mark.parametrize("places", [["scan.h5", "scan.mrd"], ["scan.mrd", "scan.h5"], ["x/scan.h5", "x/scan.mrd", "y/z/x/scan.h5"]])
def test_a_path_without_its_ending_that_two_files_have_is_ambiguous(places):
    stem = places[0].rpartition(".")[0]
    with pytest.raises(ConfigError, match=r"entry 1 .*fits 2 scans"):
        found(places, **{stem: "val"})
    assert found(places, **dict.fromkeys(places, "val")) == dict.fromkeys(places, "val")


def test_a_file_without_ending_is_itself_and_no_other():
    assert found(["scan", "scan.h5", "x/scan.h5"], scan="val") == {"scan": "val"}


def test_entries_that_put_one_scan_into_two_splits_are_refused():
    with pytest.raises(ConfigError, match=r"entries 1 and 2 .*train and val"):
        found(["x/a.h5"], **{"a": "train", "x/a.h5": "val"})
    assert found(["x/a.h5"], **{"a": "train", "x/a.h5": "train"}) == {"x/a.h5": "train"}


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-c]{1,2}/[a-c]{1,3}\.h5", fullmatch=True), st.sampled_from(["train", "val", "test"])))
def test_whole_paths_never_lead_astray(wanted):
    assert found(list(wanted), **wanted) == wanted


def test_patients_are_known_by_the_pseudonyms_that_their_scans_will_have():
    known = SALTED.patient(Identity(patient_id="0021"), "")
    split = splits_of_patients(listed(**{"0017": "train", " MRN-A ": "val", known: "test"}), SALTED)
    for identity, expected in (("0017", "train"), ("mrn-a", "val"), ("0021", "test"), ("0018", None)):
        assert split.split_of("any source", SALTED.patient(Identity(patient_id=identity), "any volume")) == expected
    assert "0017" not in repr(split)
    assert splits_of_patients(listed(**{"0017": "train"}), Deidentifier("other")).of_patients != {
        SALTED.patient(Identity(patient_id="0017"), ""): "train"
    }


def test_two_spellings_of_a_patient_in_two_splits_are_refused_and_blank_ids_passed_over():
    with pytest.raises(ConfigError, match=r"entries 1 and 2 .*put one patient into train and val"):
        splits_of_patients(listed(**{"mrn-a": "train", "MRN-A": "val"}), SALTED)
    split = splits_of_patients(listed(**{"0000": "train", "0017": "val"}), SALTED)
    assert set(split.of_patients.values()) == {"val"}
    assert "1 entries" in " ".join(split.notes)


def test_a_source_is_split_by_its_folders_and_what_lies_elsewhere_has_a_reason():
    places = {"/d/train/a.h5": "train/a.h5", "/d/other/b.h5": "other/b.h5"}
    split = find_given_split(GivenSplitConfig(kind="folders"), places, SALTED)
    a, b = (SALTED.pseudonym("source", uri) for uri in places)
    assert (split.split_of(a, ""), split.split_of(b, "")) == ("train", None)
    assert split.left_out == {b: "is in no folder of the given split"}
    assert split.reason(b, "") == "is in no folder of the given split"
    with pytest.raises(ConfigError, match="folders: fits none of the 1 scans"):
        find_given_split(GivenSplitConfig(kind="folders"), {"/d/other/b.h5": "other/b.h5"}, SALTED)


def test_a_source_is_split_by_a_list_of_files_and_entries_that_fit_nothing_are_counted(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("file,split\na,train\ngone,val\na,train\n")
    places = {"/d/a.h5": "a.h5", "/d/b.h5": "b.h5"}
    split = find_given_split(GivenSplitConfig(kind="files", uri=str(path)), places, SALTED)
    assert list(split.of_sources.values()) == ["train"]
    assert list(split.left_out.values()) == ["the list of the given split has no entry for this file"]
    assert split.notes == (
        "1 entries of the split list say again what an earlier one says.",
        "1 of the split list's 2 entries fit no file of this source.",
    )
    with pytest.raises(ConfigError, match=r"files .*s\.csv: fits none of the 1 scans"):
        find_given_split(GivenSplitConfig(kind="files", uri=str(path)), {"/d/b.h5": "b.h5"}, SALTED)


@pytest.mark.parametrize(("kind", "uri"), [("folder", ""), ("folders", "s.csv"), ("files", ""), ("patients", "")])
def test_a_split_is_from_folders_or_from_a_list(kind, uri):
    with pytest.raises(ConfigError, match="Write folders, files=URI or patients=URI"):
        GivenSplitConfig(kind=kind, uri=uri)


def test_keys_that_differ_by_a_slash_alone_are_told_apart_by_their_whole_paths():
    places = ["x/a.h5", "x//a.h5", "/b.h5"]
    assert found(places, **{"x//a.h5": "val", "x/a.h5": "train", "/b.h5": "test"}) == dict(
        zip(places, ("train", "val", "test"), strict=True)
    )
    assert found(places, **{"x//a.h5": "val"}) == {"x//a.h5": "val"}
    with pytest.raises(ConfigError, match=r"entry 1 of the split list: fits 2 scans"):
        found(places, **{"a.h5": "val"})
