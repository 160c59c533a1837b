"""Protocol names: what must be read from them, what must not, and that nothing else ever comes out."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.data.formats import open_volume
from echotrain.data.formats.protocol import Protocol, parse_protocol
from echotrain.data.formats.protocol_kinds import MOSAIC_KINDS, PROTOCOL_KINDS, protocol_kinds
from echotrain.data.formats.vocabulary import Vocabulary, plain
from echotrain.data.preparing.curate import CurationConfig, Rejection
from echotrain.errors import ConfigError
from echotrain.studies.mosaic.anatomy_groups import anatomy_group
from tests.scans import curate, header_xml, lines_of, random_kspace, write_ismrmrd, write_scan, write_twix


@pytest.mark.parametrize(
    ("words", "anatomy"),
    [
        *(("AX T1 TIB/FIB", "lower"), ("tibfib cor", "lower"), ("WRIST/HAND PD", "wrist"), ("hand-wrist", "wrist"), ("RT HAND", "hand")),
        *(("ATHLETIC PUBALGIA", "pelvis"), ("MRI THORACIC SPINE W/O", "spine"), ("SAG T2 T-SP", "spine"), ("C-SP SAG", "spine")),
        *(("MRI FEMUR LT", "femur"), ("SCAPULA RT", "scapula"), ("RIBS", "chest"), ("AX_PD_FS_THINS_SCAPHO_LUNATE", "wrist")),
        *(("Hüfte links t1", "hip"), ("HÜFTE RE", "hip"), ("pd_tse_fs_kor_Knie", "knee"), ("OSG li", "ankle"), ("Wirbelsäule", "spine")),
        *(("MRI LOWER EXTREMITY JOINT KNEE", "knee"), ("MRI LOWER EXTREMITY", "lower"), ("Upper Abdomen", "abdomen")),
        *(("elbow, radial head", "elbow"), ("radial head", "elbow"), ("femoral head cor", "hip"), ("thoracic outlet", "chest")),
        *(
            ("lower back", "spine"),
            ("LOW_BACK t1", "spine"),
            ("upper back", "spine"),
            ("L-spine", "spine"),
            ("lower leg, back coil", "lower"),
        ),
        *(("MRI HEAD", "brain"), ("head and neck", "neck")),
    ],
)
def test_an_anatomy_is_read(words, anatomy):
    assert parse_protocol(words=words).anatomy == anatomy


@pytest.mark.parametrize(
    "words",
    [
        "handled with care",
        "backhand",
        "ship",
        "Hipp",
        "sag_t_sp_t2",
        "legacy",
        "armed",
        "footer",
        "brainstorming",
        "t-spair",
        "shandy",
        "Beckenbauer",
    ],
)
def test_no_anatomy_is_read_from_within_another_word(words):
    assert parse_protocol(words=words).anatomy == ""


@pytest.mark.parametrize(
    ("words", "contrast", "fat_suppressed"),
    [
        *(("SAG PDFS", "PD_FS", True), ("AX T2FS", "T2_FS", True), ("COR T1FS", "T1_FS", True), ("T2 FAT SAT", "T2_FS", True)),
        *(("t2_fatsat_tra", "T2_FS", True), ("PD FAT-SAT", "PD_FS", True), ("T2FATSAT", "T2_FS", True), ("pd fettsat", "PD_FS", True)),
        *(("COR_PD_FS_S_P_ACL_ANG_DIXON", "PD_FS", True), ("t2_tse_dixon_cor", "T2_FS", True), ("dixon tra", "DIXON", True)),
        *(("t1_vibe_dixon_opp_phase", "T1", None), ("t2_de3d_we_sag", "DESS", True), ("DESS SAG", "DESS", None)),
        *(("t2_tirm_cor_p2", "STIR", True), ("TIRM", "STIR", True), ("t2_tirm_tra_dark-fluid_320", "FLAIR", None)),
        *(("t1_tirm_tra_dark-fluid", "T1_FLAIR", None), ("t2_space_dark-fluid_fs", "FLAIR_FS", True), ("AX T2 FLAIR", "FLAIR", None)),
        *(("t2_fl2d_tra_hemo", "T2STAR", None), ("t2*_gre", "T2STAR", None), ("t2_me2d_tra", "T2STAR", None)),
        ("AX T2 STAR", "T2STAR", None),
        *(("T1 NON FAT SAT", "T1", False), ("pd_tse_no_fs", "PD", False), ("T1 ohne FS", "T1", False), ("t1_mprage_sag", "T1", None)),
        *(("t1_fl3d_we_cor", "T1_FS", True), ("PD WE SAG", "PD_FS", True), ("as we said, T1", "T1", None), ("we T2", "T2", None)),
        *(("SAG FAT SAT KNEE", "", True), ("KNEE FS COR", "", True), ("KNEE NO FS", "", False), ("KNEE COR", "", None)),
        *(("t1 post fs", "T1_POST_FS", True), ("COR T1POST", "T1_POST", None), ("t1w_post_contrast_tra", "T1_POST", None)),
        *(
            ("T1 FS POST", "T1_POST_FS", True),
            ("AX T1 +C FS", "T1_POST_FS", True),
            ("T1 post op", "T1", None),
            ("t1 postop fs", "T1_FS", True),
        ),
        *(("post op T1", "T1", None), ("T1 post surgery", "T1", None), ("T2 post", "T2", None), ("post", "", None)),
        *(("pdx", "", None), ("t22", "", None), ("T10 vertebra", "", None), ("offset t1", "T1", None), ("T1 fsx", "T1", None)),
    ],
)
def test_a_contrast_and_its_fat_suppression_are_read(words, contrast, fat_suppressed):
    found = parse_protocol(words=words)
    assert (found.contrast, found.fat_suppressed) == (contrast, fat_suppressed)


@pytest.mark.parametrize(
    ("anatomy", "contrast", "expected"),
    [
        ("LEG_TIBFIB", "T2FS", ("lower", "T2_FS", True)),
        ("WRIST_HAND_THUMB", "PD FAT SAT", ("wrist", "PD_FS", True)),
        ("PELVIS_PUBALGIA", "TIRM", ("pelvis", "STIR", True)),
        ("wrist/hand", "T2_DIXON", ("wrist", "T2_FS", True)),
        ("ankle+foot", "DIXON", ("lower", "DIXON", True)),
        ("lower", "T1_FS", ("lower", "T1_FS", True)),
        *(("knee", contrast, ("knee", "T1_POST", False)) for contrast in ("T1POST", "T1_POST", "t1 post")),
        *(("knee", contrast, ("knee", "T1_POST_FS", True)) for contrast in ("T1POSTFS", "T1POST FS", "T1_POST_FS")),
        # Of two sources: the fat saturation of the one is no statement on the contrast of the other.
        ("knee", "FAT SAT", ("knee", "T1", None)),
        ("upper", "DESS", ("upper", "DESS", False)),
        ("Knee", "STIR_FS", ("knee", "STIR", True)),
        ("hip", "T2*", ("hip", "T2STAR", False)),
        ("SPINE", "pd", ("spine", "PD", False)),
    ],
)
def test_the_attributes_of_the_public_data_are_read(anatomy, contrast, expected):
    found = parse_protocol(anatomy=anatomy, contrast=contrast, words="cor t1 brain")
    assert (found.anatomy, found.contrast, found.fat_suppressed) == expected


def test_an_attribute_that_speaks_of_fat_alone_counts_where_nothing_says_a_contrast():
    found = parse_protocol(contrast="FAT SAT", words="knee, no fs")
    assert (found.anatomy, found.contrast, found.fat_suppressed) == ("knee", "", True)
    assert parse_protocol(contrast="T1", words="knee fs").fat_suppressed is False


def test_a_class_of_three_bones_leaves_it_to_the_words_which_one_it_is():
    assert parse_protocol(anatomy="SCAPULA_RIBS_FEMUR", words="MRI FEMUR").anatomy == "femur"
    assert parse_protocol(anatomy="SCAPULA_RIBS_FEMUR").anatomy == ""
    assert [anatomy_group(name) for name in ("femur", "scapula")] == ["lower extremity", "scapula"]


def test_attributes_in_any_spelling_reach_the_header_of_a_file(tmp_path):
    with open_volume(write_scan(tmp_path / "a.h5", attributes={"anatomy": "tib/fib", "contrast": "T2*"})) as volume:
        assert (volume.header.anatomy, volume.header.contrast) == ("lower", "T2STAR")


_ANATOMIES = (
    *("brain", "knee", "spine", "shoulder", "hip", "pelvis", "prostate", "ankle", "foot", "wrist", "hand", "elbow"),
    *("breast", "abdomen", "heart", "neck", "thigh", "calf", "lower", "upper", "chest", "face", "fetus", "finger"),
    *("scapula", "femur", "phantom"),
)
_CONTRASTS = ["T1", "T2", "PD", "STIR", "FLAIR", "T1_FLAIR", "T2_FLAIR", "T2STAR", "DESS", "DIXON", "DWI", "SWI"]
_PIECES = ["t1", "FS", "_", "-", " ", "knee", "Doe", "dixon", "we", "loc", "*", "ß", "é"]
_FRAGMENTS = st.lists(st.one_of(st.text(max_size=6), st.sampled_from(_PIECES)), max_size=12).map("".join)


@given(_FRAGMENTS, _FRAGMENTS, _FRAGMENTS)
def test_only_enumerated_words_come_out_of_any_text(anatomy, contrast, words):
    found = parse_protocol(anatomy=anatomy, contrast=contrast, words=words, name=words)
    assert found.anatomy in ("", *_ANATOMIES)
    assert found.contrast.removesuffix("_FS").removesuffix("_POST") in ("", *_CONTRASTS)
    assert found.orientation in ("", "AX", "SAG", "COR")
    assert set(found.kinds) <= set(PROTOCOL_KINDS)


@given(st.sampled_from(["knee", "fs", "t1", "hand", "loc", "tirm", "dess", "adj"]), st.sampled_from("abcxyz019"), st.booleans())
def test_no_word_is_found_inside_a_longer_one(word, letter, is_before):
    inside = f"{letter}{word}" if is_before else f"{word}{letter}"
    if inside in ("t1w", "adjz"):
        return
    text = f"?? {inside} ??"
    found = parse_protocol(words=text, name=text)
    assert dataclasses.replace(found, kinds=()) == Protocol()
    assert found.kinds == ()


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        *(("localizer_3plane", ("localizers",)), ("Three Plane Scout", ("localizers",)), ("AAHead_Scout_64ch", ("localizers",))),
        *(("AAKneeScout", ("localizers",)), ("3Plane Loc SSFSE", ("localizers",)), ("3PLOC", ("localizers",))),
        ("RT 3-PLANE UOF", ("localizers",)),
        *(("CoilSurveyScan", ("localizers",)), ("Lokalisator", ("localizers",)), ("HASTE T-SPINE LOC", ("localizers",))),
        *(("AdjQuietCoilSens", ("adjustments",)), ("adj_gre", ("adjustments",)), ("SENSE RefScan", ("adjustments",))),
        *(("knee_sn", ("phantoms",)), ("knee_sn4711 t1", ("phantoms",)), ("ACR_T1", ("phantoms",)), ("SITE_T2", ("phantoms",))),
        *(("weekly QC", ("phantoms",)), ("COR STIR SEMAC", ("semac",)), ("MAVRIC SL", ("semac",)), ("pd_de3d_we", ("dess",))),
        *(("t1_vibe_dixon", ("vibe",)), ("IN_OUT_PHASE", ("in-out-phase",)), ("t1_in_opp_tra", ("in-out-phase",))),
        *(("t1 out of phase", ("in-out-phase",)), ("BoneMRI", ("bone-mri",)), ("RT RADIAL PD FS", ("radial",))),
        *(("t2_blade_sag", ("propeller",)), ("t1_vibe_in_phase localizer", ("localizers", "vibe", "in-out-phase"))),
        *(("local anaesthesia", ()), ("location", ()), ("adjacent", ()), ("radial head pd", ()), ("RADIAL NERVE", ()), ("_snr", ())),
        *(("block", ()), ("contest", ()), ("sn", ()), ("t1_tse_sag", ()), ("in plane phase", ()), ("mavrick", ()), ("SAG_T1_WARP", ())),
    ],
)
def test_what_a_protocol_is_for_is_read_from_its_name(name, kinds):
    assert protocol_kinds(name) == kinds


def test_a_study_speaks_of_phantoms_and_of_no_other_kind():
    assert protocol_kinds("SAG T1", "WEEKLY ACR PHANTOM") == ("phantoms",)
    assert protocol_kinds("SAG T1", "knee, SEMAC protocol with scout") == ()


@pytest.mark.parametrize("is_user_parameter", [True, False])
def test_every_reader_says_what_the_protocol_is_for(tmp_path, is_user_parameter):
    text = "<userParameterString><name>tProtocolName</name><value>knee scout</value></userParameterString>"
    said = {"extra": f"<userParameters>{text}</userParameters>"} if is_user_parameter else {"protocol": "knee scout"}
    header = header_xml(32, 24, **said)
    kspace = random_kspace((3, 32, 24))
    with open_volume(write_scan(tmp_path / "a.h5", kspace[None], header=header)) as volume:
        assert volume.header.protocol_kinds == ("localizers",)
    with open_volume(write_ismrmrd(tmp_path / "b.h5", header, lines_of(kspace))) as volume:
        assert volume.header.protocol_kinds == ("localizers",)


def test_the_twix_reader_says_it_too(tmp_path):
    pytest.importorskip("twixtools")
    lines = [(random_kspace((3, 16), seed=line), {"Lin": line, "CenterLin": 6}) for line in range(12)]
    path = write_twix(tmp_path / "meas.dat", '\ntProtocolName = "AAHead_Scout"\nsKSpace.lBaseResolution = 8\n', lines)
    with open_volume(path) as volume:
        assert volume.header.protocol_kinds == ("localizers",)


def test_kinds_are_left_out_only_where_it_is_asked_for_and_the_reason_names_the_kind_alone(tmp_path):
    path = write_scan(tmp_path / "a.h5", header=header_xml(32, 24, protocol="Doe Jane knee localizer"))
    with open_volume(path) as volume:
        assert curate(volume) == []
        assert curate(volume, CurationConfig(leave_out=("dess",))) == []
        found = curate(volume, CurationConfig(leave_out=("dess", "localizers")))
    assert found == [Rejection(None, "of a kind that is left out by the protocol's name: localizers")]


def test_semac_is_always_left_out_because_it_is_like_3d(tmp_path):
    with open_volume(write_scan(tmp_path / "a.h5", header=header_xml(32, 24, protocol="COR STIR SEMAC"))) as volume:
        assert "encodes every slice in 3D" in curate(volume)[0].reason


def test_an_unknown_kind_is_refused_and_those_that_there_are_named():
    with pytest.raises(ConfigError, match=r"leave_out=scouts.*There are: localizers, "):
        CurationConfig(leave_out=("scouts",))
    assert set(MOSAIC_KINDS) < set(PROTOCOL_KINDS)


@pytest.mark.timeout(60)
def test_a_long_text_is_read_without_going_over_it_again_and_again():
    for text in ("a" * 1_000_000, "t1_" * 300_000, " " * 1_000_000, "3plane" * 100_000):
        assert parse_protocol(words=text, name=text)


def test_of_spellings_at_one_place_the_longer_counts_and_the_word_without_a_name_hides_shorter_ones():
    words = Vocabulary({"a": "ab, ab cd", "b": "cd", "": "cd ef"})
    assert words.said("ab-cd ab cd_ef, cd") == ["a", "a", "b"]
    assert words.said("ab cd ef") == ["a"]
    assert words.without("x ab cd y").split() == ["x", "y"]
    assert plain("Fußgelenk HÜFTE é") == "fussgelenk huefte e"
