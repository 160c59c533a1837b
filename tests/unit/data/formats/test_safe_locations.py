"""Where a file lies may be written down only where neither its name nor its folders' may name anybody."""

import re

import pytest

from echotrain.data.formats import Deidentifier
from echotrain.data.formats.deidentify import Identity


@pytest.mark.parametrize("stem", ["my knee", "scan #1", "50% signal?", "a+b", "Schädel", "膝", "(2)", "a,b;c='d'"])
def test_a_name_with_signs_that_the_user_vouches_for_may_be_written_down_but_is_no_volumes_id(stem):
    given, nobody = Deidentifier(safe_names=[".*"], root="s3://lab/raw/"), Identity()
    assert given.is_safe_location(f"s3://lab/raw/{stem}/{stem}.h5", nobody)
    is_plain = stem == "a+b"
    assert given.keeps_name(stem) == is_plain
    assert (given.volume(stem, nobody) == stem) == is_plain
    assert re.fullmatch(r"[a-z0-9+-]+", given.volume(stem, nobody))
    assert not Deidentifier(root="s3://lab/raw/").is_safe_location(f"s3://lab/raw/{stem}/{stem}.h5", nobody)


@pytest.mark.parametrize(("number", "is_safe"), [("0003", True), ("0005", True), ("0008", True), ("0007", False), ("0042", False)])
def test_a_patients_number_is_sought_in_names_and_not_in_schemes_and_endings(number, is_safe):
    deidentifier = Deidentifier(safe_names=[".*"], root="s3://lab/raw/")
    assert deidentifier.is_safe_location("s3://lab/raw/study 7/scan_42.hdf5", Identity(patient_id=number)) == is_safe
    assert deidentifier.is_safe_location("s3://lab/raw/study 7/scan_42.h5", Identity(patient_id=number)) == is_safe


@pytest.mark.parametrize(
    ("below", "is_safe"),
    [
        ("multicoil_train/file1000001.h5", True),
        ("study_3/file1000001.h5", True),
        ("Jane_Doe/file1000001.h5", False),
        ("multicoil_train/Jane_Doe/file1000001.h5", False),
        ("study_3/scan_1.h5", False),
    ],
)
def test_folders_below_what_the_user_named_have_to_be_safe_as_well_whoever_the_header_names(below, is_safe):
    deidentifier = Deidentifier(safe_names=[r"study_\d"], root="s3://lab/raw/")
    assert deidentifier.is_safe_location(f"s3://lab/raw/{below}", Identity()) == is_safe


@pytest.mark.parametrize(
    ("root", "is_safe"),
    [
        ("/scans/Doe_Jane/", False),
        ("s3://lab/Janes bucket/", False),
        ("/data/05_12_76/", False),
        ("/data/knee_1976_05/", False),
        ("s3://lab/", True),
        ("/home/jane/knee-scans_2024/", True),
        ("/data/study_3/", True),
        ("/scans/multicoil_train/", True),
    ],
)
def test_the_folder_that_the_user_named_has_to_be_called_by_what_it_holds(root, is_safe):
    deidentifier = Deidentifier(safe_names=[r"study_\d"], root=root)
    assert deidentifier.is_safe_location(f"{root}file1000001.h5", Identity()) == is_safe
