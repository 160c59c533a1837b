"""Sex is a word of three and weight a wide class, from whichever header; a header that says neither gives None."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.data.catalog.rows import header_columns
from echotrain.data.formats import open_volume
from echotrain.data.formats.subject import SEXES, WEIGHT_BINS_KG, sex_of, weight_bin_of
from tests.scans import header_xml, lines_of, random_kspace, write_ismrmrd, write_scan, write_twix
from tests.unit.data.formats.test_formats_raw import PROTOCOL, twix_lines


def subject(*, sex="", weight=""):
    """Return a part of an ISMRMRD header about a person."""
    parts = [f"<patientWeight_kg>{weight}</patientWeight_kg>"] * bool(weight) + [f"<patientGender>{sex}</patientGender>"] * bool(sex)
    return f"<subjectInformation><patientID>4711</patientID>{''.join(parts)}</subjectInformation>"


@given(kilograms=st.floats(0.5, 350))
def test_a_weight_is_in_its_class_and_the_ends_are_wide(kilograms):
    low = weight_bin_of(kilograms)
    assert low in WEIGHT_BINS_KG
    assert low <= kilograms or low == 40
    assert kilograms < low + 10 or low == 120


@pytest.mark.parametrize(
    ("kilograms", "low"),
    [(3.2, 40), (49.99, 40), (50.0, 50), (59.99, 50), (77.61, 70), (119.9, 110), (120.0, 120), (166.47, 120), (350.0, 120)],
)
def test_classes_begin_at_whole_tens(kilograms, low):
    assert weight_bin_of(kilograms) == low


@pytest.mark.parametrize("kilograms", [0.0, -70.0, 350.1, 9999.0, float("nan"), float("inf")])
def test_a_number_that_is_no_persons_weight_is_none(kilograms):
    assert weight_bin_of(kilograms) is None


@pytest.mark.parametrize(("text", "sex"), [("F", "F"), (" m ", "M"), ("Female", "F"), ("O", "O"), ("", None), ("X", None), ("Doe", None)])
def test_sex_is_one_of_three_words_or_unknown(text, sex):
    assert sex_of(text) == sex
    assert sex is None or sex in SEXES


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (subject(sex="F", weight="77.61"), ("F", 70)),
        (subject(sex="M"), ("M", None)),
        (subject(weight="166.47"), (None, 120)),
        (subject(sex="unknown", weight="0"), (None, None)),
        (subject(weight="heavy"), (None, None)),
        ("", (None, None)),
    ],
)
def test_both_layouts_of_ismrmrd_tell_them(tmp_path, extra, expected):
    kspace = random_kspace((1, 2, 8, 6))
    layout = write_scan(tmp_path / "layout.h5", kspace, header=header_xml(8, 6, extra=extra))
    raw = write_ismrmrd(tmp_path / "raw.h5", header_xml(8, 6, extra=extra), lines_of(kspace[0]))
    for path in (layout, raw):
        with open_volume(path) as volume:
            columns = header_columns(volume.header)
        assert (columns["sex"], columns["weight_bin_kg"]) == expected
        assert not any("77.6" in str(value) or "166" in str(value) for value in columns.values())


@pytest.mark.parametrize(("number", "sex"), [(1, "F"), (2, "M"), (3, "O"), (7, None)])
def test_twix_tells_them(tmp_path, number, sex):
    pytest.importorskip("twixtools")
    said = f'{PROTOCOL}\n<ParamLong."lPatientSex">  {{ {number}  }}\n<ParamDouble."flUsedPatientWeight">  {{ <Precision> 6  82.500000  }}\n'
    path = write_twix(tmp_path / "meas.dat", said, twix_lines(random_kspace((3, 16, 12))))
    with open_volume(path) as volume:
        assert (volume.header.sex, volume.header.weight_bin_kg) == (sex, 80)
    path = write_twix(tmp_path / "silent.dat", PROTOCOL, twix_lines(random_kspace((3, 16, 12))))
    with open_volume(path) as volume:
        assert (volume.header.sex, volume.header.weight_bin_kg) == (None, None)


@pytest.mark.parametrize(("name", "low"), [("trio_VB19_gre_phantom_4ch", 70), ("skyra_VE11_gre_phantom_2ch", 100)])
def test_real_twix_headers_tell_them(scanner_data, name, low):
    """Phantoms are registered with a weight, and with the sex "other"."""
    pytest.importorskip("twixtools")
    with open_volume(scanner_data / "siemens" / f"{name}.dat") as volume:
        assert (volume.header.sex, volume.header.weight_bin_kg) == ("O", low)
