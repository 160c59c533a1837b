import pickle
import shutil
import time
import zipfile

import h5py
import numpy as np
import pytest
from submissions import magnitudes, problems_of, unzip, write_reconstructions, write_test_set

from echotrain.data.formats.write import write_fastmri
from echotrain.errors import ConfigError, ScanError, SubmissionError
from echotrain.evaluation.submission import TRACKS, FastmriChallenge, MosaicChallenge, check_submission, write_submission
from echotrain.storage.embedded import serve_folder
from echotrain.storage.open import open_store
from tests.scans import header_xml, random_kspace, write_scan

FASTMRI = FastmriChallenge()
MOSAIC = MosaicChallenge(track="ankle")


@pytest.fixture
def like(tmp_path):
    return write_test_set(tmp_path / "like", {"knee1.h5": (32, 32), "knee2.h5": (32, 20)})


@pytest.fixture
def reconstructions(tmp_path):
    write_reconstructions(tmp_path / "images", {"knee1.h5": (2, 32, 32), "knee2.h5": (2, 34, 24)})
    return tmp_path / "images"


@pytest.fixture
def submitted(like, reconstructions, tmp_path):
    """Return a good MosaicMRI submission, unpacked, for one thing in it to be spoiled."""
    write_submission(MOSAIC, str(reconstructions), str(like), tmp_path / "good.zip")
    return unzip(tmp_path / "good.zip", tmp_path / "unpacked") / "good"


def read(path, key):
    with h5py.File(path) as file:
        return file[key][()]


def replace(path, **datasets):
    with h5py.File(path, "r+") as file:
        for key, value in datasets.items():
            if key in file:
                del file[key]
            if value is not None:
                file[key] = value


def test_a_fastmri_submission_has_the_centres_under_the_test_sets_names_and_nothing_else(like, reconstructions, tmp_path):
    done = write_submission(FASTMRI, str(reconstructions), str(like), tmp_path / "out")
    assert sorted(path.name for path in done.place.iterdir()) == ["knee1.h5", "knee2.h5"]
    for name, rows, columns in (("knee1.h5", slice(0, 32), slice(0, 32)), ("knee2.h5", slice(1, 33), slice(2, 22))):
        with h5py.File(done.place / name) as file:
            assert list(file) == ["reconstruction"]
            assert file["reconstruction"].dtype == np.float32
            np.testing.assert_array_equal(file["reconstruction"], read(reconstructions / name, "reconstruction")[:, rows, columns])


def test_a_mosaic_submission_is_a_zip_with_the_test_files_own_headers_byte_by_byte(submitted, like, reconstructions):
    assert sorted(path.name for path in submitted.iterdir()) == ["knee1.h5", "knee2.h5"]
    for name in ("knee1.h5", "knee2.h5"):
        with h5py.File(submitted / name) as file:
            assert set(file) == {"ismrmrd_header", "reconstruction_rss"}
        header = read(submitted / name, "ismrmrd_header")
        assert header == read(like / name, "ismrmrd_header")
        assert f"protocol {name} ä".encode() in header
    np.testing.assert_array_equal(read(submitted / "knee1.h5", "reconstruction_rss"), read(reconstructions / "knee1.h5", "reconstruction"))


@pytest.mark.parametrize("challenge", [FASTMRI, MOSAIC])
def test_what_was_written_passes_the_check(challenge, like, reconstructions, tmp_path):
    written = write_submission(challenge, str(reconstructions), str(like), tmp_path / "out.zip")
    assert check_submission(challenge, tmp_path / "out.zip", str(like)) == written
    assert written.num_files == 2


def test_the_same_reconstructions_give_the_same_zip_on_another_day(like, reconstructions, tmp_path, monkeypatch):
    for name, year in (("a", 2030), ("b", 2031)):
        monkeypatch.setattr(time, "localtime", lambda *_, year=year: time.struct_time((year, 1, 1, 0, 0, 0, 0, 1, 0)))
        write_submission(MOSAIC, str(reconstructions), str(like), tmp_path / name / "x.zip")
    assert (tmp_path / "a" / "x.zip").read_bytes() == (tmp_path / "b" / "x.zip").read_bytes()


def test_a_brain_with_fewer_lines_than_its_matrix_has_columns_becomes_a_square(tmp_path):
    # FLAIR with 203 phase encodes for a matrix of 320 x 320, at a tenth of the size: reconstruct leaves 32 x 20.
    like = write_test_set(tmp_path / "like", {"flair.h5": (32, 32)}, kspace=(64, 20))
    images = write_reconstructions(tmp_path / "images", {"flair.h5": (2, 32, 20)})["flair.h5"]
    write_submission(FASTMRI, str(tmp_path / "images"), str(like), tmp_path / "out")
    np.testing.assert_array_equal(read(tmp_path / "out" / "flair.h5", "reconstruction"), images[:, 6:26])


def test_a_target_in_the_test_file_decides_the_shape_before_its_header_does(tmp_path):
    write_scan(
        tmp_path / "like" / "a.h5",
        random_kspace((2, 2, 40, 32)),
        header=header_xml(40, 32, recon=(32, 32)),
        target=magnitudes((2, 30, 28)),
    )
    write_reconstructions(tmp_path / "images", {"a.h5": (2, 30, 28)})
    write_submission(MOSAIC, str(tmp_path / "images"), str(tmp_path / "like"), tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive, archive.open("out/a.h5") as member:
        assert read(member, "reconstruction_rss").shape == (2, 30, 28)


def test_reconstructions_may_lie_as_the_test_set_does_in_folders(tmp_path):
    names = {"x4/a.h5": (32, 32), "x8/a.h5": (32, 32)}
    like = write_test_set(tmp_path / "like", names)
    images = write_reconstructions(tmp_path / "images", dict.fromkeys(names, (2, 32, 32)))
    write_submission(MOSAIC, str(tmp_path / "images"), str(like), tmp_path / "out.zip")
    for name in names:
        np.testing.assert_array_equal(read(unzip(tmp_path / "out.zip", tmp_path / "u") / "out" / name, "reconstruction_rss"), images[name])


def test_everything_may_lie_in_a_bucket(like, reconstructions, tmp_path, monkeypatch):
    with serve_folder(tmp_path / "s3") as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        bucket = server.create_bucket("lab")
        for path in (*like.iterdir(), *reconstructions.iterdir()):
            open_store(f"{bucket}/deep").upload(path, f"{path.parent.name}/x8/{path.name}")
        done = write_submission(MOSAIC, f"{bucket}/deep/images", f"{bucket}/deep/like", tmp_path / "out.zip")
    folder = unzip(done.place, tmp_path / "u") / "out" / "x8"
    assert sorted(path.name for path in folder.iterdir()) == ["knee1.h5", "knee2.h5"]
    assert read(folder / "knee1.h5", "ismrmrd_header") == read(like / "knee1.h5", "ismrmrd_header")
    np.testing.assert_array_equal(read(folder / "knee1.h5", "reconstruction_rss"), read(reconstructions / "knee1.h5", "reconstruction"))


@pytest.mark.parametrize(
    ("spoil", "fragments"),
    [
        (lambda folder: (folder / "knee1.h5").unlink(), ["knee1.h5: is missing"]),
        (lambda folder: shutil.copy(folder / "knee1.h5", folder / "knee3.h5"), ["knee3.h5: is not of the test set"]),
        (lambda folder: (folder / "notes.txt").write_text("hello"), ["notes.txt: is not of the test set"]),
        (
            lambda folder: (folder / "knee1.h5").rename(folder / "Knee1.h5"),
            ["Knee1.h5: is not of the test set", "knee1.h5: is missing"],
        ),
        (
            lambda folder: replace(folder / "knee1.h5", kspace=np.zeros(3)),
            ["knee1.h5: has 'kspace' too; expected: exactly the keys ismrmrd_header, reconstruction_rss"],
        ),
        (lambda folder: replace(folder / "knee1.h5", ismrmrd_header=None), ["knee1.h5: lacks ismrmrd_header"]),
        (
            lambda folder: replace(folder / "knee1.h5", reconstruction_rss=None, reconstruction=magnitudes((2, 32, 32))),
            ["knee1.h5: has 'reconstruction' too", "knee1.h5: lacks reconstruction_rss"],
        ),
        (
            lambda folder: replace(folder / "knee1.h5", reconstruction_rss=magnitudes((2, 32, 31))),
            ["knee1.h5: reconstruction_rss has shape (2, 32, 31); expected: (2, 32, 32)"],
        ),
        (
            lambda folder: replace(folder / "knee1.h5", reconstruction_rss=magnitudes((1, 32, 32))),
            ["knee1.h5: reconstruction_rss has shape (1, 32, 32); expected: (2, 32, 32)"],
        ),
        (
            lambda folder: replace(folder / "knee1.h5", reconstruction_rss=magnitudes((2, 32, 32)).astype(float)),
            ["knee1.h5: reconstruction_rss is float64; expected: float32"],
        ),
        (
            lambda folder: replace(folder / "knee1.h5", reconstruction_rss=magnitudes((2, 32, 32)) * [[[1]], [[np.inf]]]),
            ["reconstruction_rss is float64", "knee1.h5: reconstruction_rss is not finite in slice 1"],
        ),
        (lambda folder: replace(folder / "knee1.h5", ismrmrd_header=np.arange(3)), ["knee1.h5: ismrmrd_header: "]),
        (lambda folder: (folder / "knee1.h5").write_bytes(b"no HDF5"), ["knee1.h5: "]),
        (lambda folder: (folder / "knee1.h5").write_bytes((folder / "knee1.h5").read_bytes()[:-500]), ["knee1.h5: "]),
    ],
)
def test_every_broken_rule_is_named_with_its_file(spoil, fragments, submitted, like):
    spoil(submitted)
    lines = problems_of(MOSAIC, submitted, like)
    assert len(lines) == len(fragments)
    for line, fragment in zip(lines, fragments, strict=True):
        assert fragment in line


def test_all_problems_are_listed_at_once(submitted, like):
    replace(submitted / "knee1.h5", mask=np.zeros(3), reconstruction_rss=np.full((2, 32, 32), np.nan, np.float32))
    (submitted / "knee2.h5").unlink()
    lines = problems_of(MOSAIC, submitted, like)
    assert [line.split(";")[0] for line in lines] == [
        "knee1.h5: has 'mask' too",
        "knee1.h5: reconstruction_rss is not finite in 2 slices (0, 1)",
        "knee2.h5: is missing",
    ]


def test_a_fastmri_submission_must_not_hold_a_header(like, reconstructions, tmp_path):
    # What reconstruct writes has one, so its folder is not yet a submission.
    lines = problems_of(FASTMRI, reconstructions, like)
    assert any("knee1.h5: has 'ismrmrd_header' too" in line for line in lines)
    assert any("knee1.png: is not of the test set" in line for line in lines)
    assert any("knee2.h5: reconstruction has shape (2, 34, 24); expected: (2, 32, 20)" in line for line in lines)


def test_the_limit_of_the_track_is_one_on_the_files_together(submitted, like, monkeypatch):
    total = sum(path.stat().st_size for path in submitted.iterdir())
    monkeypatch.setitem(TRACKS, "ankle", total)
    check_submission(MOSAIC, submitted, str(like))
    monkeypatch.setitem(TRACKS, "ankle", total - 1)
    (line,) = problems_of(MOSAIC, submitted, like)
    assert f"all files together: have {total:,} bytes" in line
    assert f"at most {total - 1:,} bytes" in line


def test_the_limits_are_those_that_the_organisers_state():
    assert {track: limit / 2**20 for track, limit in TRACKS.items()} == {"reconstruction": 8192, "ankle": 500, "t1fs": 800}
    with pytest.raises(ConfigError, match="track=knee"):
        MosaicChallenge(track="knee")


@pytest.mark.parametrize(
    ("shape", "fragment"),
    [
        ((3, 32, 32), r"reconstruction of shape \(3, 32, 32\); expected: 2 slices of at least 32 x 32"),
        ((2, 32, 31), r"reconstruction of shape \(2, 32, 31\)"),
        ((1, 2, 32, 32), r"reconstruction of shape \(1, 2, 32, 32\)"),
    ],
)
def test_a_reconstruction_that_does_not_fit_stops_the_export_before_anything_is_written(shape, fragment, like, reconstructions, tmp_path):
    write_fastmri(reconstructions / "knee1.h5", header=b"<x/>", reconstruction=magnitudes(shape))
    with pytest.raises(SubmissionError, match=fragment):
        write_submission(FASTMRI, str(reconstructions), str(like), tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_every_missing_reconstruction_is_named(like, reconstructions, tmp_path):
    (reconstructions / "knee1.h5").unlink()
    (reconstructions / "knee2.h5").rename(reconstructions / "other.h5")
    with pytest.raises(SubmissionError) as caught:
        write_submission(FASTMRI, str(reconstructions), str(like), tmp_path / "out")
    assert "knee1.h5: has no reconstruction" in str(caught.value)
    assert "knee2.h5: has no reconstruction" in str(caught.value)


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_an_export_that_fails_its_check_leaves_nothing(name, like, reconstructions, tmp_path):
    images = magnitudes((2, 32, 32))
    images[1, 3, 4] = np.nan
    write_fastmri(reconstructions / "knee1.h5", header=b"<x/>", reconstruction=images)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SubmissionError, match=r"knee1.h5: reconstruction is not finite in slice 1"):
        write_submission(FASTMRI, str(reconstructions), str(like), tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before


def test_values_beyond_single_precision_are_found(like, reconstructions, tmp_path):
    with h5py.File(reconstructions / "knee1.h5", "r+") as file:
        del file["reconstruction"]
        file["reconstruction"] = np.full((2, 32, 32), 1e39)
    with pytest.raises(SubmissionError, match="not finite"):
        write_submission(FASTMRI, str(reconstructions), str(like), tmp_path / "out")


def test_reconstructions_of_other_scans_are_left_out_with_a_warning(like, reconstructions, tmp_path, caplog):
    write_reconstructions(reconstructions, {"phantom.h5": (2, 32, 32)})
    write_submission(FASTMRI, str(reconstructions), str(like), tmp_path / "out")
    assert not (tmp_path / "out" / "phantom.h5").exists()
    assert "phantom.h5" in caplog.text


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_what_is_there_is_replaced_only_when_asked_to(name, like, reconstructions, tmp_path):
    to = tmp_path / name
    write_submission(FASTMRI, str(reconstructions), str(like), to)
    newer = write_reconstructions(reconstructions, {"knee2.h5": (2, 32, 20), "knee1.h5": (2, 32, 32)})["knee1.h5"]
    with pytest.raises(ConfigError, match="is there already"):
        write_submission(FASTMRI, str(reconstructions), str(like), to)
    write_submission(FASTMRI, str(reconstructions), str(like), to, overwrite=True)
    folder = unzip(to, tmp_path / "u") / "out" if name.endswith("zip") else to
    np.testing.assert_array_equal(read(folder / "knee1.h5", "reconstruction"), newer)
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_what_somebody_else_wrote_meanwhile_is_not_overwritten(name, like, reconstructions, tmp_path, monkeypatch):
    def write(self, expected, images, path):
        theirs = tmp_path / "out" / "a" if name == "out" else tmp_path / name
        theirs.parent.mkdir(exist_ok=True)
        theirs.write_text("theirs")
        write_fastmri(path, header=b"", reconstruction=images.read((slice(None),)))

    monkeypatch.setattr(FastmriChallenge, "write", write)
    monkeypatch.setattr(FastmriChallenge, "check", lambda *_: iter(()))
    with pytest.raises(ConfigError, match="is there already"):
        write_submission(FASTMRI, str(reconstructions), str(like), tmp_path / name)
    assert (tmp_path / "out" / "a" if name == "out" else tmp_path / name).read_text() == "theirs"
    assert not list(tmp_path.glob(".tmp-*"))


def test_overwriting_never_removes_a_file_of_somebody_elses(like, reconstructions, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.tex, which is not of this submission"):
        write_submission(FASTMRI, str(reconstructions), str(like), tmp_path / "home", overwrite=True)
    (tmp_path / "taken.zip").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        write_submission(FASTMRI, str(reconstructions), str(like), tmp_path / "taken.zip", overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("place", ["like", "images", "images/out", ".", "link"])
def test_a_submission_never_lands_among_its_inputs(place, like, reconstructions, tmp_path):
    (tmp_path / "link").symlink_to(like)
    with pytest.raises(ConfigError, match="or holds it"):
        write_submission(FASTMRI, str(reconstructions), str(like), tmp_path / place, overwrite=True)
    assert read(like / "knee1.h5", "kspace").shape == (2, 2, 40, 32)


def test_mosaic_takes_nothing_but_a_zip(like, reconstructions, tmp_path):
    with pytest.raises(ConfigError, match=r"Name it out.zip"):
        write_submission(MOSAIC, str(reconstructions), str(like), tmp_path / "out")


@pytest.mark.parametrize("challenge", [FASTMRI, MOSAIC])
def test_a_test_set_that_is_none_is_refused_by_name(challenge, reconstructions, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no scans"):
        check_submission(challenge, reconstructions, str(tmp_path / "empty"))
    write_fastmri(tmp_path / "bare" / "a.h5", header=header_xml(8, 8))
    with pytest.raises(ScanError, match=r"a.h5: k-space None"):
        check_submission(challenge, reconstructions, str(tmp_path / "bare"))


def test_the_error_survives_the_way_between_processes(submitted, like):
    (submitted / "knee1.h5").unlink()
    with pytest.raises(SubmissionError) as caught:
        check_submission(MOSAIC, submitted, str(like))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
