"""Scans that name their patient, physicians and places wherever their formats let them, and a search for any of it in what was written."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from tests.scans import NAMESPACE, lines_of, random_kspace, write_ismrmrd, write_scan, write_twix

# Where an identifier stands, and what of it would be recognised. All are different, so that a leak says where it came from.
IN_HEADER = {
    "patientName": "Quixote^Dulcinea",
    "patientID": "HX4711081512",
    "patientBirthdate": "1957-03-09",
    "institutionName": "Saint Elsewhere Montevideo",
    "stationName": "MRQUORN7",
    "deviceID": "DEVXANADU3",
    "deviceSerialNumber": "8351749",
    "studyID": "STU9081736",
    "studyDate": "2023-11-27",
    "seriesDate": "2023-11-28",
    "accessionNumber": "ACC5550123",
    "referringPhysicianName": "Frankenstein^Victor",
    "studyInstanceUID": "1.3.6.1.4.1.77123456.55",
    "seriesInstanceUIDRoot": "1.3.6.1.4.1.77654321.56",
    "frameOfReferenceUID": "1.3.6.1.4.1.77999111.57",
    "measurementID": "MEAS_6180339_00815",
    "protocolName": "t2_tse_sag_Zarathustra",
    "seriesDescription": "sag Hildegardis",
    "studyDescription": "knee of Rumpelstilz",
    "bodyPartExamined": "knee Persephone",
    "systemModel": "Avanto Zaphod",
    "coilName": "Coil Brangaene",
    "userParameterString tProtocolName": "pd_sag_Nostradamus",
    "userParameterString": "Cagliostro",
}
IN_ATTRIBUTES = {
    "acquisition": "Parsifal",
    "anatomy": "knee_Isolde",
    "contrast": "T2_Tristan",
    "dataset": "Kundry",
    "patient_id": "HXATTR998877",
    "operator": "Klingsor",
}
IN_TWIX = {
    "tPatientName": "Sancho^Pansa",
    "PatientID": "HX3141592653",
    "PatientBirthDay": "19610411",
    "InstitutionName": "Charenton Asylum",
    "InstitutionAddress": "Rue Morgue 13",
    "tPerfPhysiciansName": "Moreau^Island",
    "tReferringPhysician": "Jekyll^Henry",
    "DeviceSerialNumber": "9473621",
    "StudyLOID": "LOIDSTUDY271828",
    "PatientLOID": "LOIDPATIENT161803",
    "FrameOfReference": "1.3.12.2.1107.5.2.88776655",
    "tProtocolName": "t1_tse_cor_Mephisto",
    "tStudyDescription": "knee Gretchen",
    "tBodyPartExamined": "KNEE Walpurgis",
    "tSequenceFileName": "Beckmesser",
    "tComment": "as Sachs said",
}
FOLDER, BROKEN, HOSTILE = "Titurel_ward", "Gurnemanz_scan", "Kundalini"
STEMS = {"fastmri": "Amfortas_knee", "ismrmrd": "Lohengrin_knee", "twix": "meas_MID00815_FID60417_Siegfried"}
_HARMLESS = {
    "sag",
    "cor",
    "knee",
    "tse",
    "pd",
    "t1",
    "t2",
    "of",
    "as",
    "said",
    "coil",
    "ward",
    "scan",
    "saint",
    "meas",
    "rue",
    "13",
    "island",
    "henry",
    "study",
}


def needles() -> dict[str, str]:
    """Return every text that must not come out, casefolded, and where it stood."""
    found = {}
    named = {**IN_HEADER, **{f"attribute {k}": v for k, v in IN_ATTRIBUTES.items()}, **{f"twix {k}": v for k, v in IN_TWIX.items()}}
    named |= {f"stem of {k}": v for k, v in STEMS.items()}
    for place, text in {**named, "folder": FOLDER, "stem of a broken file": BROKEN, "hostile header": HOSTILE}.items():
        words = [word for part in text.replace("^", " ").replace("_", " ").split() if (word := part.casefold()) not in _HARMLESS]
        found |= dict.fromkeys([word for word in words if len(word) > 3], place)
    birth = {
        "19570309": "patientBirthdate",
        "09031957": "patientBirthdate",
        "090357": "patientBirthdate",
        "11041961": "twix PatientBirthDay",
    }
    return {**found, **birth, "1957-03-09": "patientBirthdate", "20231127": "studyDate", "6180339_00815": "measurementID"}


def header(height: int, width: int, *, patient: str = "", matrix: str = "") -> bytes:
    """Return an ISMRMRD header that has all of ``IN_HEADER``; ``patient`` replaces the patient's number."""
    text = {**IN_HEADER, "patientID": patient or IN_HEADER["patientID"]}

    def tags(*names: str) -> str:
        return "".join(f"<{name}>{text[name]}</{name}>" for name in names)

    space = f"<matrixSize><x>{matrix or height}</x><y>{width}</y><z>1</z></matrixSize>"
    space += "<fieldOfView_mm><x>64</x><y>48</y><z>4</z></fieldOfView_mm>"
    parameters = "".join(
        f"<userParameterString><name>{name}</name><value>{value}</value></userParameterString>"
        for name, value in (("tProtocolName", text["userParameterString tProtocolName"]), ("remark", text["userParameterString"]))
    )
    return f"""<?xml version="1.0"?><ismrmrdHeader xmlns="{NAMESPACE}">
    <subjectInformation>{tags("patientName", "patientID", "patientBirthdate")}</subjectInformation>
    <studyInformation>{tags("studyID", "studyDate", "accessionNumber", "referringPhysicianName", "studyInstanceUID", "studyDescription")}
    {tags("bodyPartExamined")}</studyInformation>
    <measurementInformation>{tags("measurementID", "seriesDate", "protocolName", "seriesDescription", "seriesInstanceUIDRoot")}
    {tags("frameOfReferenceUID")}</measurementInformation>
    <acquisitionSystemInformation><systemVendor>SIEMENS</systemVendor><systemFieldStrength_T>1.5</systemFieldStrength_T>
    {tags("systemModel", "stationName", "deviceID", "deviceSerialNumber", "institutionName")}
    <coilLabel><coilNumber>0</coilNumber>{tags("coilName")}</coilLabel></acquisitionSystemInformation>
    <encoding><encodedSpace>{space}</encodedSpace><reconSpace>{space}</reconSpace><encodingLimits>
    <kspace_encoding_step_1><minimum>0</minimum><maximum>{width - 1}</maximum><center>{width // 2}</center></kspace_encoding_step_1>
    </encodingLimits><trajectory>cartesian</trajectory></encoding>
    <userParameters>{parameters}</userParameters></ismrmrdHeader>""".encode()


def write_named_scans(folder: Path, *, num_patients: int = 9) -> list[Path]:
    """Write scans of three formats, and files that cannot be read, below a folder that names somebody.

    Those of fastMRI's layout are of ``num_patients`` people, so that every split gets some.
    """
    place = folder / FOLDER
    place.mkdir(parents=True)
    paths = []
    for index in range(num_patients):
        kspace = random_kspace((2, 3, 32, 24), seed=index)
        attributes = {**IN_ATTRIBUTES, "patient_id": f"{IN_ATTRIBUTES['patient_id']}{index}"}
        paths.append(write_scan(place / f"{STEMS['fastmri']}_{index}.h5", kspace, header=header(32, 24), attributes=attributes))
    lines = lines_of(random_kspace((3, 16, 12), seed=50))
    paths.append(write_ismrmrd(place / f"{STEMS['ismrmrd']}.h5", header(16, 12), lines))
    text = "".join(f'<ParamString."{key}"> {{ "{value}" }}\n' for key, value in IN_TWIX.items())
    readouts = [
        (samples, {"Lin": at["kspace_encode_step_1"], "CenterLin": 6}) for samples, at in lines_of(random_kspace((3, 16, 12), seed=51))
    ]
    paths.append(write_twix(place / f"{STEMS['twix']}.dat", text, readouts))
    paths.append(place / f"{BROKEN}.h5")
    paths[-1].write_bytes(paths[0].read_bytes()[:3000])
    paths.append(write_scan(place / f"{BROKEN}_2.h5", header=header(32, 24, matrix=HOSTILE), attributes=IN_ATTRIBUTES))
    return paths


def identifiers_in(content: bytes | str) -> dict[str, str]:
    """Return every identifier that a content holds, and where it stood."""
    data = (content.encode(errors="surrogateescape") if isinstance(content, str) else content).lower()
    return {needle: place for needle, place in needles().items() if needle.encode() in data}


def identifiers_below(folder: Path) -> dict[str, dict[str, str]]:
    """Return the identifiers in the name and in every byte of every file, by file; what is compressed is opened."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        there = identifiers_in(str(path.relative_to(folder)))
        for content in _contents(path):
            there |= identifiers_in(content)
        if there:
            found[str(path.relative_to(folder))] = there
    return found


def _contents(path: Path) -> Iterator[bytes | str]:
    content = path.read_bytes()
    yield content
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        yield f"{table.schema} {table.to_pylist()}"
    elif zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield name
                yield archive.read(name)
