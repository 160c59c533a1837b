"""De-identification: nothing that names a person, a place or a date gets past the readers."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from echotrain.data.formats import Deidentifier, open_volume
from echotrain.data.formats.deidentify import Identity, Person, Witness, is_blank
from echotrain.data.formats.person_names import birthday
from echotrain.errors import ConfigError
from tests.scans import header_xml, lines_of, random_kspace, write_ismrmrd, write_scan, write_twix

SECRETS = (
    "Doe",
    "Jane",
    "19700314",
    "1970-03-14",
    "Saint Elsewhere",
    "Elsewhere",
    "MRN-0042",
    "1.2.840.113619.2.55",
    "Frankenstein",
    "77123",
)
SUBJECT = """<subjectInformation><patientName>Doe^Jane</patientName><patientID>MRN-0042</patientID>
<patientBirthdate>1970-03-14</patientBirthdate></subjectInformation>
<studyInformation><studyDate>2024-03-22</studyDate><studyInstanceUID>1.2.840.113619.2.55</studyInstanceUID>
<referringPhysicianName>Frankenstein</referringPhysicianName><studyDescription>knee of Jane Doe</studyDescription></studyInformation>
<acquisitionSystemInformation><institutionName>Saint Elsewhere</institutionName><deviceSerialNumber>77123</deviceSerialNumber>
</acquisitionSystemInformation>"""
TWIX = """<ParamString."tPatientName"> { "Doe^Jane" }
<ParamString."PatientID"> { "MRN-0042" }
<ParamString."PatientBirthDay"> { "19700314" }
<ParamString."InstitutionName"> { "Saint Elsewhere" }
<ParamString."tStudyDescription"> { "knee of Jane Doe" }
<ParamString."FrameOfReference"> { "1.2.840.113619.2.55" }
"""


def assert_nothing_leaks(header):
    text = " ".join(str(value) for value in dataclasses.asdict(header).values()).casefold()
    for secret in SECRETS:
        assert secret.casefold() not in text


@pytest.mark.parametrize(
    "stem", ["scan7", "Doe_Jane", "jane-doe-knee", "MRN0042_knee", "knee_14031970", "study_20240322", "1.2.840.113619.2.55"]
)
def test_no_field_of_a_header_names_the_patient(tmp_path, stem):
    attributes = {"acquisition": "DOE", "anatomy": "Jane", "contrast": "MRN-0042"}
    path = write_scan(
        tmp_path / f"{stem}.h5", header=header_xml(32, 24, extra=SUBJECT), attributes={**attributes, "patient_id": "MRN-0042"}
    )
    # The user's pattern vouches for every name; the header objects to all but one.
    with open_volume(path, location=str(path), deidentifier=Deidentifier(safe_names=[".*"])) as volume:
        assert_nothing_leaks(volume.header)
        assert volume.header.anatomy == "knee"
        assert volume.header.volume == "scan7" if stem == "scan7" else volume.header.volume.startswith("volume-")
        assert volume.is_location_safe == (stem == "scan7")


def test_raw_files_are_deidentified_as_well(tmp_path):
    kspace = random_kspace((3, 16, 12))
    raw = write_ismrmrd(tmp_path / "Doe.h5", header_xml(16, 12, extra=SUBJECT), lines_of(kspace))
    with open_volume(raw) as volume:
        assert_nothing_leaks(volume.header)
        patient = volume.header.patient
    pytest.importorskip("twixtools")
    readouts = [(samples, {"Lin": values["kspace_encode_step_1"], "CenterLin": 6}) for samples, values in lines_of(kspace)]
    with open_volume(write_twix(tmp_path / "jane.dat", TWIX, readouts)) as volume:
        assert_nothing_leaks(volume.header)
        assert volume.header.patient == patient, "one person, one pseudonym, whatever the format"


def test_pseudonyms_are_stable_and_depend_on_the_salt():
    jane = Identity(patient_id="MRN-0042")
    assert Deidentifier().patient(jane, "a") == Deidentifier().patient(jane, "b")
    assert Deidentifier().patient(jane, "a") != Deidentifier("secret").patient(jane, "a")
    assert "secret" not in repr(Deidentifier("secret"))


def test_a_patient_without_a_number_is_known_by_name_whether_a_birth_date_is_there_or_not():
    first = Identity(patient_name="Doe^Jane", birth_date="1970-03-14")
    second = Identity(patient_name="DOE JANE", birth_date="19700314", patient_id="xxxxxxx")
    assert Deidentifier().patient(first, "a") == Deidentifier().patient(second, "b")
    assert Deidentifier().patient(first, "a") == Deidentifier().patient(dataclasses.replace(first, birth_date=""), "a")
    assert Deidentifier().person(first).born == Deidentifier().person(dataclasses.replace(first, birth_date="14.03.1970")).born != ""
    assert Deidentifier().person(first).born != Deidentifier().person(dataclasses.replace(first, birth_date="1971-03-14")).born


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Li^Wu", "scan_wu_li"),
        ("Ng^A", "knee-ng-2"),
        ("Müller^Jürgen", "mueller knee"),
        ("Müller^Jürgen", "MULLER_knee"),
        ("Mueller^Juergen", "Müller"),
        ("Ørsted^Åse", "oersted"),
        ("Łukasz", "lukasz_t2"),
        ("Mu\u0308ller", "M\u00fcller"),
    ],
)
def test_a_name_is_found_in_any_spelling(name, text):
    assert Identity(patient_name=name).occurs_in(text)


@pytest.mark.parametrize("text", ["flip_angle", "alignment", "scan_7", ""])
def test_a_short_name_is_not_found_within_other_words(text):
    assert not Identity(patient_name="Li^Al", patient_id="").occurs_in(text)


@pytest.mark.parametrize(
    "place", ["2024-03-22/knee.h5", "scans/knee of jane.h5", "Jane_Doe/scan.h5", "Doe, Jane/#1.h5", "1.2.840.113619.2.55/scan.h5"]
)
def test_a_location_that_may_tell_who_or_when_is_not_written_down(tmp_path, place):
    path = write_scan(tmp_path / place.rpartition("/")[2], header=header_xml(32, 24, extra=SUBJECT))
    given = Deidentifier(safe_names=[".*"])
    with open_volume(path, location=f"s3://lab/{place}", deidentifier=given) as volume:
        assert not volume.is_location_safe
    with open_volume(write_scan(tmp_path / "knee.h5"), location="s3://lab/scans/knee.h5", deidentifier=given) as volume:
        assert volume.is_location_safe


@pytest.mark.parametrize(
    "element",
    [
        *("patientName", "patientID", "patientBirthdate", "institutionName", "stationName", "deviceID", "deviceSerialNumber", "studyID"),
        *("studyDate", "seriesDate", "accessionNumber", "referringPhysicianName", "studyInstanceUID", "seriesInstanceUIDRoot"),
        *("frameOfReferenceUID", "measurementID", "anyOtherUID"),
    ],
)
def test_whatever_a_header_says_of_people_and_places_is_kept_out_of_names(tmp_path, element):
    given = Deidentifier(safe_names=[".*"])
    for text, is_kept in (("Zebulon", False), ("", True)):
        header = header_xml(32, 24, extra=f"<studyInformation><{element}>{text}</{element}></studyInformation>")
        path = write_scan(tmp_path / "knee_of_zebulon.h5", header=header, attributes={"patient_id": "4711"})
        with open_volume(path, location=f"s3://lab/scans/{path.name}", deidentifier=given) as volume:
            assert (volume.header.volume == "knee_of_zebulon") == is_kept
            assert volume.is_location_safe == is_kept


@pytest.mark.parametrize(
    ("stem", "identity"),
    [
        ("Doe_Jane_knee", Identity()),
        ("jane_doe_knee", Identity()),
        ("4711081512", Identity(patient_id="4711081512")),
        ("4711081512", Identity()),
        ("scan_010270", Identity()),
        ("scan_010270", Identity(birth_date="1970-02-01")),
        ("Frankenstein_2", Identity(others=("Frankenstein^Victor",))),
        ("Janey", Identity(patient_name="Doe^Jane")),
        ("file1234567", Identity()),
        ("file1000001_Jane", Identity()),
        ("meas_MID00415_FID121697_Doe_Jane", Identity()),
        ("meas_MID00415_FID121697_knee_4711", Identity()),
        ("simulated_jane_000_0_t1", Identity()),
        ("P001_Doe", Identity()),
        ("file1000001\n", Identity()),
    ],
)
def test_a_name_that_nobody_vouches_for_becomes_a_pseudonym(stem, identity):
    volume = Deidentifier("key").volume(stem, identity)
    assert re.fullmatch(r"volume-[0-9a-f]{12}", volume)
    assert volume != Deidentifier("another").volume(stem, identity)
    assert volume == Deidentifier("key").volume(stem, Identity())


@pytest.mark.parametrize(
    ("stem", "identity"),
    [
        ("Doe_1", Identity(patient_name="Doe^Jane")),
        ("scan_victor", Identity(others=("Frankenstein^Victor",))),
        ("scan_010270", Identity(birth_date="19700201")),
        ("scan_20240322", Identity(others=("2024-03-22",))),
        ("scan_22032024", Identity(others=("2024-03-22",))),
        ("scan_42", Identity(patient_id="MRN-0042")),
        ("scan_222", Identity(patient_id="222")),
        ("scan_77123", Identity(others=("77123",))),
        ("file1000001", Identity(patient_id="1000001")),
        ("elsewhere_1", Identity(institution="Saint Elsewhere")),
    ],
)
def test_whatever_the_pattern_a_name_that_holds_an_identifier_of_its_own_header_is_never_safe(stem, identity):
    deidentifier = Deidentifier(safe_names=[".*"])
    assert deidentifier.volume(stem, identity).startswith("volume-")
    assert deidentifier.volume(stem, Identity()) == stem


def test_the_number_of_a_subject_of_a_small_study_is_no_identifier_in_a_name():
    assert Deidentifier(safe_names=[r"s\d_AXT\d"]).volume("s1_AXT1", Identity(patient_id="1")) == "s1_AXT1"
    assert Deidentifier().volume("file1000222", Identity(patient_id="222")) == "file1000222", "a part of a longer number"


def test_a_pattern_has_to_match_in_whole_and_to_be_one():
    assert Deidentifier(safe_names=["study"]).volume("study_Jane", Identity()).startswith("volume-")
    assert Deidentifier(safe_names=["a", r"study_\w+"]).volume("study_7", Identity()) == "study_7"
    with pytest.raises(ConfigError, match=r"safe name '\*\.h5': is no regular expression"):
        Deidentifier(safe_names=["*.h5"])


def test_a_twix_file_called_by_its_measurement_in_the_scanners_book_gets_a_pseudonym(tmp_path):
    pytest.importorskip("twixtools")
    readouts = [
        (samples, {"Lin": values["kspace_encode_step_1"], "CenterLin": 6}) for samples, values in lines_of(random_kspace((3, 16, 12)))
    ]
    with open_volume(write_twix(tmp_path / "meas_MID00415_FID121697_COR_T1.dat", TWIX, readouts)) as volume:
        assert volume.header.volume.startswith("volume-")


def test_a_twix_patient_of_one_digit_is_a_patient_and_a_blanked_one_is_known_by_the_scanners_own_number(tmp_path):
    pytest.importorskip("twixtools")
    readouts = [
        (samples, {"Lin": values["kspace_encode_step_1"], "CenterLin": 6}) for samples, values in lines_of(random_kspace((3, 16, 12)))
    ]

    def patient(name, number, local):
        text = f'<ParamString."PatientID"> {{ "{number}" }}\n<ParamString."PatientLOID"> {{ "{local}" }}\n'
        with open_volume(write_twix(tmp_path / f"{name}.dat", text, readouts)) as volume:
            return volume.header.patient

    assert patient("a", "7", "1.2.3") == patient("b", "7", "4.5.6") != patient("c", "8", "1.2.3")
    assert patient("d", "xxxx", "1.2.3") == patient("e", "0000", "1.2.3") != patient("f", "xxxx", "4.5.6")


@pytest.mark.parametrize("blank", ["", "xxxx", "anonymous"])
def test_a_blanked_attribute_does_not_hide_the_headers_number(tmp_path, blank):
    subject = "<subjectInformation><patientID>7</patientID></subjectInformation>"
    with open_volume(write_scan(tmp_path / "a.h5", header=header_xml(32, 24, extra=subject), attributes={"patient_id": blank})) as volume:
        assert volume.header.patient == Deidentifier().patient(Identity(patient_id="7"), "a")


@pytest.mark.parametrize(
    ("attribute", "text", "expected"),
    [
        ("acquisition", "CORPD_FBK", "CORPD_FBK"),
        ("acquisition", "AXT1POST", "AXT1POST"),
        ("acquisition", "SIM_CORPD_FS", "SIM_CORPD_FS"),
        ("acquisition", "DOE", ""),
        ("acquisition", "knee_of_Roe", ""),
        ("acquisition", "AXT1POST_Roe", ""),
        ("dataset", "fastMRI", "fastMRI"),
        ("dataset", "cmrxrecon2025", "cmrxrecon2025"),
        ("dataset", "Roe_collection", "scans"),
        ("dataset", "fastMRI-Roe", "scans"),
    ],
)
def test_attributes_give_known_codes_and_collections_and_no_other_word(tmp_path, attribute, text, expected):
    with open_volume(write_scan(tmp_path / "a.h5", attributes={attribute: text})) as volume:
        assert getattr(volume.header, attribute) == expected


def test_the_users_own_word_for_the_collection_is_the_users(tmp_path):
    with open_volume(write_scan(tmp_path / "a.h5"), dataset="our knees") as volume:
        assert volume.header.dataset == "our knees"


def ids():
    """Numbers of patients in many spellings: what a small study, a hospital or a register writes."""
    number = st.integers(0, 99_999).map(str)
    padded = st.integers(0, 9_999).map("{:03d}".format)
    coded = st.builds("{}{}{}".format, st.sampled_from(["sub", "S", "MRN", "P"]), st.sampled_from(["", "-", "_", " "]), number)
    words = st.text(st.characters(categories=["L", "Nd"]), min_size=1, max_size=8)
    return st.one_of(number, padded, coded, words, st.sampled_from(["0", "1", "7", "11", "99", "222", "1111", "x", "A", "Ä"]))


@given(ids(), st.sampled_from(["", " ", "  "]), st.booleans())
def test_an_id_makes_one_patient_of_all_its_scans(number, blanks, is_upper):
    written = f"{blanks}{number}{blanks}"
    if is_upper and number.upper().casefold() == number.casefold():
        written = written.upper()
    assume(not is_blank(number))
    first = Deidentifier().patient(Identity(patient_id=number), "a")
    assert first.startswith("patient-")
    assert Deidentifier().patient(Identity(patient_id=written, patient_name="Doe"), "b") == first


@given(st.integers(0, 99_999), st.integers(0, 6))
def test_no_number_but_zeros_is_a_blank_up_to_five_digits(number, width):
    text = f"{number:0{width}d}"
    assert is_blank(text) == (set(text) == {"0"} and len(text) >= 4)


@pytest.mark.parametrize(
    "text",
    ["", " ", "^", "--", "****", "xxxx", "XXXXXXXX", "xx^xx", "0000", "00000000", "999999", "anonymous", "Unknown", "N/A", "De-identified"],
)
def test_what_an_anonymiser_leaves_is_a_blank(text):
    assert is_blank(text)


@pytest.mark.parametrize("text", ["x", "xx", "xxx", "A", "0", "00", "000", "1", "99", "9999", "11111", "xxxy", "anonymous7", "Nan", "Nona"])
def test_in_doubt_it_is_an_identifier(text):
    assert not is_blank(text)


@pytest.mark.parametrize("spelling", ["Doe^Jane", "DOE^JANE^^", "Jane Doe", "doe, jane", "Doe^Jane^^Dr", "=Doe^Jane", "Döe^Jane"])
def test_a_name_has_one_pseudonym_in_whatever_order_and_case_and_with_or_without_a_birth_date(spelling):
    name = Deidentifier().person(Identity(patient_name="Doe^Jane")).person
    assert Deidentifier().person(Identity(patient_name=spelling, birth_date="19700314")).person == name
    assert Deidentifier().person(Identity(patient_name="Doe^John")).person != name
    assert Deidentifier("key").person(Identity(patient_name="Doe^Jane")).person != name


def test_nobody_is_named_by_a_blank_and_subjects_are_told_apart_by_their_numbers():
    assert Deidentifier().person(Identity(patient_name="xxxx^xxxx")) == Deidentifier().person(Identity(patient_name="--")) == Person()
    assert Deidentifier().person(Identity(patient_name="№^№")).person.startswith("patient-")
    assert len({Deidentifier().person(Identity(patient_name=f"Subject {number}")).person for number in range(9)}) == 9


def test_a_name_stands_for_the_same_patient_whether_there_is_a_number_or_not():
    named = Identity(patient_name="Doe^Jane", birth_date="19700314")
    assert Deidentifier().person(dataclasses.replace(named, patient_id="0")).person == Deidentifier().patient(named, "a")


@pytest.mark.parametrize("text", ["1976-05-12", "19760512", "12.05.1976", "05/12/1976", "1976-05-12T00:00:00"])
def test_a_birth_date_is_one_in_whatever_order(text):
    assert birthday(text) == "1976-05-12"


@pytest.mark.parametrize("text", ["", "1976", "19760101", "01.01.1976", "00000000", "99999999", "unknown", "19761350"])
def test_what_anonymisers_leave_is_no_birth_date(text):
    assert birthday(text) == ""


def test_no_word_of_a_name_is_in_its_pseudonyms():
    text = str(Deidentifier("key").person(Identity(patient_name="Doe^Jane VOL07", birth_date="19700314")))
    assert not re.search("do|jan|vol|1970", text.replace("born", ""), re.IGNORECASE)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(7), "7"),
        (np.uint8(0), "0"),
        (np.int64(12345678901), "12345678901"),
        (np.float64(7), "7"),
        (np.array([7]), "7"),
        ("7", "7"),
    ],
)
def test_a_number_that_is_a_number_is_the_same_patient_as_its_digits(tmp_path, value, expected):
    with open_volume(write_scan(tmp_path / "a.h5", attributes={"patient_id": value})) as volume:
        assert volume.header.patient == Deidentifier().patient(Identity(patient_id=expected), "a")


def test_a_number_that_is_a_number_is_found_in_a_name(tmp_path):
    path = write_scan(tmp_path / "study_12345678901.h5", attributes={"patient_id": np.int64(12345678901)})
    with open_volume(path, deidentifier=Deidentifier(safe_names=[r"study_\d+"])) as volume:
        assert volume.header.volume.startswith("volume-")


@pytest.mark.parametrize("date", ["05_12_76", "12_05_76", "76_05_12", "5_12_76", "05-12-76", "12+05+76", "T2_05_12_76"])
@pytest.mark.parametrize("birth_date", ["", "1976-05-12"])
def test_a_date_typed_at_the_console_is_no_word_of_a_protocol(date, birth_date):
    stem = f"meas_MID00415_FID121697_T1_{date}"
    assert Deidentifier().volume(stem, Identity(birth_date=birth_date)).startswith("volume-")
    if date != "5_12_76":
        assert Identity(birth_date="1976-05-12").occurs_in(f"study_{date}")


def test_two_numbers_in_a_row_are_no_date():
    stem = "meas_MID00415_FID121697_T1_05_12_COR_3"
    assert Deidentifier().volume(stem, Identity()) == stem


@pytest.mark.parametrize(
    ("stem", "number"),
    [
        ("P001_cine_sax", "P001"),
        ("P001_cine_sax", "001"),
        ("P001_cine_sax", "P001_cine_sax"),
        ("file_prostate_AXT2_001", "001"),
        ("fastMRI_breast_001_1", "001"),
        ("file_brain_AXT2_200_2000001", "2000001"),
        ("meas_MID00415_FID121697_COR_T1", "415"),
        ("P123", "123"),
    ],
)
def test_a_data_sets_own_number_hides_no_public_name_but_the_patients_name_does(stem, number):
    assert Deidentifier().volume(stem, Identity(patient_id=number)) == stem
    assert Deidentifier().volume(stem, Identity(patient_id=number, patient_name=f"{stem}^Jane")).startswith("volume-")


def placed(place: str, identity: Identity, root: str = "") -> tuple[str, str]:
    """Return volume and patient of a scan that lies at a place."""
    witness, stem = Witness(Deidentifier("key", root=root), place), place.rpartition("/")[2].partition(".")[0]
    return witness.volume(stem, identity), witness.patient(identity, stem)


def test_scans_that_name_nobody_are_their_folders_subjects_and_no_one_by_their_names_alone():
    nobody = Identity()
    for one, other in (
        ("sub-01/T1.h5", "sub-01/anat/T2.h5"),
        ("P001_cine_sax.h5", "P001/T1map.h5"),
        ("Subject_7/a.h5", "x/subject_7/b.h5"),
    ):
        assert placed(one, nobody)[1] == placed(other, nobody)[1]
        assert placed(one, nobody)[1].startswith("patient-")
    for one, other in (("sub-01/T1.h5", "sub-02/T1.h5"), ("P001_cine_sax.h5", "P002_cine_sax.h5"), ("a/T1.h5", "b/T1.h5")):
        assert placed(one, nobody)[1] != placed(other, nobody)[1]
    assert placed("a/T1.h5", nobody)[1].startswith("unnamed-")
    assert placed("sub-01_ses-1_T1w.h5", nobody)[1] == placed("sub-01/T1w.h5", nobody)[1]


@pytest.mark.parametrize("folder", ["scans", "patients", "case_reports", "subjects", "P01", "multicoil_train"])
def test_a_folder_that_is_no_subjects_makes_no_patient(folder):
    assert placed(f"{folder}/a.h5", Identity())[1].startswith("unnamed-")


def test_of_nested_subjects_the_outermost_counts_and_cmrxrecons_sets_count_apart():
    nobody = Identity()
    assert placed("sub-01/case-1/a.h5", nobody)[1] == placed("sub-01/case-2/a.h5", nobody)[1]
    assert placed("TrainingSet/P001/cine_sax.h5", nobody)[1] != placed("ValidationSet/P001/cine_sax.h5", nobody)[1]
    assert placed("Cine/TrainingSet/P001/cine_sax.h5", nobody)[1] == placed("Mapping/TrainingSet/P001/T1map.h5", nobody)[1]


def test_a_stem_of_cmrxrecon_for_a_number_is_its_subject_and_a_header_that_names_somebody_comes_first():
    stem = Identity(patient_id="P001_cine_sax")
    assert placed("P001_cine_sax.h5", stem) == placed("P001_cine_sax.h5", Identity())
    assert placed("x.h5", stem)[1] == placed("P001/T1map.h5", Identity())[1] == placed("y.h5", Identity(patient_id="P001"))[1]
    assert placed("P001/T1map.h5", Identity(patient_id="7"))[1] == placed("x.h5", Identity(patient_id="7"))[1]


def test_files_that_every_subjects_folder_has_get_the_subject_in_front():
    assert placed("TrainingSet/P001/cine_sax.h5", Identity())[0] == "P001_cine_sax"
    assert placed("P001/P001_cine_sax.h5", Identity())[0] == "P001_cine_sax"
    assert placed("P001/file1000001.h5", Identity())[0] == "file1000001"


def test_a_witness_gives_the_same_pseudonyms_and_remembers_whom_it_was_asked_about():
    deidentifier = Deidentifier("key", safe_names=["a"], root="r")
    witness, jane = Witness(deidentifier), Identity(patient_id="7", patient_name="Doe^Jane")
    assert witness.patient(jane, "a") == deidentifier.patient(jane, "a")
    assert witness.volume("a", jane) == "a"
    assert witness.identity == jane
    assert "Jane" not in repr(deidentifier)


def test_a_name_that_is_no_unicode_has_a_pseudonym_too():
    assert Deidentifier().volume("knee_\udcff", Identity()).startswith("volume-")


def test_blanked_identities_do_not_make_one_patient_of_all():
    blank = Identity(patient_id="xxxxxxxx", patient_name="XXXX")
    assert Deidentifier().patient(blank, "a") != Deidentifier().patient(blank, "b")
    assert Deidentifier().patient(blank, "a").startswith("unnamed-")


def test_anonymised_real_twix_files_keep_their_names_and_hide_their_site(scanner_data):
    pytest.importorskip("twixtools")
    for name, site in (("skyra_VE11_gre_phantom_2ch", "DZNE"), ("trio_VB19_gre_phantom_4ch", "Freiburg")):
        with open_volume(scanner_data / "siemens" / f"{name}.dat", deidentifier=Deidentifier(safe_names=[r"\w+_phantom_\dch"])) as volume:
            assert volume.header.volume == name
            assert site.casefold() not in str(volume.header).casefold()
            assert volume.header.center.startswith("site-")
