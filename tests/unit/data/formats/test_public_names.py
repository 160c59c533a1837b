"""Names of public data sets and of the project's own simulation stay; whatever else is typed into one does not."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.data.formats.public_names import acquisition_code, collection_name, is_public_folder, is_public_stem
from echotrain.data.simulation.anatomy import ANATOMIES
from echotrain.data.simulation.scans import SimulationConfig, simulate

STEMS = (
    "file1000001",
    "file1002571",
    "file_brain_AXT2_200_2000001",
    "file_brain_AXT1POST_201_6002780",
    "file_brain_AXFLAIR_200_6002460",
    "file_brain_AXT1PRE_209_6001298",
    "file_prostate_AXT2_0004",
    "file_prostate_AXDIFF_002",
    "fastMRI_breast_003_2",
    "meas_MID00415_FID121697_COR_T1",
    "meas_MID00032_FID09876_AX_PD_FS_KNEE_LEFT",
    "P001",
    "P001_cine_sax",
    "cine_lax_3ch_kus_Uniform8",
    "T1map_kus_ktRadial24",
    "blackblood",
)


@pytest.mark.parametrize("stem", STEMS)
def test_a_public_data_sets_name_is_known(stem):
    assert is_public_stem(stem)


@pytest.mark.parametrize("stem", STEMS)
@given(st.sampled_from(["Doe", "_Doe", "-Doe", " Doe", "_4711081512", "\n", ".", "\u0661"]), st.booleans())
def test_nothing_may_be_added_to_one(stem, addition, is_before):
    assert not is_public_stem(f"{addition}{stem}" if is_before else f"{stem}{addition}")


@given(st.integers(0, 10**12).map(str))
def test_a_number_alone_is_nobodys_public_name(number):
    assert not is_public_stem(number)


@pytest.mark.parametrize(
    "stem", ["file9000001", "scan_1", "file_brain_DOE_200_2000001", "meas_MID00415_FID121697_", "P1", "simulated_x_000_0_t1"]
)
def test_what_only_looks_like_one_is_not(stem):
    assert not is_public_stem(stem)


def test_every_simulated_scan_has_a_name_and_an_acquisition_that_are_known(tmp_path):
    # Enough people that each anatomy shows every contrast.
    num_people = len(ANATOMIES) * max(len(anatomy.signals) for anatomy in ANATOMIES.values())
    paths = simulate(SimulationConfig(num_patients=num_people, volumes_per_patient=1, num_slices=1, matrix=32), tmp_path)
    assert all(is_public_stem(path.stem) for path in paths)
    codes = {f"SIM_{anatomy.orientation}{contrast}" for anatomy in ANATOMIES.values() for contrast in anatomy.signals}
    assert all(acquisition_code(code) == code for code in codes)


@pytest.mark.parametrize("code", ["CORPD_FBK", "CORPDFS_FBK", "AXT1", "AXT1PRE", "AXT1POST", "AXT2", "AXFLAIR", "cine_sax", "T1map"])
def test_an_acquisition_code_is_known(code):
    assert acquisition_code(code) == code


@given(st.text(max_size=40))
def test_free_text_is_no_code_no_collection_and_no_name(text):
    known = re.compile(r"[A-Za-z0-9_]+")
    assert acquisition_code(text) == "" or known.fullmatch(text)
    assert acquisition_code(f"Doe {text}") == collection_name(f"Doe {text}") == ""
    assert not is_public_folder(f"Doe {text}")


@pytest.mark.parametrize(
    "folder", ["multicoil_train", "singlecoil_test_v2", "knee_multicoil_val", "fastMRI_prostate_T2_IDS_001_020", "TrainingSet"]
)
def test_public_folders_are_known(folder):
    assert is_public_folder(folder)
    assert not is_public_folder(f"{folder}_Doe")


@pytest.mark.parametrize("name", ["fastmri", "fastMRI", "fastmri_knee", "MosaicMRI", "CMRxRecon2025", "simulated"])
def test_known_collections_keep_their_names(name):
    assert collection_name(name) == name
    assert collection_name(f"{name} of Doe") == ""
