"""Images to rows: what becomes of a source with several volumes, and that nothing of a patient gets through."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from echotrain.data.catalog.rows import Catalog
from echotrain.data.catalog.selection import select
from echotrain.data.catalog.store import commit_catalog, load_catalog
from echotrain.data.formats import Deidentifier
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.sources import find_sources, local_copy
from echotrain.data.planned import PlannedStream
from echotrain.data.preparing.assemble import Assembly, assemble
from echotrain.data.preparing.convert import ConvertConfig, ScanRecord, read_record, scan_key
from echotrain.data.preparing.convert_images import convert_source
from echotrain.data.preparing.curate import CurationConfig
from echotrain.data.preparing.key_file import identify
from echotrain.data.samples.image import ImageData
from echotrain.data.splits.given import GivenSplit, with_parts
from echotrain.data.splits.made import SplitConfig
from echotrain.storage.open import open_store
from tests.dicoms import SECRETS, random_images, write_nifti, write_series
from tests.s3_fake import FakeS3

AFFINE = np.diag([1.0, 1.5, 4.0, 1])


def convert(source: Path | str, to: Path, config: ConvertConfig | None = None) -> list[ScanRecord]:
    """Convert all that lies below a folder, and return a record for each volume."""
    config, store, deidentifier = config or ConvertConfig(), open_store(str(to)), Deidentifier("salt", root=f"{source}/")
    records = []
    for found in find_sources(str(source), with_images=True):
        key = scan_key(deidentifier, found.uri, found.size, found.version, config)
        with local_copy(found) as path:
            record = convert_source(path, uri=found.uri, key=key, store=store, config=config, deidentifier=deidentifier)
        kept = read_record(store, key)
        assert record.rejections or (kept is not None and kept.volumes == record.volumes)
        records += record.volumes
    return records


def assembled(records: list[ScanRecord], to: Path) -> tuple[Assembly, Catalog]:
    assembly = assemble(records, None, SplitConfig())
    return assembly, commit_catalog(open_store(str(to)), assembly.table, assembly.manifest())


def stored(catalog: Catalog) -> dict[tuple[str, int, int | None], np.ndarray]:
    """Return the images of a catalog, in its own units, by volume, slice and frame."""
    found = {}
    for row in catalog.rows():
        with (Path(catalog.root) / row.target_uri).open("rb") as file:
            file.seek(row.target_offset)
            values = np.frombuffer(file.read(row.target_nbytes), np.float32)
        found[row.volume, row.slice, row.frame] = values.reshape(row.recon_height, row.recon_width)
    return found


def test_rows_say_that_there_is_no_kspace_and_where_the_image_is(tmp_path: Path) -> None:
    volume = random_images(3, 9, 7)
    write_series(tmp_path / "in" / "Doe_Jane", volume)
    _, catalog = assembled(convert(tmp_path / "in", tmp_path / "out"), tmp_path / "out")
    rows = load_catalog(str(tmp_path / "out")).rows()
    for row in rows:
        assert (row.kind, row.coils, row.nbytes, row.uri, row.checksum) == ("image", 0, 0, "", None)
        assert (row.height, row.width, row.recon_height, row.recon_width, row.padding_right) == (9, 7, 9, 7, 7)
        assert (row.num_slices, row.frame, row.num_frames) == (3, None, None)
        assert (row.fov_readout_mm, row.fov_phase_mm, row.thickness_mm) == (4.5, 5.25, 3.0)
        assert (row.dataset, row.anatomy, row.contrast, row.orientation, row.vendor) == ("images", "knee", "T2", "AX", "Siemens")
        assert row.max_value == volume.max()
        assert row.norm == pytest.approx(np.linalg.norm(volume.astype(float)))
    assert np.array_equal(np.stack(list(stored(catalog).values())), volume)


def test_nothing_of_a_patient_is_in_rows_shards_records_or_names(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "Doe^Jane 19610507", random_images(3, 9, 7))
    write_series(
        tmp_path / "in" / "MRN-77123",
        random_images(3, 9, 7, seed=1),
        uid="1.2.77",
        change=lambda i, made: setattr(made, "ImageType", ["DERIVED"]),
    )
    write_nifti(tmp_path / "in" / "Doe_Jane_T1w.nii.gz", random_images(5, 6, 3, seed=2), AFFINE)
    assembled(convert(tmp_path / "in", tmp_path / "out"), tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        said = f"{path.relative_to(tmp_path)} ".encode() + path.read_bytes()
        assert not any(secret.lower().encode() in said.lower() for secret in (*SECRETS, "1.2.77", "1.2.3.4.5.6"))


def test_the_series_of_a_folder_are_volumes_of_one_patient_and_the_rest_is_left_out_with_the_reason(tmp_path: Path) -> None:
    first, second = random_images(3, 9, 7), random_images(4, 6, 5, seed=1)
    folder = tmp_path / "in" / "study"
    write_series(folder, first, uid="1.2.1", prefix="a")
    write_series(folder, second, uid="1.2.2", prefix="b")
    write_series(folder, first[:2], uid="1.2.3", prefix="c", step=1, change=lambda i, made: setattr(made, "Modality", "CT"))
    (folder / "d.dcm").write_text("Doe Jane")
    records = convert(tmp_path / "in", tmp_path / "out")
    assembly, catalog = assembled(records, tmp_path / "out")
    volumes = {row.volume: row.patient for row in catalog.rows()}
    assert len(volumes) == 2
    assert len(set(volumes.values())) == 1
    assert sorted(entry.reason for entry in assembly.left_out) == [
        "1 of its files the file: is no DICOM file",
        "a series: is of another modality than MR",
    ]
    assert len({record.source for record in records}) == 4
    assert {record.person for record in records if record.rows} == {records[0].person} != {""}


def test_a_series_that_lies_in_two_folders_is_taken_once(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_series(tmp_path / "in" / folder, random_images(3, 9, 7))
    assembly, catalog = assembled(convert(tmp_path / "in", tmp_path / "out"), tmp_path / "out")
    assert len(catalog) == 3
    (entry,) = assembly.left_out
    assert "the same images" in entry.reason


def test_frames_nan_blank_slices_and_negative_values(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 6, 4, 3)).astype(np.float32)
    values[0, 0, 1, 2] = np.nan
    values[:, :, 2] = 1.5
    values[0, 0, 3, 1] = np.inf
    write_nifti(tmp_path / "in" / "scan.nii", values, AFFINE)
    (record,) = convert(tmp_path / "in", tmp_path / "out")
    _, catalog = assembled([record], tmp_path / "out")
    assert [tuple(rejection)[:2] for rejection in record.rejections] == [
        (1, "1 of 3 images: holds NaN or infinity"),
        (2, "its image is blank"),
        (3, "1 of 3 images: holds NaN or infinity"),
    ]
    places = {(row.slice, row.frame) for row in catalog.rows()}
    assert places == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (3, 0), (3, 2)}
    assert {row.num_frames for row in catalog.rows()} == {3}
    lowest = min(values[:, :, z, t].min() for z, t in places)
    assert any("raised" in finding for finding in record.findings)
    for (_, slice_, frame), image in stored(catalog).items():
        np.testing.assert_allclose(image, values[::-1, ::-1, slice_, frame].T - lowest, rtol=1e-6, atol=1e-6)
    assert min(image.min() for image in stored(catalog).values()) == 0
    assert catalog.rows()[0].max_value == max(image.max() for image in stored(catalog).values())


def test_prepared_images_are_trained_on_and_no_kspace_kind_takes_them(tmp_path: Path) -> None:
    for patient in range(4):

        def of_its_own(index: int, made: Dataset, patient: int = patient) -> None:
            made.PatientID, made.PatientName = f"id{patient}", f"Name{patient}"

        write_series(
            tmp_path / "in" / f"{patient}", random_images(3, 9, 7 + patient, seed=patient), uid=f"1.2.{patient}", change=of_its_own
        )
    _, catalog = assembled(convert(tmp_path / "in", tmp_path / "out"), tmp_path / "out")
    assert len({row.patient for row in catalog.rows()}) == 4
    stream = PlannedStream(ImageData(catalog=str(tmp_path / "out"), side=16), seed=1, batch_size=4)
    try:
        batches = [batch for step in stream.steps(0) for batch in step.batches]
    finally:
        stream.close()
    assert sum(len(batch.ids) for batch in batches) == len(select(catalog.table, splits=("train",), payload="image"))
    assert all(0 <= batch.image.min() < batch.image.max() <= 1 for batch in batches)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (ConvertConfig(curation=CurationConfig(min_slices=4)), "3 slices, fewer than 4"),
        (ConvertConfig(curation=CurationConfig(leave_out=("phantoms",))), "of a kind that is left out by the protocol's name: phantoms"),
        (ConvertConfig(payload="raw", index_only=True), "a source of images: is always copied into shards"),
    ],
)
def test_curation_holds_for_images_too(tmp_path: Path, config, said) -> None:
    write_series(tmp_path / "in", random_images(3, 9, 7), change=lambda i, made: setattr(made, "SeriesDescription", "phantom t1"))
    (record,) = convert(tmp_path / "in", tmp_path / "out", config)
    assert not record.rows
    assert re.search(said, record.rejections[0].reason)


def test_a_source_that_breaks_leaves_nothing_behind_and_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "in" / "scan.nii"
    write_nifti(path, random_images(5, 6, 3), AFFINE)
    path.write_bytes(path.read_bytes()[:400])
    (record,) = convert(tmp_path / "in", tmp_path / "out")
    assert "cannot hold" in record.rejections[0].reason
    assert "scan" not in record.rejections[0].reason
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_folder_changes_its_version_when_one_of_its_files_does(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in" / "series", random_images(3, 9, 7))
    write_nifti(tmp_path / "in" / "scan.nii.gz", random_images(5, 6, 3), AFFINE)
    before = find_sources(str(tmp_path / "in"), with_images=True)
    assert [source.name for source in before] == ["scan.nii.gz", "series"]
    assert before[1].members == tuple(sorted(path.name for path in paths))
    paths[1].write_bytes(paths[1].read_bytes() + b"  ")
    after = find_sources(str(tmp_path / "in"), with_images=True)
    assert before[0] == after[0]
    assert before[1].version != after[1].version
    with pytest.raises(Exception, match="holds no scans"):
        find_sources(str(tmp_path / "in"))
    (alone,) = find_sources(str(paths[0]), with_images=True)
    assert (alone.uri, alone.members) == (str(paths[0]), ())


def test_a_folder_in_a_store_is_brought_here_file_by_file(tmp_path: Path, keyed_s3: FakeS3) -> None:
    volume = random_images(3, 9, 7)
    for place in ("", "in #1/", "in #1//deeper/"):
        for path in write_series(tmp_path / "series", volume, uid=f"1.2.{len(place)}"):
            keyed_s3.objects["lab", f"{place}{path.name}"] = path.read_bytes()
    keyed_s3.objects["lab", "in #1/note.txt"] = b"no image"
    records = convert("s3://lab", tmp_path / "out")
    assert [len(record.rows) for record in records] == [3, 3, 3]
    assert len({record.content for record in records}) == 1
    (alone,) = convert("s3://lab/in #1//deeper", tmp_path / "out")
    assert alone.content == records[0].content


def test_a_key_file_names_whom_a_series_is_of(tmp_path: Path) -> None:
    write_series(tmp_path / "in", random_images(3, 9, 7))
    (source,) = find_sources(str(tmp_path / "in"), with_images=True)
    assert identify(source, ReadLimits()).patient_id == "MRN-77123"


def test_a_given_split_of_a_folder_is_that_of_its_volumes() -> None:
    given = with_parts(GivenSplit(kind="folders", of_sources={"a": "train", "b": "val"}), {"a": ["a1", "a2"], "b": ["b"], "c": ["c1"]})
    assert given.of_sources == {"a": "train", "b": "val", "a1": "train", "a2": "train"}


def test_a_record_of_several_volumes_survives_its_text(tmp_path: Path) -> None:
    write_series(tmp_path / "in", random_images(3, 9, 7), uid="1.2.1", prefix="a")
    write_series(tmp_path / "in", random_images(3, 9, 7, seed=1), uid="1.2.2", prefix="b")
    records = convert(tmp_path / "in", tmp_path / "out")
    whole = ScanRecord(key="k", source="s", name="s", parts=[record.to_values() for record in records])
    again = ScanRecord.from_values(json.loads(json.dumps(whole.to_values())))
    assert again.volumes == records
    assert ScanRecord(key="k", source="s", name="n").volumes == [ScanRecord(key="k", source="s", name="n")]
