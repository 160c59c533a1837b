import zipfile

import h5py
import pytest
from submissions import CASE, magnitudes, write_kus, write_reconstructions, write_test_set

from ray_jobs import submit as verb


@pytest.fixture
def places(tmp_path):
    like = write_test_set(tmp_path / "like", {"a.h5": (32, 32)})
    write_reconstructions(tmp_path / "images", {"a.h5": (2, 32, 32)})
    return str(tmp_path / "images"), ["--like", str(like)]


def test_the_verb_writes_a_submission_that_it_then_accepts(places, tmp_path, capsys):
    images, like = places
    to = str(tmp_path / "ankle.zip")
    assert verb.main(["mosaic", images, *like, "--track", "ankle", "--to", to]) == 0
    assert verb.main(["mosaic", to, *like, "--track", "ankle", "--check-only"]) == 0
    assert capsys.readouterr().out.count("ankle.zip: 1 file, ") == 2
    with zipfile.ZipFile(to) as archive:
        assert archive.namelist() == ["ankle/a.h5"]


def test_a_submission_that_breaks_a_rule_is_told_about_and_ends_in_two(places, tmp_path, capsys):
    images, like = places
    assert verb.main(["fastmri", images, *like, "--to", str(tmp_path / "out")]) == 0
    with h5py.File(tmp_path / "out" / "a.h5", "r+") as file:
        file["kspace"] = magnitudes((2, 2))
    assert verb.main(["fastmri", str(tmp_path / "out"), *like, "--check-only"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "a.h5: has 'kspace' too" in error


def test_cmrxrecon_goes_the_same_way(tmp_path, capsys):
    write_kus(tmp_path / "like" / CASE / "cine_sax_kus_Uniform8.mat", (30, 16, 2, 3, 4))
    write_reconstructions(tmp_path / "images" / CASE, {"cine_sax_kus_Uniform8.h5": (4, 3, 30, 16)})
    arguments = ["cmrxrecon", str(tmp_path / "images"), "--like", str(tmp_path / "like"), "--to", str(tmp_path / "Submission.zip")]
    assert verb.main(arguments) == 0
    assert verb.main(arguments) == 2
    assert "Submission.zip: is there already" in capsys.readouterr().err
    assert verb.main([*arguments, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["mosaic", "--to", "x.zip"], "no --track"),
        (["fastmri", "--to", "x", "--track", "ankle"], "--track ankle: is of MosaicMRI alone"),
        (["fastmri"], "no --to"),
        (["fastmri", "--check-only", "--to", "x"], "writes nothing"),
        (["fastmri", "--to", "s3://lab/x"], "is not on this machine"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_with_its_remedy(arguments, fragment, places, capsys):
    images, like = places
    assert verb.main([arguments[0], images, *arguments[1:], *like]) == 2
    assert fragment in capsys.readouterr().err


def test_help_shows_an_example_of_each_challenge(capsys):
    with pytest.raises(SystemExit, match="0"):
        verb.main(["--help"])
    shown = capsys.readouterr().out
    for challenge in ("fastmri", "mosaic", "cmrxrecon"):
        assert f"python -m ray_jobs.submit {challenge} " in shown
