"""One scan to shards, rows and a record."""

import dataclasses
import json

import numpy as np
import pytest
import xxhash

from echotrain.data.catalog.rows import SCHEMA, SliceRow
from echotrain.data.formats import Deidentifier, open_volume
from echotrain.data.formats.checks.energy import energy_of
from echotrain.data.formats.target import rss_target
from echotrain.data.preparing import convert as convert_module
from echotrain.data.preparing.convert import ConvertConfig, ScanRecord, convert_scan, read_record, reason_of, scan_key
from echotrain.data.samples.reading import SliceReader
from echotrain.errors import ConfigError, ScanError
from echotrain.storage.local import LocalStore
from echotrain.storage.ranged import RangeReader
from tests.scans import header_xml, lines_of, object_kspace, random_kspace, write_ismrmrd, write_scan


def convert(path, store, **settings):
    config, deidentifier = ConvertConfig(**settings), Deidentifier(safe_names=["[a-z]"])
    key = scan_key(deidentifier, str(path), path.stat().st_size, "1", config)
    return convert_scan(path, uri=str(path), key=key, store=store, config=config, deidentifier=deidentifier)


def payload(store, row, part=""):
    uri = row[f"{part}uri"]
    content = store.read(uri) if "/" not in uri[:1] else open(uri, "rb").read()  # noqa: PTH123, SIM115
    return content[row[f"{part}offset"] : row[f"{part}offset"] + row[f"{part}nbytes"]]


@pytest.mark.parametrize("kind", ["raw", "packed", "lines"])
def test_rows_have_every_column_and_their_bytes_the_checksum(tmp_path, kind):
    store = LocalStore(tmp_path / "to")
    path = write_scan(tmp_path / "a.h5")
    record = convert(path, store, payload=kind)
    assert [row["slice"] for row in record.rows] == [0, 1]
    for row in record.rows:
        assert sorted(row) == sorted(SCHEMA.names)
        assert row["kind"] == kind
        if kind != "lines":
            assert xxhash.xxh3_64_intdigest(payload(store, row)) == row["checksum"]
        assert xxhash.xxh3_64_intdigest(payload(store, row, "target_")) == row["target_checksum"]


def test_raw_and_packed_hold_the_same_numbers(tmp_path):
    store = LocalStore(tmp_path / "to")
    path = write_scan(tmp_path / "a.h5")
    raw, packed = convert(path, store, payload="raw"), convert(path, store, payload="packed")
    for one, other in zip(raw.rows, packed.rows, strict=True):
        assert payload(store, one) == payload(store, other)
        assert payload(store, one, "target_") == payload(store, other, "target_")
        assert one["uri"] == one["target_uri"] == str(path)
    assert raw.content == packed.content


@pytest.mark.parametrize(("kind", "dtype"), [("raw", "float32"), ("packed", "float32"), ("lines", "float32"), ("packed", "float16")])
def test_what_was_converted_is_read_back(tmp_path, kind, dtype):
    store = LocalStore(tmp_path / "to")
    path = write_scan(tmp_path / "a scan.h5", chunks=None)
    rows = convert(path, store, payload=kind, dtype=dtype).rows
    reader = SliceReader(store.uri, RangeReader())
    with open_volume(path) as volume:
        for row in rows:
            kspace, target = np.empty((3, 32, 24), np.complex64), np.empty((32, 24), np.float32)
            reader.read(SliceRow(**row), np.ones(24, bool), kspace, target)
            expected = volume.read_slice(row["slice"])
            assert (np.abs(kspace - expected) ** 2).sum() <= (0 if dtype == "float32" else 1e-6) * (np.abs(expected) ** 2).sum()
            np.testing.assert_array_equal(target, volume.read_target(row["slice"]))


def test_raw_writes_only_the_targets_that_a_file_lacks(tmp_path):
    store = LocalStore(tmp_path / "to")
    path = write_scan(tmp_path / "a.h5", target=None)
    rows = convert(path, store, payload="raw").rows
    assert {row["uri"] for row in rows} == {str(path)}
    assert len({row["target_uri"] for row in rows}) == 1
    target = np.frombuffer(payload(store, rows[1], "target_"), np.float32)
    assert rows[0]["max_value"] >= target.max() > 0
    assert sum(found.size for found in store.list("shards/")) < 2 * (32 * 24 * 4 + 64)


@pytest.mark.parametrize("kind", ["raw", "packed", "lines"])
def test_a_target_that_was_computed_is_the_one_that_is_read_back_whatever_the_file_holds(tmp_path, kind):
    kspace = object_kspace((4, 3, 32, 24))
    truth = np.stack([rss_target(of_slice, (32, 24)) for of_slice in kspace])
    stored = truth.copy()
    stored[3] = stored[3, :, ::-1]
    path, store = write_scan(tmp_path / "a.h5", kspace, target=stored), LocalStore(tmp_path / "to")
    record = convert(path, store, payload=kind)
    assert {row["kind"] for row in record.rows} == {kind}
    reader = SliceReader(store.uri, RangeReader())
    for row in record.rows:
        target = np.empty((32, 24), np.float32)
        reader.read(SliceRow(**row), np.ones(24, bool), np.empty((3, 32, 24), np.complex64), target)
        np.testing.assert_allclose(target, truth[row["slice"]], rtol=1e-5, atol=1e-6 * truth.max())


def test_raw_falls_back_to_packed_where_the_file_cannot_serve(tmp_path):
    store = LocalStore(tmp_path / "to")
    chunked = write_scan(tmp_path / "a.h5", chunks=(1, 1, 32, 24))
    named = write_scan(tmp_path / "MRN77.h5", attributes={"patient_id": "MRN-77"})
    acquired = write_ismrmrd(tmp_path / "c.h5", header_xml(16, 12), lines_of(random_kspace((3, 16, 12))))
    for path in (chunked, named, acquired):
        assert {row["kind"] for row in convert(path, store, payload="raw").rows} == {"packed"}
    assert "not known to be safe" in convert(named, store, payload="raw").findings[0]
    assert convert(chunked, store, payload="raw").findings == []


def test_curated_slices_are_gone_and_said_and_maximum_and_norm_are_of_the_rest(tmp_path):
    kspace = random_kspace((3, 3, 32, 24))
    kspace[1] = np.nan
    path = write_scan(tmp_path / "a.h5", kspace, attributes={"max": 99.0, "norm": 99.0})
    record = convert(path, LocalStore(tmp_path / "to"))
    assert [row["slice"] for row in record.rows] == [0, 2]
    assert [rejection.slice for rejection in record.rejections] == [1]
    with open_volume(path) as volume:
        targets = np.stack([volume.read_target(0), volume.read_target(2)])
    assert record.rows[0]["max_value"] == pytest.approx(float(targets.max()))
    assert record.rows[0]["norm"] == pytest.approx(float(np.linalg.norm(targets)))


@pytest.mark.parametrize("brightest", [0, 1, 2])
def test_the_maximum_is_that_of_the_brightest_slice_wherever_it_lies(tmp_path, brightest):
    kspace = object_kspace((3, 3, 32, 24)) * np.where(np.arange(3) == brightest, 5, 1)[:, None, None, None].astype(np.float32)
    rows = convert(write_scan(tmp_path / "a.h5", kspace), LocalStore(tmp_path / "to")).rows
    targets = np.stack([rss_target(of_slice, (32, 24)) for of_slice in kspace])
    assert [row["max_value"] for row in rows] == [pytest.approx(float(targets.max()), rel=1e-5)] * 3
    assert targets.argmax() // targets[0].size == brightest


def test_the_field_of_view_is_that_of_the_image_along_readout_and_phase(tmp_path):
    header = header_xml(32, 24, recon=(16, 20))
    kspace = object_kspace((2, 3, 32, 24))
    for payload in ("packed", "raw"):
        path = write_scan(tmp_path / "a.h5", kspace, header=header, target=None)
        row = convert(path, LocalStore(tmp_path / "to"), payload=payload).rows[0]
        assert (row["fov_readout_mm"], row["fov_phase_mm"], row["thickness_mm"]) == (32, 40, 4)
        assert (row["recon_height"], row["recon_width"]) == (16, 20)


def test_zeros_of_either_sign_are_one_content(tmp_path):
    kspace = random_kspace((1, 3, 32, 24))
    kspace[..., :3] = 0
    other = kspace.copy()
    other[..., :3] = np.complex64(complex(-0.0, -0.0))
    assert kspace.tobytes() != other.tobytes()
    store = LocalStore(tmp_path / "to")
    paths = [write_scan(tmp_path / f"{name}.h5", values, target=None) for name, values in (("a", kspace), ("b", other))]
    assert len({convert(path, store).content for path in paths}) == 1


def test_unstated_partial_fourier_narrows_the_measured_lines(tmp_path):
    kspace = random_kspace((2, 3, 32, 24))
    kspace[..., :5] = 0
    row = convert(write_scan(tmp_path / "a.h5", kspace), LocalStore(tmp_path / "to")).rows[0]
    assert (row["padding_left"], row["padding_right"]) == (5, 24)


def test_the_content_is_the_same_in_whatever_format_it_lies(tmp_path):
    kspace = random_kspace((1, 3, 16, 12))
    one = write_scan(tmp_path / "a.h5", kspace, header=header_xml(16, 12))
    other = write_ismrmrd(tmp_path / "b.h5", header_xml(16, 12), lines_of(kspace[0]))
    store = LocalStore(tmp_path / "to")
    assert convert(one, store).content == convert(other, store, dtype="float16").content


def test_a_record_comes_back_and_a_damaged_one_counts_as_none(tmp_path):
    store = LocalStore(tmp_path / "to")
    record = convert(write_scan(tmp_path / "a.h5"), store)
    assert read_record(store, record.key) == record == ScanRecord.from_values(record.to_values())
    assert read_record(store, "scan-unknown") is None
    store.write(f"prepared/{record.key}.json", b'{"key": 1}')
    assert read_record(store, record.key) is None


def test_an_unreadable_scan_leaves_nothing_behind(tmp_path):
    path = write_scan(tmp_path / "Jane_Doe.h5", random_kspace((3, 3, 32, 24)), target=None, chunks=(1, 3, 32, 24), fletcher32=True)
    content = bytearray(path.read_bytes())
    content[-100] ^= 0xFF
    path.write_bytes(content)
    store = LocalStore(tmp_path / "to")
    # Of an attempt that was killed after its first shard; and of another scan, whose key has the same beginning.
    key = convert(path, store).key
    store.write(f"shards/{key}-00000.bin", b"left behind")
    store.write(f"shards/{key}0-00000.bin", b"another's")
    record = convert(path, store)
    assert not record.rows
    assert record.name.startswith("unreadable-")
    assert "Jane" not in json.dumps(record.to_values())
    assert "must be readable" in record.rejections[0].reason
    assert [info.key for info in store.list()] == [f"shards/{key}0-00000.bin"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('<?xml version="1.0"?>', '<?xml version="1.0" encoding="Jane_Doe"?>', "must be ISMRMRD XML"),
        ("a protocol", "&JaneDoe;", "must be ISMRMRD XML"),
        ("<x>32</x>", "<x>0012345678</x>", "encodedSpace matrix (…, 24, 1): each size must lie in 1 to 65536"),
        ("<x>32</x>", "<x>Jane's Doe</x>", 'header value "…": must be a whole number'),
        ("cartesian", "Jane 'n' Doe's", "only Cartesian k-space is read"),
        ("cartesian", "'Jane' \"Doe\" x", "only Cartesian k-space is read"),
    ],
)
def test_no_reason_quotes_what_a_header_says(tmp_path, old, new, said):
    header = header_xml(32, 24).decode()
    assert old in header
    path = write_scan(tmp_path / "a.h5", header=header.replace(old, new, 1).encode())
    reason = convert(path, LocalStore(tmp_path / "to")).rejections[0].reason
    assert said in reason
    assert not any(part in reason for part in ("Jane", "Doe", "12345"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("a.h5: samples of type b'Jane Doe'", "samples of type '…': l"),
        ("a.h5: data of type [('data', '<f4'), ('Jane D", "data of type [('data', '…'), ('…': l"),
        (r"a.h5: the file's 'it\' Jane' mask", "the file's '…' mask: l"),
        ("a.h5: measurement at bytes 19760512 to 19_76_05_13", "measurement at bytes … to …: l"),
        ("a.h5: kspace of shape (16, 20, 1024, 65536)", "kspace of shape (16, 20, 1024, 65536): l"),
        ("a.h5: no dataset 'kspace'", "no dataset 'kspace': l"),
    ],
)
def test_a_reason_holds_no_quotes_and_no_long_numbers(value, reason):
    assert reason_of(ScanError(value, "l", "r"), "a.h5") == reason


def test_findings_hold_no_long_numbers(tmp_path):
    header = header_xml(32, 24).replace(b"<maximum>23<", b"<maximum>12345678.00001<")
    record = convert(write_scan(tmp_path / "a.h5", header=header), LocalStore(tmp_path / "to"))
    assert "12345" not in json.dumps([record.findings, record.rejections])
    matrix = header_xml(32, 24).replace(b"<y>24</y>", b"<y>23.9996</y>", 1)
    record = convert(write_scan(tmp_path / "b.h5", header=matrix), LocalStore(tmp_path / "to"))
    assert "the header's 23.9996 is read as 24" in record.findings


def test_keys_depend_on_the_source_its_version_and_the_settings():
    keys = {
        scan_key(Deidentifier(salt), uri, size, version, config)
        for salt in ("", "secret")
        for uri in ("a", "b")
        for size, version in ((1, "1"), (2, "1"), (1, "2"))
        for config in (ConvertConfig(), ConvertConfig(dtype="float16"), ConvertConfig(payload="lines"))
    }
    assert len(keys) == 36


def test_contradicting_settings_are_refused():
    with pytest.raises(ConfigError, match="payload=raw"):
        ConvertConfig(payload="raw", dtype="float16")
    with pytest.raises(ConfigError, match="acs_fraction"):
        dataclasses.replace(ConvertConfig(), acs_fraction=0.0)


def test_an_index_of_headers_gives_the_same_rows_without_their_checksums(tmp_path):
    store = LocalStore(tmp_path / "to")
    kspace = random_kspace((2, 3, 32, 24))
    path = write_scan(tmp_path / "a.h5", kspace, attributes={"max": 99.0, "norm": 99.0})
    read, indexed = convert(path, store, payload="raw"), convert(path, store, payload="raw", index_only=True)
    unknown = ("checksum", "target_checksum", "max_value", "norm")
    assert indexed.content == ""
    for whole, row in zip(read.rows, indexed.rows, strict=True):
        assert row["checksum"] is None
        assert row["target_checksum"] is None
        assert {k: v for k, v in row.items() if k not in unknown} == {k: v for k, v in whole.items() if k not in unknown}


@pytest.mark.parametrize("part", [{"target": None}, {"chunks": (1, 3, 32, 24)}, {"attributes": {}}])
def test_an_index_of_headers_leaves_out_what_it_cannot_describe(tmp_path, part):
    path = write_scan(tmp_path / "a.h5", **{"attributes": {"max": 99.0}, **part})
    record = convert(path, LocalStore(tmp_path / "to"), payload="raw", index_only=True)
    assert record.rows == []
    assert "index-only" in record.rejections[0].reason


def test_the_content_by_pieces_is_that_of_the_whole_and_signs_of_zeros_do_not_count(tmp_path):
    kspace = object_kspace((2, 3, 240, 190))
    kspace[1, :, 100:, :50] = 0
    other = kspace.copy()
    other[1, :, 100:, :50] = -0.0
    assert kspace[0].size * 2 > convert_module._FLOATS_AT_ONCE
    content = xxhash.xxh3_128(repr((2, 3, 240, 190)).encode())
    content.update(kspace[0].tobytes() + kspace[1].tobytes())
    paths = [write_scan(tmp_path / f"{name}.h5", each) for name, each in (("a", kspace), ("b", other))]
    records = [convert(path, LocalStore(tmp_path / "to")) for path in paths]
    assert {record.content for record in records} == {content.hexdigest()}


def test_a_slice_that_was_looked_into_at_opening_is_judged_by_that_look(tmp_path):
    path = write_scan(tmp_path / "a.h5", object_kspace((5, 3, 32, 24)))
    with open_volume(path) as volume:
        assert sorted(volume.energies) == sorted(volume.examined) == [1, 2, 3]
        for index, energy in volume.energies.items():
            np.testing.assert_array_equal(energy, energy_of(volume.read_slice(index)))
