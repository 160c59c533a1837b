"""Who is who: complete, for its owner alone, text to a spreadsheet, and never beside the catalog."""

import csv
import os
import stat

import pytest

from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.sources import find_sources
from echotrain.data.preparing.key_file import KeyEntry, check_key_file, identify, write_key_file
from echotrain.errors import ConfigError
from tests.scans import header_xml, lines_of, random_kspace, write_ismrmrd, write_scan, write_twix

SUBJECT = "<subjectInformation><patientName>Doe^Jane</patientName><patientID>MRN-0042</patientID></subjectInformation>"
TWIX = """<ParamString."tPatientName"> { "Doe^Jane" }
<ParamString."PatientID"> { "MRN-0042" }
"""


def test_whom_a_header_of_any_format_names_is_found(tmp_path):
    kspace = random_kspace((3, 16, 12))
    write_scan(tmp_path / "a.h5", header=header_xml(32, 24, extra=SUBJECT), attributes={"patient_id": ""})
    write_ismrmrd(tmp_path / "b.h5", header_xml(16, 12, extra=SUBJECT), lines_of(kspace))
    pytest.importorskip("twixtools")
    write_twix(
        tmp_path / "c.dat", TWIX, [(samples, {"Lin": at["kspace_encode_step_1"], "CenterLin": 6}) for samples, at in lines_of(kspace)]
    )
    (tmp_path / "d.h5").write_bytes(b"no scan")
    found = [identify(source, ReadLimits()) for source in find_sources(str(tmp_path))]
    assert [(identity.patient_id, identity.patient_name) for identity in found] == [("MRN-0042", "Doe^Jane")] * 3 + [("", "")]


def test_it_is_its_owners_alone_and_replaces_the_last_one(tmp_path):
    path, before = tmp_path / "key.csv", os.umask(0)
    try:
        for volume in ("a", "b"):
            write_key_file(check_key_file(str(path), str(tmp_path / "to")), [KeyEntry(source="s", volume=volume)])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open(newline="") as file:
        assert [row["volume"] for row in csv.DictReader(file)] == ["b"]
    assert [found.name for found in tmp_path.iterdir()] == ["key.csv"]


@pytest.mark.parametrize(
    "text", ["=1+1", "+49 170", "-2", "@sum", " =1", '=HYPERLINK("http://x")', "a\n=1", "\x1b[31m", "a,b", 'a"b', "\r=1"]
)
def test_a_cell_is_text_on_a_line_of_its_own(tmp_path, text):
    write_key_file(tmp_path / "key.csv", [KeyEntry(source=text, patient_name=text)])
    with (tmp_path / "key.csv").open(newline="") as file:
        lines = file.read().splitlines()
    assert len(lines) == 2
    (row,) = csv.DictReader(lines)
    assert row["source"] == row["patient_name"]
    assert not row["source"].lstrip().startswith(("=", "+", "-", "@"))
    assert "\x1b" not in lines[1]


def test_it_is_never_written_into_the_catalog_or_a_store_or_over_something_else(tmp_path):
    (tmp_path / "to" / "catalog").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "to")
    (tmp_path / "notes.csv").write_text("mine")
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "to" / "x.csv")
    for path, message in {
        "s3://lab/key.csv": "must be a file of this machine",
        str(tmp_path / "to" / "key.csv"): "lies in the catalog",
        str(tmp_path / "to" / "catalog" / "key.csv"): "lies in the catalog",
        str(tmp_path / "link" / "key.csv"): "lies in the catalog",
        str(tmp_path / "dangling.csv"): "is no key file",
        str(tmp_path / "notes.csv"): "is no key file",
        str(tmp_path): "is no key file",
        str(tmp_path / "none" / "key.csv"): "has no folder",
    }.items():
        with pytest.raises(ConfigError, match=message):
            check_key_file(path, str(tmp_path / "to"))
    assert (tmp_path / "notes.csv").read_text() == "mine"
    assert check_key_file(str(tmp_path / "key.csv"), "s3://lab/to") == tmp_path / "key.csv"
