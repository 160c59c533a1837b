"""Catalogs: committed whole or not at all, versioned, checked on the way in and out."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from echotrain.data.catalog.rows import SCHEMA, Catalog, SliceRow, header_columns, rows_of
from echotrain.data.catalog.store import commit_catalog, load_catalog, split_version
from echotrain.data.formats.header import VolumeHeader
from echotrain.errors import CatalogError, ConfigError, LeakageError
from echotrain.storage.local import LocalStore
from echotrain.storage.open import open_store


def header(volume: str = "v1", patient: str = "p1") -> VolumeHeader:
    return VolumeHeader(
        dataset="d", volume=volume, patient=patient, anatomy="knee", num_slices=2, num_coils=4, height=8, width=6,
        recon_height=6, recon_width=6, padding_right=6, max_value=0.1,
    )  # fmt: skip


def row(volume: str = "v1", index: int = 0, patient: str = "p1", **columns) -> SliceRow:
    payload = {"kind": "packed", "uri": "shards/a.bin", "offset": 0, "nbytes": 1536, "checksum": 2**64 - 1, "split": "train"}
    return SliceRow(**{**header_columns(header(volume, patient)), "slice": index, **payload, **columns})


def commit(folder: Path, *rows: SliceRow) -> Catalog:
    return commit_catalog(open_store(str(folder)), Catalog.from_rows(rows).table, {"note": "by a test"})


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    cine = [row(index=2, frame=frame, num_frames=2, modality="cine_sax") for frame in range(2)]
    rows = [row(index=0), row(index=1, fat_suppressed=True, checksum=None, contrast="PD_FS"), *cine]
    commit(tmp_path, *rows)
    loaded = load_catalog(str(tmp_path))
    assert loaded.rows() == rows
    assert (loaded.version, loaded.root, loaded.manifest["note"], len(loaded)) == (1, str(tmp_path), "by a test", 4)
    assert loaded.table.schema == SCHEMA


def test_a_catalog_of_before_there_were_sex_weight_and_frames_is_read_and_added_to(tmp_path: Path) -> None:
    """Columns that a file of an older schema lacks are None, and its next version has them."""
    later = ("sex", "weight_bin_kg", "frame", "num_frames", "modality")
    before = commit(tmp_path, row("old", sex="F", weight_bin_kg=70))
    path = tmp_path / before.manifest["table"]
    pq.write_table(before.table.drop_columns(list(later)), path)
    data = path.read_bytes()
    manifest = tmp_path / "catalog/v000001.json"
    columns = [name for name in before.table.schema.names if name not in later]
    manifest.write_text(json.dumps({**before.manifest, "checksum": xxhash.xxh3_64_intdigest(data), "columns": columns}))
    assert pq.read_schema(path).names == columns

    loaded = load_catalog(str(tmp_path))
    assert loaded.table.schema == SCHEMA
    assert loaded.rows() == [row("old", sex=None, weight_bin_kg=None)]
    added = Catalog.from_rows([row("new", patient="p2", sex="M", weight_bin_kg=80)]).table
    commit_catalog(open_store(str(tmp_path)), pa.concat_tables([loaded.table, added]), {})
    rows = load_catalog(str(tmp_path)).rows()
    assert [(row.volume, row.sex, row.weight_bin_kg) for row in rows] == [("old", None, None), ("new", "M", 80)]


def test_the_newest_version_counts_unless_one_is_pinned(tmp_path: Path) -> None:
    for count in (1, 2, 3):
        assert commit(tmp_path, *(row(index=index) for index in range(count))).version == count
    assert len(load_catalog(str(tmp_path))) == 3
    assert len(load_catalog(f"{tmp_path}@2")) == 2
    with pytest.raises(CatalogError, match=r"@7.*versions are \[1, 2, 3\]"):
        load_catalog(f"{tmp_path}@7")


def test_a_commit_that_dies_before_its_last_write_leaves_the_old_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(tmp_path, row())
    write = LocalStore.write

    def dies(self: LocalStore, key: str, data: bytes, **options) -> bool:
        if key.endswith(".json"):
            raise KeyboardInterrupt
        return write(self, key, data, **options)

    monkeypatch.setattr(LocalStore, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        commit(tmp_path, row(index=0), row(index=1))
    monkeypatch.undo()
    assert load_catalog(str(tmp_path)).version == 1
    assert commit(tmp_path, row(index=0), row(index=1)).version == 2


@pytest.mark.parametrize("volume", ["other", "mine"])
def test_of_two_committers_at_once_each_gets_a_version_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, volume: str) -> None:
    write = LocalStore.write
    overtaken = []

    def overtakes(self: LocalStore, key: str, data: bytes, **options) -> bool:
        if key.endswith("v000001.json") and not overtaken:
            overtaken.append(key)
            commit(tmp_path, row(volume))
        return write(self, key, data, **options)

    monkeypatch.setattr(LocalStore, "write", overtakes)
    assert commit(tmp_path, row("mine")).version == 2
    assert load_catalog(f"{tmp_path}@1").rows()[0].volume == volume
    assert load_catalog(f"{tmp_path}@2").rows()[0].volume == "mine"
    assert len(list((tmp_path / "catalog").glob("*.parquet"))) == 2


def test_a_damaged_table_or_manifest_is_refused(tmp_path: Path) -> None:
    catalog = commit(tmp_path, row())
    table = tmp_path / catalog.manifest["table"]
    data = bytearray(table.read_bytes())
    data[100] ^= 1
    table.write_bytes(data)
    with pytest.raises(CatalogError, match="checksum"):
        load_catalog(str(tmp_path))
    manifest = tmp_path / "catalog" / "v000001.json"
    manifest.write_text(json.dumps({**catalog.manifest, "format": 99}))
    with pytest.raises(CatalogError, match=r"format 99.*Update echotrain"):
        load_catalog(str(tmp_path))
    manifest.write_text("{")
    with pytest.raises(CatalogError, match="not a catalog's manifest"):
        load_catalog(str(tmp_path))


def test_a_folder_without_a_catalog_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"ray_jobs\.prepare"):
        load_catalog(str(tmp_path))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "0 slices"),
        ([row(), row()], r"d/v1\[0\]: is.*twice"),
        ([row(frame=1), row(frame=0), row(frame=1)], r"d/v1\[0\]\[1\]: is.*twice"),
        ([row(split="")], r"split=\[''\]"),
        ([row(kind="tar")], r"kind=\['tar'\]"),
        ([row(dtype="int8")], r"dtype=\['int8'\]"),
    ],
)
def test_rows_that_nothing_could_be_read_from_are_refused(tmp_path: Path, rows: list[SliceRow], words: str) -> None:
    with pytest.raises(CatalogError, match=words):
        commit(tmp_path, *rows)
    assert not (tmp_path / "catalog").exists()


def test_a_patient_in_two_splits_is_refused_at_commit(tmp_path: Path) -> None:
    with pytest.raises(LeakageError, match="p1"):
        commit(tmp_path, row("v1", split="train"), row("v2", split="test"))


def test_a_patient_in_two_splits_is_refused_at_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("echotrain.data.catalog.store.check_no_leakage", lambda table, known: None)
    commit(tmp_path, row("v1", split="train"), row("v2", split="test"))
    monkeypatch.undo()
    with pytest.raises(LeakageError, match="p1"):
        load_catalog(str(tmp_path))


def test_a_given_split_that_leaks_is_loaded_because_its_manifest_names_exactly_those_patients(tmp_path: Path) -> None:
    rows = [row("v1", split="train"), row("v2", split="test"), row("v3", patient="p2", split="val")]
    table, store = Catalog.from_rows(rows).table, open_store(str(tmp_path))
    for patients in ([], ["p2"], ["p1", "p2"]):
        with pytest.raises(CatalogError, match=r"patient 'p[12]'"):
            commit_catalog(store, table, {"leaks": {"patients": patients}})
    commit_catalog(store, table, {"leaks": {"patients": ["p1"]}})
    assert load_catalog(str(tmp_path)).rows() == rows
    manifest = tmp_path / "catalog" / "v000001.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "leaks": {"patients": []}}))
    with pytest.raises(LeakageError, match="p1"):
        load_catalog(str(tmp_path))


def test_uris_name_a_version_after_an_at_sign() -> None:
    assert split_version("s3://b/p@12") == ("s3://b/p", 12)
    assert split_version("s3://b/user@site") == ("s3://b/user@site", None)
    with pytest.raises(ConfigError, match="names no catalog"):
        split_version("")


def test_a_table_that_lacks_columns_names_them() -> None:
    with pytest.raises(CatalogError, match="kind"):
        rows_of(pa.table({"dataset": ["d"]}))
