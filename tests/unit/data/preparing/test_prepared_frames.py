"""Frames through conversion: a row for each, and nothing else for what has none."""

import dataclasses
import json

import numpy as np
import pytest

from echotrain.data.catalog.rows import SCHEMA, SliceRow
from echotrain.data.catalog.store import load_catalog
from echotrain.data.formats import Deidentifier
from echotrain.data.formats.hdf5 import Hdf5File
from echotrain.data.formats.target import rss_target
from echotrain.data.formats.write import write_matlab
from echotrain.data.preparing.assemble import assemble
from echotrain.data.preparing.convert import ConvertConfig, convert_scan, scan_key
from echotrain.data.samples.reading import SliceReader
from echotrain.data.splits.made import SplitConfig
from echotrain.storage.local import LocalStore
from echotrain.storage.ranged import RangeReader
from echotrain.storage.ranged_file import RangedFile
from tests.scans import header_xml, lines_of, object_kspace, random_kspace, write_ismrmrd, write_scan
from tests.simulated import write_cine_catalog

SLICES, FRAMES, COILS, HEIGHT, WIDTH = 3, 4, 2, 36, 27
PLACE = "MultiCoil/Cine/TrainingSet/FullSample/{center}/{vendor}/{subject}/{name}.mat"

# Made by the version before there were frames.
CONTENTS = ["67563539253e3dcc9c4897c84955395d", "68fc31f77cf03f0b718270d724d3bf65"]
SIGNATURES = [
    "00b801ea030804fc044f033304010366075204a7039a033f04030421039b02f1",
    "00a6038800e40444039100f0030a0396047603200297024b036105f101ca024a",
]
PACKED = [
    ("file1000001", 0, "shards/file1000001-00000.bin", 0, 18432, 5657771342107366046, 0, 24),
    ("file1000001", 1, "shards/file1000001-00000.bin", 21504, 18432, 4013977880202975631, 0, 24),
    ("file1000001", 2, "shards/file1000001-00000.bin", 43008, 18432, 5278077014982266532, 0, 24),
    ("file1000002", 0, "shards/file1000002-00000.bin", 0, 18432, 10390528485346062811, 0, 24),
    ("file1000002", 1, "shards/file1000002-00000.bin", 21504, 18432, 16262885518928932625, 0, 24),
]
LINES = [
    ("file1000001", 0, "shards/file1000001-00000.bin", 3072, 20096, 5084458870385083811, 0, 24),
    ("file1000001", 1, "shards/file1000001-00000.bin", 26240, 20096, 11348588439659441295, 0, 24),
    ("file1000001", 2, "shards/file1000001-00000.bin", 49408, 20096, 6030679030003195442, 0, 24),
    ("file1000002", 0, "shards/file1000002-00000.bin", 3072, 20096, 14791135698757808253, 0, 24),
    ("file1000002", 1, "shards/file1000002-00000.bin", 26240, 20096, 16397878699308489529, 0, 24),
]


def cine(seed=0):
    return object_kspace((SLICES * FRAMES, COILS, HEIGHT, WIDTH), seed).reshape(SLICES, FRAMES, COILS, HEIGHT, WIDTH)


def write_cine(root, kspace, *, center="Center001", vendor="UIH_30T_umr780", subject="P001", name="cine_sax"):
    path = root / PLACE.format(center=center, vendor=vendor, subject=subject, name=name)
    write_matlab(path, {"kspace_full": np.moveaxis(kspace, (3, 4, 2, 0, 1), range(5))})
    return path


def convert(path, store, *, root="", **settings):
    config, deidentifier = ConvertConfig(**settings), Deidentifier("key", root=root)
    key = scan_key(deidentifier, str(path), path.stat().st_size, "1", config)
    return convert_scan(path, uri=str(path), key=key, store=store, config=config, deidentifier=deidentifier)


def read_back(store, row):
    row = SliceRow(**row)
    kspace, target = np.empty((row.coils, row.height, row.width), np.complex64), np.empty((row.recon_height, row.recon_width), np.float32)
    SliceReader(store.uri, RangeReader()).read(row, np.ones(row.width, bool), kspace, target)
    return kspace, target


@pytest.mark.parametrize(("payload", "expected"), [("packed", PACKED), ("lines", LINES)])
def test_scans_without_frames_give_the_rows_checksums_and_order_that_they_always_gave(tmp_path, payload, expected):
    kspace = random_kspace((3, 3, 32, 24))
    raw = [(samples, {**values, "phase": 4}) for index in range(2) for samples, values in lines_of(kspace[index] * 2, index)]
    paths = [
        write_scan(tmp_path / "file1000001.h5", kspace, target=None),
        write_ismrmrd(tmp_path / "file1000002.h5", header_xml(32, 24), raw),
    ]
    store, config = LocalStore(tmp_path / "to"), ConvertConfig(payload=payload)
    records = [
        convert_scan(path, uri=str(path), key=path.stem, store=store, config=config, deidentifier=Deidentifier()) for path in paths[::-1]
    ]
    assert [record.content for record in records] == CONTENTS[::-1]
    assert [record.signature for record in records] == SIGNATURES[::-1]
    assert [record.findings for record in records] == [[], []]
    table = assemble(records, None, SplitConfig()).table
    assert table.schema == SCHEMA
    columns = ("volume", "slice", "uri", "offset", "nbytes", "checksum", "padding_left", "padding_right")
    assert [tuple(row[name] for name in columns) for row in table.to_pylist()] == expected
    assert all(row[name] is None for row in table.to_pylist() for name in ("frame", "num_frames", "modality"))


@pytest.mark.parametrize(("payload", "dtype"), [("packed", "float32"), ("packed", "float16"), ("lines", "float32")])
def test_a_cine_gives_a_row_for_every_frame_of_every_slice_in_order_with_its_own_bytes_and_target(tmp_path, payload, dtype):
    store, kspace = LocalStore(tmp_path / "to"), cine()
    record = convert(write_cine(tmp_path, kspace), store, payload=payload, dtype=dtype)
    assert [(row["slice"], row["frame"]) for row in record.rows] == list(np.ndindex(SLICES, FRAMES))
    targets = []
    for row in record.rows:
        assert sorted(row) == sorted(SCHEMA.names)
        assert (row["num_slices"], row["num_frames"], row["modality"]) == (SLICES, FRAMES, "cine_sax")
        assert (row["center"], row["vendor"], row["field_strength"], row["anatomy"]) == ("Center001", "UIH", 3.0, "heart")
        expected = kspace[row["slice"], row["frame"]]
        read, target = read_back(store, row)
        if dtype == "float32":
            np.testing.assert_array_equal(read, expected)
        else:
            np.testing.assert_allclose(read, expected, atol=1e-3 * np.abs(expected).max())
        np.testing.assert_allclose(target, rss_target(expected, (HEIGHT, WIDTH)), rtol=1e-4, atol=1e-6 * target.max())
        targets.append(target)
    assert {row["max_value"] for row in record.rows} == {float(np.max(targets))}, "of the volume over all its frames"
    assert record.rows[0]["norm"] == pytest.approx(float(np.linalg.norm(np.stack(targets).astype(float))))
    table = assemble([dataclasses.replace(record, rows=record.rows[::-1])], None, SplitConfig()).table
    assert list(zip(table["slice"].to_pylist(), table["frame"].to_pylist(), strict=True)) == list(np.ndindex(SLICES, FRAMES))


def test_no_more_than_one_frame_is_read_at_a_time(tmp_path, monkeypatch):
    sizes, read = [], Hdf5File.read

    def spy(self, dataset, index):
        values = read(self, dataset, index)
        sizes.append(values.nbytes)
        return values

    monkeypatch.setattr(Hdf5File, "read", spy)
    record = convert(write_cine(tmp_path, cine()), LocalStore(tmp_path / "to"))
    assert len(record.rows) == SLICES * FRAMES
    assert max(sizes) == COILS * HEIGHT * WIDTH * 8


def test_a_frame_of_no_use_is_left_out_alone_and_its_frame_is_told(tmp_path):
    kspace = cine()
    kspace[1, 1:3], kspace[2] = 0, np.nan
    kspace[0, 3, ..., ::2] = 0
    record = convert(write_cine(tmp_path, kspace), LocalStore(tmp_path / "to"))
    assert [(row["slice"], row["frame"]) for row in record.rows] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 3)]
    assert {row["num_frames"] for row in record.rows} == {FRAMES}
    told = {(entry.slices, entry.reason) for entry in assemble([record], None, SplitConfig()).left_out}
    assert ((1,), "k-space is all zero (frames 1 to 2)") in told
    assert ((2,), "k-space holds NaN or infinity (frames 0 to 3)") in told
    assert any(slices == (0,) and reason.startswith("undersampled already") and "(frame 3)" in reason for slices, reason in told)


def test_a_reason_that_frames_of_several_slices_share_is_told_once(tmp_path):
    kspace = cine()
    kspace[:2, [0, 1, 3]] = 0
    record = convert(write_cine(tmp_path, kspace), LocalStore(tmp_path / "to"))
    (entry,) = assemble([record], None, SplitConfig()).left_out
    assert (entry.slices, entry.reason) == ((0, 1), "k-space is all zero (frames 0 to 1, 3)")
    again = type(record).from_values(json.loads(json.dumps(record.to_values())))
    assert again.rejections == record.rejections


def test_matlabs_numbers_cannot_serve_in_place_and_it_is_said_why(tmp_path):
    store, path = LocalStore(tmp_path / "to"), write_cine(tmp_path, cine())
    raw, packed = (convert(path, store, payload=payload, root=f"{tmp_path}/") for payload in ("raw", "packed"))
    assert {row["kind"] for row in raw.rows} == {"packed"}
    assert [row["checksum"] for row in raw.rows] == [row["checksum"] for row in packed.rows]
    assert [finding for finding in raw.findings if finding.startswith("copied into shards: MATLAB's real")]
    assert not any("copied" in finding for finding in packed.findings)
    indexed = convert(path, store, payload="raw", index_only=True, root=f"{tmp_path}/")
    assert not indexed.rows
    assert indexed.rejections[0].reason.startswith("MATLAB's real and imaginary parts")


def test_an_object_in_a_store_whose_headers_alone_are_wanted_is_refused_with_the_same_reason(tmp_path):
    path = write_cine(tmp_path, cine())

    class Ranges:
        def read_into(self, uri, offset, *buffers):
            content = path.read_bytes()
            for buffer in buffers:
                buffer[:] = content[offset : offset + len(buffer)]
                offset += len(buffer)

    config = ConvertConfig(payload="raw", index_only=True)
    file, uri = RangedFile(Ranges(), f"s3://lab/{path.name}", path.stat().st_size), "s3://lab/x/cine_sax.mat"
    record = convert_scan(file, uri=uri, key="k", store=LocalStore(tmp_path / "to"), config=config, deidentifier=Deidentifier())
    assert "MATLAB's real and imaginary parts" in record.rejections[0].reason


def test_one_subject_of_a_center_is_one_patient_and_subjects_of_several_centers_are_several(tmp_path):
    store = LocalStore(tmp_path / "to")
    paths = [
        write_cine(tmp_path, cine(0), subject="P001"),
        write_cine(tmp_path, cine(1), subject="P001", name="cine_lax"),
        write_cine(tmp_path, cine(2), subject="P002"),
        write_cine(tmp_path, cine(3), subject="P001", center="Center002", vendor="GE_15T_Voyager"),
    ]
    records = [convert(path, store, root=f"{tmp_path}/") for path in paths]
    first, second, third, fourth = (record.rows[0]["patient"] for record in records)
    assert first == second
    assert len({first, third, fourth}) == 3
    assembly = assemble(records, None, SplitConfig())
    assert len({(row["volume"], row["slice"], row["frame"]) for row in assembly.table.to_pylist()}) == 4 * SLICES * FRAMES
    assert not assembly.left_out


def test_no_name_of_a_folder_or_file_that_is_not_the_data_sets_comes_into_a_catalog(tmp_path):
    source = tmp_path / "Jane_Doe_1957"
    paths = [
        write_cine(source / "ward_Amfortas", cine(0)),
        write_cine(source / "b", cine(1), name="Kundry_heart"),
        write_cine(source / "c", cine(2), vendor="GE_30T_Doe_Jane", center="CenterJane"),
    ]
    store = LocalStore(tmp_path / "to")
    for payload in ("packed", "raw"):
        records = [convert(path, store, payload=payload, root=f"{source}/") for path in paths]
        text = json.dumps([dataclasses.asdict(record) for record in records])
        assert all(record.rows for record in records)
        for name in ("Jane", "Doe", "1957", "Amfortas", "Kundry"):
            assert name not in text
        assert all(record.rows[0]["patient"].startswith("patient-") for record in records)


def test_a_small_simulated_cine_is_prepared_whole(tmp_path):
    uri = write_cine_catalog(tmp_path, num_train=4, num_val=2, per_patient=2)
    rows = load_catalog(uri).table.to_pylist()
    assert {row["dataset"] for row in rows} == {"simulated-cine"}
    assert {(row["modality"], row["num_frames"]) for row in rows} == {
        ("cine_sax", 5),
        ("cine_lax", 5),
        ("T1map", 3),
        ("blackblood", None),
    }
    assert {(row["center"], row["vendor"], row["field_strength"]) for row in rows} == {
        ("Center001", "UIH", 3.0),
        ("Center002", "Siemens", 1.5),
        ("Center003", "GE", 3.0),
    }
    assert {row["frame"] is None for row in rows if row["modality"] == "blackblood"} == {True}
    assert {row["coils"] for row in rows} == {3, 4, 5}
    assert len({row["patient"] for row in rows}) == 6
    assert {split: len({row["patient"] for row in rows if row["split"] == split}) for split in ("train", "val")} == {"train": 4, "val": 2}
    for row in rows:
        whole = [other for other in rows if (other["volume"], other["slice"]) == (row["volume"], row["slice"])]
        assert len(whole) == (row["num_frames"] or 1)
