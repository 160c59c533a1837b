"""De-identification: nothing that names a person, a place or a date gets past the readers."""

import dataclasses

import pytest

from echotrain.data.formats import Deidentifier, open_volume
from echotrain.data.formats.deidentify import Identity
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
    with open_volume(path, location=str(path)) as volume:
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


def test_a_patient_without_a_number_is_known_by_name_and_birth_date():
    first = Identity(patient_name="Doe^Jane", birth_date="1970-03-14")
    second = Identity(patient_name="DOE JANE", birth_date="19700314", patient_id="xxxxxxx")
    assert Deidentifier().patient(first, "a") == Deidentifier().patient(second, "b")
    assert Deidentifier().patient(first, "a") != Deidentifier().patient(dataclasses.replace(first, birth_date="1971-03-14"), "a")


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


@pytest.mark.parametrize("place", ["2024-03-22/knee.h5", "scans/my knee.h5", "Jane_Doe/scan.h5", "1.2.840.113619.2.55/scan.h5"])
def test_a_location_that_may_tell_who_or_when_is_not_written_down(tmp_path, place):
    path = write_scan(tmp_path / "scan.h5" if "my" not in place else tmp_path / "my knee.h5", header=header_xml(32, 24, extra=SUBJECT))
    with open_volume(path, location=f"s3://lab/{place}") as volume:
        assert not volume.is_location_safe
    with open_volume(write_scan(tmp_path / "knee.h5"), location="s3://lab/scans/knee.h5") as volume:
        assert volume.is_location_safe


def test_blanked_identities_do_not_make_one_patient_of_all():
    blank = Identity(patient_id="xxxxxxxx", patient_name="XXXX")
    assert Deidentifier().patient(blank, "a") != Deidentifier().patient(blank, "b")
    assert Deidentifier().patient(blank, "a").startswith("unnamed-")


def test_anonymised_real_twix_files_keep_their_names_and_hide_their_site(scanner_data):
    pytest.importorskip("twixtools")
    for name, site in (("skyra_VE11_gre_phantom_2ch", "DZNE"), ("trio_VB19_gre_phantom_4ch", "Freiburg")):
        with open_volume(scanner_data / "siemens" / f"{name}.dat") as volume:
            assert volume.header.volume == name
            assert site.casefold() not in str(volume.header).casefold()
            assert volume.header.center.startswith("site-")
