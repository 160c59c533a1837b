"""Lists of splits as people write them, and every way in which they may be wrong."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echotrain.data.splits import lists as split_lists
from echotrain.data.splits.lists import parse_split_list, read_split_list, split_named
from echotrain.errors import ConfigError

EXPECTED = {"a.h5": "train", "b": "val", "x/c.h5": "test"}


def entries(text: str | bytes, uri: str = "list.csv", kind: str = "files") -> dict[str, str]:
    listed = parse_split_list(text.encode() if isinstance(text, str) else text, uri, kind)
    return {key: entry.split for key, entry in listed.entries.items()}


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("s.csv", "file,split\na.h5,train\nb,val\nx/c.h5,test\n"),
        ("s.csv", "\ufefffile,split\r\na.h5,train\r\n\r\nb,val\r\nx/c.h5,test"),
        ("s.csv", "Split;patient;Filename\ntraining;7;a.h5\nVal;8;b\nTestSet;9;x/c.h5\n"),
        ("S.TSV", 'path\tpartition\n"a.h5"\tTrain\nb\tvalidation\nx/c.h5\ttesting\n'),
        ("s.json", json.dumps(EXPECTED)),
        ("s.json", json.dumps({"training": ["a.h5"], "val": ["b"], "test": ["x/c.h5"]})),
        ("s.json", json.dumps([{"file": key, "split": split, "more": 1} for key, split in EXPECTED.items()])),
    ],
)
def test_a_list_is_read_from_every_form(uri, text):
    assert entries(text, uri) == EXPECTED


def test_patients_may_be_numbers_and_are_kept_as_they_are_written():
    assert entries('{"train": [7, "0017"], "val": [8]}', "p.json", "patients") == {"7": "train", "0017": "train", "8": "val"}
    assert entries("patient_id,split\n0017,train\n7,val\n", kind="patients") == {"0017": "train", "7": "val"}


def test_what_is_said_again_is_counted_and_entries_know_their_numbers():
    listed = parse_split_list(b"file,split\na,train\nb,val\na,training\n", "s.csv", "files")
    assert listed.num_repeated == 1
    assert listed.entries == {"a": ("train", 1), "b": ("val", 2)}


SECRET = "Doe_Jane"


@pytest.mark.parametrize(
    ("uri", "text", "words"),
    [
        ("s.csv", f"file,split\n{SECRET},train\n{SECRET},val\n", "entries 1 and 2 .*train and val"),
        ("s.json", f'{{"{SECRET}": "train", "{SECRET}": "val"}}', "entries 1 and 2 .*train and val"),
        ("s.json", f'{{"train": ["{SECRET}"], "val": ["{SECRET}"]}}', "entries 1 and 2 .*train and val"),
        ("s.csv", f"file,split\n{SECRET},dev\n", "entry 1 of s.csv: has a split that is none of train, val and test"),
        ("s.csv", f"file,split\ntrain,{SECRET}\n", "entry 1 .*none of"),
        ("s.csv", f"file,split\n{SECRET},\n", "entry 1 .*none of"),
        ("s.csv", "file,split\n ,train\n", "names nothing"),
        ("s.csv", f"{SECRET},train\n", "header of s.csv: 0 columns"),
        ("s.csv", "file,name,split\na,b,train\n", "header of s.csv: 2 columns"),
        ("s.csv", f"file,split\n{SECRET}\n", "entry 1 .*1 cells"),
        ("s.csv", "file,split\n", "no entries"),
        ("s.csv", "", "no entries"),
        ("s.json", "{}", "no entries"),
        ("s.json", f'"{SECRET}"', "neither an object nor a list"),
        ("s.json", f'["{SECRET}"]', "entry 1 .*is no object"),
        ("s.json", f'{{"train": [["{SECRET}"]]}}', "has a list"),
        ("s.json", f'{{"{SECRET}": {{"split": "train"}}}}', "has a _Pairs|has a"),
        ("s.json", f'{{"{SECRET}": true}}', "has a bool"),
        ("s.json", f'{{"{SECRET}": ', r"is not JSON in UTF-8 \(JSONDecodeError\)"),
        ("s.json", "[" * 100_000, "is not JSON"),
        ("s.csv", b"file,split\n\xff\xfe,train\n", "is not CSV in UTF-8"),
        ("s.csv", f'file,split\n"{SECRET}"x,train\n', "is not CSV"),
        ("s.txt", "file,split\na,train\n", "must end in"),
    ],
)
def test_a_wrong_list_is_refused_without_quoting_it(uri, text, words):
    with pytest.raises(ConfigError, match=words) as error:
        entries(text, uri)
    assert SECRET not in str(error.value)
    assert error.value.__cause__ is None


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["s.csv", "s.json", "s.tsv"]))
def test_any_bytes_are_a_list_or_a_typed_error(data, uri):
    try:
        listed = parse_split_list(data, uri, "files")
    except ConfigError:
        return
    assert {entry.split for entry in listed.entries.values()} <= {"train", "val", "test"}


@pytest.mark.parametrize("word", ["traint", "retrain", "trainval", "valley", "tested", "trainid", "set", "", "contest", "train2"])
def test_other_words_are_no_split(word):
    assert split_named(word) is None


def test_the_size_of_a_list_is_known_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "split.csv"
    path.write_text("file,split\na,train\n")
    assert set(read_split_list(str(path), "files").entries) == {"a"}
    assert set(read_split_list(f"file://{path}", "files").entries) == {"a"}
    monkeypatch.setattr(split_lists, "_LARGEST", 10)
    monkeypatch.setattr("echotrain.storage.local.LocalStore.read", lambda self, key: pytest.fail("was read"))
    with pytest.raises(ConfigError, match="of 19 bytes: at most 10"):
        read_split_list(str(path), "files")
    with pytest.raises(ConfigError, match="does not exist"):
        read_split_list(str(tmp_path / "other.csv"), "files")
