"""What is found where: links, names with signs, and keys letter by letter."""

import io
import logging
import os
from pathlib import Path

import pytest

from echotrain.data.formats import Deidentifier
from echotrain.data.formats.sources import find_sources, local_copy, opened_in_place, place_suffixes, scans_root
from echotrain.errors import ConfigError
from echotrain.storage.local import LocalStore, find_files
from echotrain.storage.open import join_uri, local_path, store_of
from tests.s3_fake import FakeS3


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.fsencode(path.name))
    return path


def below(folder: Path) -> list[str]:
    return [source.uri.removeprefix(f"{folder}/") for source in find_sources(str(folder))]


@pytest.fixture
def pool(tmp_path):
    """Return a folder of two studies, beside the folder that is named as the source."""
    for place in ("pool/one/a.h5", "pool/one/deep/b.h5", "pool/two/c.h5", "source/own/d.h5"):
        touch(tmp_path / place)
    return tmp_path / "pool"


def test_folders_that_links_point_to_are_read_under_the_links_path(pool, caplog):
    source = pool.parent / "source"
    (source / "study").symlink_to(pool / "one")
    (source / "own" / "relative").symlink_to("../../pool/two")
    (source / "file.h5").symlink_to(pool / "two" / "c.h5")
    with caplog.at_level(logging.WARNING):
        assert below(source) == ["file.h5", "own/d.h5", "own/relative/c.h5", "study/a.h5", "study/deep/b.h5"]
    assert not caplog.records
    assert [path.read_bytes() for found in find_sources(str(source)) if (path := Path(found.uri)).name == "a.h5"] == [b"a.h5"]


def test_each_real_folder_is_read_once_under_its_own_path_where_it_has_one(pool, caplog):
    source = pool.parent / "source"
    (source / "a first link").symlink_to(pool / "one")
    (source / "second link").symlink_to(pool / "one")
    (source / "again").symlink_to(source / "own")
    (source / "whole").symlink_to(pool)
    assert below(source) == ["a first link/a.h5", "a first link/deep/b.h5", "own/d.h5", "whole/two/c.h5"]
    assert [record.getMessage() for record in caplog.records] == [
        f"Links that were not followed, because the folder's files are taken under another path: 2 ({source}/)"
    ]
    with_own_path = pool.parent / "both"
    for place in ("z/e.h5", "y/f.h5"):
        touch(with_own_path / place)
    (with_own_path / "a").symlink_to(with_own_path / "z")
    assert below(with_own_path) == ["y/f.h5", "z/e.h5"]


@pytest.mark.parametrize("target", [".", "..", "../..", "/", "own", "../../source"])
def test_links_to_a_folder_that_holds_them_are_not_followed_and_told(pool, caplog, target):
    source = pool.parent / "source"
    (source / "own" / "up").symlink_to(target if target.startswith((".", "/")) else source / target)
    assert below(source) == ["own/d.h5"]
    assert [record.getMessage() for record in caplog.records] == [
        f"Links that were not followed, because they lead to a folder that holds them: 1 ({source}/)"
    ]


def test_links_in_a_circle_and_links_from_folders_that_were_linked_to_end(pool, caplog):
    source = pool.parent / "source"
    (source / "one").symlink_to(pool / "one")
    (pool / "one" / "deep" / "two").symlink_to(pool / "two")
    (pool / "two" / "back").symlink_to(pool / "one")
    (pool / "two" / "above").symlink_to(pool.parent)
    assert below(source) == ["one/a.h5", "one/deep/b.h5", "one/deep/two/c.h5", "own/d.h5"]
    assert sorted(record.getMessage().partition(":")[0] for record in caplog.records) == [
        "Links that were not followed, because the folder's files are taken under another path",
        "Links that were not followed, because they lead to a folder that holds them",
    ]


def test_links_that_lead_nowhere_are_told_and_stop_nothing(pool, caplog):
    source = pool.parent / "source"
    (source / "gone.h5").symlink_to(pool / "gone.h5")
    (source / "own" / "gone").symlink_to(pool / "gone")
    (source / "self.h5").symlink_to(source / "self.h5")
    (source / ".#lock").symlink_to("jane@host.4711")
    assert below(source) == ["own/d.h5"]
    assert [record.getMessage() for record in caplog.records] == [f"Links that were not followed, because they lead nowhere: 3 ({source}/)"]
    assert [info.key for info in LocalStore(source).list()] == ["own/d.h5"]


def test_names_of_links_are_for_a_persons_terminal_alone(pool, caplog, monkeypatch):
    source = pool.parent / "source"
    for name in "efgh":
        (source / f"Doe {name}\n").symlink_to(pool / "gone")
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr", terminal)
    find_sources(str(source))
    (record,) = caplog.records
    assert record.getMessage().endswith(f"nowhere: 4 ({source}/Doe e\\n, {source}/Doe f\\n, {source}/Doe g\\n, …)")


def test_the_listing_of_a_store_follows_no_link_to_a_folder(pool):
    source = pool.parent / "source"
    (source / "study").symlink_to(pool / "one")
    assert [info.key for info in LocalStore(source).list()] == ["own/d.h5"]
    assert [info.key for info in find_files(source).files] == ["own/d.h5", "study/a.h5", "study/deep/b.h5"]


def test_a_source_that_is_a_link_itself_is_followed(pool):
    (pool.parent / "link").symlink_to(pool)
    assert below(pool.parent / "link") == ["one/a.h5", "one/deep/b.h5", "two/c.h5"]


NAMES = [
    "a b",
    " x ",
    "#1",
    "?",
    "50%",
    "%20",
    "%2e%2e",
    "a+b",
    "Müller",
    "Mu\u0308ller",
    "膝",
    "(2) [a]",
    "a&b;c='d'",
    "~",
    "@3",
    "a\\b",
    "*",
]


def test_paths_are_taken_as_they_are_and_file_uris_decoded(tmp_path):
    for name in NAMES:
        path = touch(tmp_path / name / f"{name}.h5")
        folder = str(path.parent)
        for source in (folder, str(path), path.parent.as_uri(), path.as_uri()):
            (found,) = find_sources(source)
            assert found.uri == str(path)
            assert scans_root(source) == f"{folder}/"
            store, key = store_of(found.uri)
            assert store.read(key) == path.name.encode()
            with opened_in_place(found) as place, local_copy(found) as copy:
                assert place == copy == path
    assert below(tmp_path) == sorted(f"{name}/{name}.h5" for name in NAMES)


def test_a_file_uri_may_hold_a_hash_and_a_question_mark_and_names_this_machine_alone(tmp_path):
    assert local_path("file:///data/a#b?c%20d%23.h5") == Path("/data/a#b?c d#.h5")
    assert local_path("/data/a#b?c%20d.h5") == Path("/data/a#b?c%20d.h5")
    with pytest.raises(ConfigError, match="names a file of another machine"):
        local_path("file://host/data")


KEYS = ["a.h5", "/a.h5", "//a.h5", "x/a.h5", "x//a.h5", "x///a.h5", "x/y//a.h5", "x//y/a.h5", "/x/a.h5", "./a.h5", "x/../a.h5", "x/ /a.h5"]


def fill(fake: FakeS3, prefix: str, keys: list[str]) -> None:
    for key in keys:
        fake.objects["lab", f"{prefix}{key}"] = f"{prefix}{key}".encode()


@pytest.mark.parametrize("prefix", ["", "scans/", "scans//", "/scans/", "//"])
def test_keys_are_found_fetched_and_opened_letter_by_letter(keyed_s3, prefix):
    fill(keyed_s3, prefix, KEYS)
    if prefix:
        fill(keyed_s3, "", ["elsewhere/b.h5", "scans.h5x/b.h5"])
    source = f"s3://lab/{prefix}"
    sources = find_sources(source)
    assert [found.uri for found in sources] == sorted(f"{source}{key}" for key in KEYS)
    assert scans_root(source) == source
    for found in sources:
        key = found.uri.removeprefix("s3://lab/")
        with local_copy(found) as copy, opened_in_place(found) as place:
            assert copy.read_bytes() == place.read() == key.encode()
    assert {key for _, _, key in keyed_s3.requests} == {f"{prefix}{key}" for key in KEYS}
    assert find_sources(sources[1].uri) == [sources[1]]
    suffixes = place_suffixes(source, sources, Deidentifier())
    outputs = [f"{Path(found.uri).name}{suffix}" for found, suffix in zip(sources, suffixes, strict=True)]
    assert len(set(outputs)) == len(outputs)


def test_a_single_object_is_no_other_whose_key_begins_so(keyed_s3):
    fill(keyed_s3, "x/", ["a.h5", "a.h5.mrd", "a.h5/", "a.h5/b.h5", "a.h50.h5"])
    assert [found.uri for found in find_sources("s3://lab/x/a.h5")] == ["s3://lab/x/a.h5"]
    assert [found.uri for found in find_sources("s3://lab/x/a.h5/")] == ["s3://lab/x/a.h5/b.h5"]


def test_keys_with_signs_are_found_fetched_and_opened(keyed_s3):
    for name in NAMES:
        fill(keyed_s3, f"{name}/", [f"{name}.h5"])
    sources = find_sources("s3://lab")
    assert [found.uri for found in sources] == sorted(f"s3://lab/{name}/{name}.h5" for name in NAMES)
    for found in sources:
        key = found.uri.removeprefix("s3://lab/")
        with local_copy(found) as copy, opened_in_place(found) as place:
            assert copy.read_bytes() == place.read() == key.encode()
        assert scans_root(f"s3://lab/{key.partition('/')[0]}") == f"s3://lab/{key.partition('/')[0]}/"


def test_no_two_scans_of_a_source_have_one_output(tmp_path):
    places = ["a.h5", "a.mrd", "b.h5", "deep/a.h5", "deep/b.h5", "deeper/b.h5"]
    for place in places:
        touch(tmp_path / place)
    sources = find_sources(str(tmp_path))
    suffixes = place_suffixes(str(tmp_path), sources, Deidentifier())
    assert [source.uri for source, suffix in zip(sources, suffixes, strict=True) if not suffix] == [f"{tmp_path}/b.h5"]
    assert len(set(suffixes)) == len(places)
    assert place_suffixes(str(tmp_path / "a.h5"), find_sources(str(tmp_path / "a.h5")), Deidentifier()) == [""]


def test_a_prefix_without_its_slash_is_a_folder_and_no_beginning_of_names(keyed_s3):
    fill(keyed_s3, "", ["scans/a.h5", "scans2/b.h5", "scans//c.h5"])
    assert [found.uri for found in find_sources("s3://lab/scans")] == ["s3://lab/scans//c.h5", "s3://lab/scans/a.h5"]
    assert [found.uri for found in find_sources("s3://lab/scans//")] == ["s3://lab/scans//c.h5"]
    with pytest.raises(ConfigError, match="holds no scans"):
        find_sources("s3://lab//scans")


@pytest.mark.parametrize(
    ("root", "joined"), [("s3://b/p", "s3://b/p/k//x"), ("s3://b//p/", "s3://b//p/k//x"), ("s3://b/p//", "s3://b/p//k//x")]
)
def test_a_root_keeps_its_slashes(root, joined):
    assert join_uri(root, "k//x") == joined


def test_files_with_bytes_that_are_no_text_are_found(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller.h5"))
    touch(path)
    (found,) = find_sources(str(tmp_path))
    assert Path(found.uri).read_bytes()


def test_every_formats_ending_is_a_scans_in_either_case_and_what_lies_beside_them_is_none(tmp_path):
    for name in ("a.h5", "b.MAT", "c.mat", "d.dat", "e.mrd", "info.csv", ".hidden.mat", "notes.matlab"):
        touch(tmp_path / name)
    assert below(tmp_path) == ["a.h5", "b.MAT", "c.mat", "d.dat", "e.mrd"]


def test_images_beside_scans_are_left_out_with_a_warning_and_by_themselves_they_are_found(tmp_path, caplog):
    for name in ("raw/a.h5", "raw/b.h5", "images/one.nii.gz", "images/series/1.dcm", "images/series/2.dcm"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert [source.name for source in find_sources(str(tmp_path), with_images=True)] == ["a.h5", "b.h5"]
    assert "3 files of images without k-space lie beside 2 scans and are left out" in caplog.text
    caplog.clear()
    assert len(find_sources(str(tmp_path / "images"), with_images=True)) == 2
    assert caplog.text == ""
