import io
import os
import stat
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
from submissions import problems_of, write_test_set

from echotrain.errors import SubmissionError
from echotrain.evaluation.submission import TRACKS, MosaicChallenge, Problem, check_submission
from echotrain.evaluation.submission.package import open_package

MOSAIC = MosaicChallenge(track="ankle")


@pytest.fixture
def like(tmp_path):
    return write_test_set(tmp_path / "like", {"a.h5": (32, 32)})


@pytest.fixture
def good(tmp_path) -> bytes:
    """Return the bytes of a file that passes."""
    with h5py.File(tmp_path / "good.h5", "w") as file:
        file["ismrmrd_header"] = b"<x/>"
        file["reconstruction_rss"] = np.ones((2, 32, 32), np.float32)
    return (tmp_path / "good.h5").read_bytes()


def make_zip(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for member, data in members:
            archive.writestr(member, data)
    return path


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


@pytest.mark.parametrize("folder", ["", "ankle_reconstructions/"])
def test_files_lie_at_the_top_of_a_zip_or_in_one_folder(folder, like, good, tmp_path):
    done = check_submission(MOSAIC, make_zip(tmp_path / "x.zip", [(f"{folder}a.h5", good)]), str(like))
    assert done.num_files == 1


def test_files_in_two_folders_are_not_where_they_belong(like, good, tmp_path):
    lines = problems_of(MOSAIC, make_zip(tmp_path / "x.zip", [("one/a.h5", good), ("two/a.h5", good)]), like)
    found = [line.split(";")[0] for line in lines]
    assert found == ["a.h5: is missing", "one/a.h5: is not of the test set", "two/a.h5: is not of the test set"]


def test_the_limit_is_one_on_the_files_and_on_their_zip(like, good, tmp_path, monkeypatch):
    path = make_zip(tmp_path / "x.zip", [("a.h5", good)])
    assert path.stat().st_size < len(good) - 1
    monkeypatch.setitem(TRACKS, "ankle", len(good) - 1)
    (line,) = problems_of(MOSAIC, path, like)
    assert line.startswith(f"all files together: have {len(good):,} bytes")
    path.write_bytes(bytes(100_000) + path.read_bytes())
    monkeypatch.setitem(TRACKS, "ankle", path.stat().st_size)
    check_submission(MOSAIC, path, str(like))
    monkeypatch.setitem(TRACKS, "ankle", path.stat().st_size - 1)
    (line,) = problems_of(MOSAIC, path, like)
    assert line.startswith(f"all files together: have {path.stat().st_size:,} bytes")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("/etc/a.h5", "is no relative path"),
        ("C:/a.h5", "is no relative path"),
        ("sub\\a.h5", "is no relative path"),
        ("../a.h5", "leads out of its folder"),
        ("sub/../../a.h5", "leads out of its folder"),
        ("./a.h5", "leads out of its folder or back into it"),
    ],
)
def test_a_member_that_would_be_unpacked_elsewhere_is_a_problem_and_is_not_unpacked(name, what, like, good, tmp_path):
    lines = problems_of(MOSAIC, make_zip(tmp_path / "x.zip", [(name, good), ("a.h5", good)]), like)
    assert len(lines) == 1
    assert f"{name}: {what}" in lines[0]
    assert not (tmp_path / "a.h5").exists()


def test_links_and_second_members_of_a_name_are_problems(like, good, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = make_zip(tmp_path / "x.zip", [("a.h5", good), ("a.h5", good), (entry("link", stat.S_IFLNK | 0o777), b"/etc/passwd")])
    lines = problems_of(MOSAIC, path, like)
    assert [line.split(";")[0] for line in lines] == ["a.h5: is there twice", "link: is a link or a device"]


def test_a_method_without_a_known_expansion_is_refused(like, good, tmp_path):
    lines = problems_of(MOSAIC, make_zip(tmp_path / "x.zip", [("a.h5", good)], zipfile.ZIP_LZMA), like)
    assert "compressed by method 14" in lines[0]


def test_a_member_that_swells_is_named_by_its_declared_size_and_takes_no_memory(like, tmp_path):
    bomb = make_zip(tmp_path / "x.zip", [("a.h5", bytes(300 << 20))])
    assert bomb.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        (line,) = problems_of(MOSAIC, bomb, like)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "a.h5: has 314.6 MB" in line
    assert peak < 20 << 20


def test_a_member_larger_than_it_declares_is_cut_and_told_about(like, good, tmp_path):
    path = make_zip(tmp_path / "x.zip", [("a.h5", good + bytes(50 << 20))])
    data = path.read_bytes()
    declared, true = len(good).to_bytes(4, "little"), (len(good) + (50 << 20)).to_bytes(4, "little")
    assert data.count(true) == 2
    path.write_bytes(data.replace(true, declared))
    (line,) = problems_of(MOSAIC, path, like)
    assert "a.h5: " in line
    assert "CRC" in line


def test_a_table_of_contents_larger_than_the_limit_is_not_read(tmp_path):
    # An end record that claims 3 GB of entries, before which a sparse file provides them.
    size = 3 << 30
    end = b"PK\x05\x06" + bytes(4) + (0xFFFF).to_bytes(2, "little") * 2 + size.to_bytes(4, "little") + bytes(4) + bytes(2)
    with (tmp_path / "x.zip").open("wb") as file:
        file.seek(size)
        file.write(end)
    with pytest.raises(SubmissionError, match=r"table of contents of 3.2 GB"), open_package(tmp_path / "x.zip", ()):
        pass


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04" + bytes(100)])
def test_a_file_that_is_no_zip_is_refused(content, like, tmp_path):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(SubmissionError, match="must be a folder or a complete zip"):
        check_submission(MOSAIC, tmp_path / "x.zip", str(like))


def test_a_submission_that_is_not_there_is_refused(like, tmp_path):
    with pytest.raises(SubmissionError, match="neither a folder nor a zip"):
        check_submission(MOSAIC, tmp_path / "nothing", str(like))


def test_a_pipe_in_a_folder_is_a_problem_and_is_not_waited_for(like, tmp_path):
    (tmp_path / "x").mkdir()
    os.mkfifo(tmp_path / "x" / "a.h5")
    lines = problems_of(MOSAIC, tmp_path / "x", like)
    assert [line.split(";")[0] for line in lines] == ["a.h5: is no file"]


@pytest.mark.parametrize("kind", ["soft", "external", "virtual"])
def test_images_that_lie_in_another_file_are_not_followed(kind, like, good, tmp_path):
    submission = tmp_path / "x"
    submission.mkdir()
    with h5py.File(submission / "a.h5", "w") as file:
        file["ismrmrd_header"] = b"<x/>"
        if kind == "virtual":
            layout = h5py.VirtualLayout((2, 32, 32), np.float32)
            layout[:] = h5py.VirtualSource(tmp_path / "good.h5", "reconstruction_rss", (2, 32, 32))
            file.create_virtual_dataset("reconstruction_rss", layout)
        else:
            link = (
                h5py.ExternalLink(tmp_path / "good.h5", "/reconstruction_rss") if kind == "external" else h5py.SoftLink("/ismrmrd_header")
            )
            file["reconstruction_rss"] = link
    (line,) = problems_of(MOSAIC, submission, like)
    assert "inside the file" in line


def test_a_dataset_that_declares_more_than_its_file_holds_is_not_read(like, tmp_path):
    (tmp_path / "x").mkdir()
    with h5py.File(tmp_path / "x" / "a.h5", "w") as file:
        file["ismrmrd_header"] = b"<x/>"
        file.create_dataset("reconstruction_rss", (2000, 320, 320), np.float32, chunks=(1, 320, 320))
    (line,) = problems_of(MOSAIC, tmp_path / "x", like)
    assert "declares (2000, 320, 320), 819.2 MB" in line


def test_names_of_strangers_do_not_steer_the_terminal():
    shown = str(Problem(file="a\x1b[31m.h5", what=f"has {'k' * 70_000!r} too", expected="b\nc"))
    assert shown.isprintable()
    assert len(shown) < 1000


def test_an_encrypted_member_is_refused(like, good, tmp_path):
    data = bytearray(make_zip(tmp_path / "x.zip", [("a.h5", good)]).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    assert zipfile.ZipFile(io.BytesIO(data)).infolist()[0].flag_bits & 1
    (line,) = problems_of(MOSAIC, tmp_path / "x.zip", like)
    assert line.startswith("a.h5: is encrypted")
