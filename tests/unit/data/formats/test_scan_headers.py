"""ISMRMRD headers as they come: read with a note where the meaning is plain, refused where it is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.data.formats import open_volume
from echotrain.data.formats.header import VolumeHeader
from echotrain.data.formats.xml_header import header_xml as write_header
from echotrain.data.formats.xml_header import parse_header
from echotrain.errors import ScanError
from tests.scans import header_xml, object_kspace, write_scan


def test_sizes_that_went_through_arithmetic_are_rounded_and_noted():
    xml = header_xml(64, 48).replace(b"<y>48</y>", b"<y>47.9996</y>").replace(b"<x>64</x>", b"<x>64.0</x>")
    scan = parse_header(xml, "a")
    assert scan.encoded == (64, 48, 1)
    assert scan.notes == ("the header's 47.9996 is read as 48", "the header's 47.9996 is read as 48")


@pytest.mark.parametrize("value", [b"47.5", b"many", b"nan", b"inf", b"1e99"])
def test_sizes_that_mean_nothing_are_refused(value):
    with pytest.raises(ScanError):
        parse_header(header_xml(64, 48).replace(b"<y>48</y>", b"<y>" + value + b"</y>"), "a")


@pytest.mark.parametrize(
    "declaration", [b'<?xml version="1.0"?>', b'<?xml version="1.0" encoding="UTF-8"?>', b"<?xml version='1.0' encoding='utf-8'?>"]
)
def test_latin_1_that_says_utf_8_is_read_and_noted(tmp_path, declaration):
    subject = "<subjectInformation><patientName>Müller</patientName></subjectInformation>"
    xml = header_xml(64, 48, extra=subject).replace(b'<?xml version="1.0"?>', declaration).decode().encode("latin-1")
    scan = parse_header(xml, "a")
    assert scan.identifier("patientName") == "Müller"
    assert scan.notes == ("the header says UTF-8 and is Latin-1: read as Latin-1",)
    with open_volume(write_scan(tmp_path / "a.h5", object_kspace((1, 3, 64, 48)), header=xml)) as volume:
        assert volume.findings == scan.notes


def test_blanks_around_the_header_and_a_senseless_echo_train_are_no_fault():
    xml = header_xml(64, 48).replace(b"<trajectory>", b"<echoTrainLength>many</echoTrainLength><trajectory>")
    assert parse_header(b"\n  " + xml + b"\n\x00", "a").echo_train == 1


@pytest.mark.parametrize(("depth", "maximum", "expected"), [(20, "0", 1), (20, "19", 20), (20, None, 20), (1, "3", 4), (1, None, 1)])
def test_partitions_are_those_of_the_limits_and_of_the_matrix_where_there_are_none(tmp_path, depth, maximum, expected):
    xml = header_xml(64, 48, depth=depth)
    begin, end = xml.index(b"<kspace_encoding_step_2>"), xml.index(b"</kspace_encoding_step_2>") + len(b"</kspace_encoding_step_2>")
    limits = b"" if maximum is None else f"<kspace_encoding_step_2><maximum>{maximum}</maximum></kspace_encoding_step_2>".encode()
    with open_volume(write_scan(tmp_path / "a.h5", object_kspace((2, 3, 64, 48)), header=xml[:begin] + limits + xml[end:])) as volume:
        assert volume.num_partitions == expected


def test_utf_8_and_declared_latin_1_are_read_without_a_note():
    subject = "<subjectInformation><patientName>Müller</patientName></subjectInformation>"
    xml = header_xml(64, 48, extra=subject).decode()
    for coding in ("utf-8", "iso-8859-1"):
        scan = parse_header(xml.replace('<?xml version="1.0"?>', f'<?xml version="1.0" encoding="{coding}"?>').encode(coding), "a")
        assert (scan.identifier("patientName"), scan.notes) == ("Müller", ())


def test_a_header_in_latin_1_hides_no_entities():
    bomb = '<?xml version="1.0"?><!DOCTYPE h [<!ENTITY e "ü">]><ismrmrdHeader>&e;ü</ismrmrdHeader>'.encode("latin-1")
    with pytest.raises(ScanError, match="never expanded"):
        parse_header(bomb, "a")


def test_broken_xml_stays_broken_in_any_coding():
    with pytest.raises(ScanError, match="ISMRMRD XML"):
        parse_header("<ismrmrdHeader>ü<encoding>".encode("latin-1"), "a")


@pytest.mark.parametrize(("center", "maximum"), [(24, 400), (400, 47), (-3, 47), (24, -1)])
def test_limits_that_do_not_fit_say_nothing(center, maximum):
    assert parse_header(header_xml(64, 48, center=center, maximum=maximum), "a").padding(48) is None


def test_limits_that_fit_follow_fastmris_formula():
    assert parse_header(header_xml(64, 48, center=15, maximum=38), "a").padding(48) == (9, 48)
    assert parse_header(header_xml(64, 48), "a").padding(48) == (0, 48)
    np.testing.assert_equal(parse_header(header_xml(64, 15, center=8, maximum=14), "a").padding(15), (0, 14))


@given(st.data())
def test_a_header_that_is_written_says_the_same_when_it_is_read(data):
    def draw(least: int, most: int) -> int:
        return data.draw(st.integers(least, most))

    recon, height, width = (draw(8, 40), draw(8, 40)), draw(40, 90), draw(40, 90)
    left = draw(0, width // 2)
    written = VolumeHeader(
        dataset="d", volume="v", patient="p", num_slices=draw(1, 9), num_coils=draw(1, 5), height=height, width=width,
        recon_height=recon[0], recon_width=recon[1], fov_mm=(float(draw(90, 300)), float(draw(90, 300)), float(draw(1, 9))),
        padding_left=left, padding_right=draw(width // 2 + 1, width), field_strength=1.5, vendor="Siemens",
    )  # fmt: skip
    scan = parse_header(write_header(written, protocol="t2 knee"), "a")
    assert (scan.encoded, scan.recon) == ((height, width, 1), (*recon, 1))
    assert scan.padding(width) == (written.padding_left, written.padding_right)
    assert scan.recon_fov == written.fov_mm
    # A pixel of the image is as large as one of the encoded matrix, along each axis.
    for axis in range(2):
        assert scan.encoded_fov[axis] / scan.encoded[axis] == pytest.approx(written.fov_mm[axis] / recon[axis], rel=1e-4)
    assert scan.encoded_fov[2] == written.fov_mm[2]
    assert (scan.num_slices, scan.maximum_z, scan.protocol_name) == (written.num_slices, 0, "t2 knee")
    assert (scan.field_strength, scan.trajectory, scan.notes) == (1.5, "cartesian", ())


@pytest.mark.parametrize("namespace", ["", ' xmlns="urn:another"', ' xmlns:ismrmrd="http://www.ismrm.org/ISMRMRD"'])
def test_the_namespace_of_a_header_says_nothing(namespace):
    own = ' xmlns="http://www.ismrm.org/ISMRMRD"'
    said = "<userParameters><userParameterString><name>tProtocolName</name><value>knee pd</value></userParameterString></userParameters>"
    subject = "<subjectInformation><patientID>4711</patientID><patientGender>F</patientGender></subjectInformation>"
    xml = header_xml(64, 48, recon=(32, 40), center=20, extra=said + subject).decode()
    assert own in xml
    read = parse_header(xml.encode(), "a")
    assert (read.identifier("patientID"), read.sex, read.protocol_name) == ("4711", "F", "a protocol knee pd")
    assert parse_header(xml.replace(own, namespace).encode(), "a") == read
