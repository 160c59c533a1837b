"""From scans in folders, files and keys of any name to a catalog that points to them, and back: what training and evaluation read."""

import shlex
from pathlib import Path

import numpy as np
import pytest

from echotrain.config import override
from echotrain.data.catalog.containment import trust_setting
from echotrain.data.catalog.rows import Catalog
from echotrain.data.catalog.store import commit_catalog, load_catalog
from echotrain.data.formats import Deidentifier
from echotrain.data.formats.sources import ScanSource, find_sources, local_copy, opened_in_place, scans_root
from echotrain.data.planned import PlannedStream
from echotrain.data.preparing.assemble import assemble
from echotrain.data.preparing.convert import ConvertConfig, ScanRecord, convert_scan, scan_key
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.splits.made import SplitConfig
from echotrain.errors import CatalogError
from echotrain.storage.open import open_store
from echotrain.training.experiment import Experiment
from tests.s3_fake import FakeS3
from tests.scans import object_kspace, write_scan

SHAPE = (2, 3, 32, 24)
# Each is a folder and the file in it.
NAMES = [
    "a b",
    "#1",
    "wh?t",
    "50%",
    "%20",
    "a+b",
    "Müller",
    "Mu\u0308ller",
    "膝",
    "(2) [a]",
    "x&y;c='d'",
    "~",
    "@3",
    "a, b: c",
    '"',
    "$(id)",
]
# Whose slashes matter, of a bucket.
KEYS = ["a.h5", "/b.h5", "//c.h5", "x/d.h5", "x//e.h5", "x//y/f.h5", "x/y//g.h5"]
INDEX = ConvertConfig(payload="raw", index_only=True, safe_names=(r"(?s).*",))

Truth = dict[bytes, np.ndarray]


def kspace_of(number: int) -> np.ndarray:
    return object_kspace(SHAPE, seed=number)


def write_number(path: Path, number: int) -> Path:
    return write_scan(path, kspace_of(number), attributes={"max": 1e3, "norm": 1.0, "patient_id": f"qz{number:02d}xk"})


def write_folder(folder: Path, places: list[str]) -> None:
    for number, place in enumerate(places):
        write_number(folder / place, number)


def upload(fake: FakeS3, scratch: Path, prefix: str, keys: list[str]) -> None:
    for number, key in enumerate(keys):
        fake.objects["lab", f"{prefix}{key}"] = write_number(scratch / f"{number}.h5", number).read_bytes()


def convert(found: ScanSource, to: str, config: ConvertConfig, root: str) -> ScanRecord:
    deidentifier = Deidentifier(safe_names=config.safe_names, root=root)
    key = scan_key(deidentifier, found.uri, found.size, found.version, config)
    with (opened_in_place if config.index_only else local_copy)(found) as path:
        return convert_scan(path, uri=found.uri, key=key, store=open_store(to), config=config, deidentifier=deidentifier)


def prepare(source: str, to: str, config: ConvertConfig = INDEX) -> Catalog:
    """Do what the prepare job does, without Ray; every third scan is for validation."""
    records = [convert(found, to, config, scans_root(source)) for found in find_sources(source)]
    assert [rejection for record in records for rejection in record.rejections] == []
    table = assemble(records, None, SplitConfig(ratios=(0.7, 0.3, 0.0))).table
    return commit_catalog(open_store(to), table, {})


def assert_read(catalog: Catalog, num_scans: int, *, trusted: tuple[str, ...] = ()) -> None:
    """Read every slice as training and evaluation do, and hold it against what was written."""
    data = LinesData(catalog=catalog.root, trusted=trusted)
    stream = PlannedStream(data, seed=1, batch_size=3)
    batches = [batch for step in stream.steps(0) for batch in step.batches] + list(stream.evaluation())
    stream.close()
    read = {batch.kspace[i].numpy().tobytes() for batch in batches for i in range(len(batch.ids))}
    assert sum(len(batch.ids) for batch in batches) == 2 * num_scans
    assert read == {kspace.tobytes() for number in range(num_scans) for kspace in kspace_of(number)}


def trusted_of(catalog: Catalog) -> tuple[str, ...]:
    """Return what a person gives who copies the told setting into a shell."""
    (assignment,) = shlex.split(trust_setting(catalog.table, catalog.root))
    return override(Experiment(), [assignment]).data.trusted


def test_files_and_folders_of_any_name_are_indexed_and_read(tmp_path):
    places = [f"{name}/{name}.h5" for name in NAMES]
    write_folder(tmp_path / "scans #1, of 50%?", places)
    source = str(tmp_path / "scans #1, of 50%?")
    catalog = prepare(source, str(tmp_path / "to +"))
    assert set(catalog.table["uri"].to_pylist()) == {f"{source}/{place}" for place in places}
    assert trusted_of(catalog) == (source,)
    assert_read(catalog, len(NAMES), trusted=(source,))
    with pytest.raises(CatalogError, match="lies outside of the catalog"):
        load_catalog(catalog.root, trusted=(f"{source}/{NAMES[0]}",))


def test_a_catalog_among_scans_of_any_name_needs_no_trust(tmp_path):
    write_folder(tmp_path, [f"{name}/{name}.h5" for name in NAMES[:5]])
    catalog = prepare(str(tmp_path), str(tmp_path))
    assert trust_setting(catalog.table, catalog.root) == ""
    assert_read(catalog, 5)


def test_a_file_uri_is_decoded_and_rows_hold_the_path(tmp_path):
    write_folder(tmp_path / "a b%", ["#1.h5", "%20.h5"])
    catalog = prepare((tmp_path / "a b%").as_uri(), (tmp_path / "to #").as_uri())
    assert set(catalog.table["uri"].to_pylist()) == {f"{tmp_path}/a b%/#1.h5", f"{tmp_path}/a b%/%20.h5"}
    assert_read(catalog, 2, trusted=((tmp_path / "a b%").as_uri(),))


def test_links_are_followed_and_what_is_trusted_is_where_they_lead(tmp_path):
    write_folder(tmp_path / "pool", ["one/a.h5", "two/b.h5"])
    (tmp_path / "source").mkdir()
    for name in ("one", "two"):
        (tmp_path / "source" / f"link to {name}").symlink_to(tmp_path / "pool" / name)
    catalog = prepare(str(tmp_path / "source"), str(tmp_path / "to"))
    assert trusted_of(catalog) == (str(tmp_path / "pool"),)
    assert_read(catalog, 2, trusted=(str(tmp_path / "pool"),))
    with pytest.raises(CatalogError, match="lies outside of the catalog"):
        load_catalog(catalog.root, trusted=(str(tmp_path / "source"),))


def test_keys_of_any_name_are_indexed_and_read(keyed_s3, tmp_path):
    keys = [f"{name}/{name}.h5" for name in NAMES]
    upload(keyed_s3, tmp_path, "raw, of #1? 50%+/", keys)
    source = "s3://lab/raw, of #1? 50%+"
    catalog = prepare(source, "s3://lab/to #2/catalog")
    assert set(catalog.table["uri"].to_pylist()) == {f"{source}/{key}" for key in keys}
    assert trusted_of(catalog) == (source,)
    assert_read(catalog, len(NAMES), trusted=(source,))


@pytest.mark.parametrize(
    "config", [INDEX, ConvertConfig(payload="raw", safe_names=(r".*",)), ConvertConfig()], ids=["index", "raw", "packed"]
)
@pytest.mark.parametrize("prefix", ["scans/", "scans//", "/scans/", "//"])
def test_slashes_of_keys_stay_on_the_whole_way(keyed_s3, tmp_path, prefix, config):
    upload(keyed_s3, tmp_path, prefix, KEYS)
    source, to = f"s3://lab/{prefix}", "s3://other//catalogs//knee"
    catalog = prepare(source, to, config)
    is_raw = config.payload == "raw"
    assert set(catalog.table["uri"].to_pylist()) >= ({f"{source}{key}" for key in KEYS} if is_raw else set())
    if is_raw:
        assert trusted_of(catalog) == (source if prefix.endswith("//") else source.removesuffix("/"),)
    assert_read(catalog, len(KEYS), trusted=(source,) if is_raw else ())
    assert all(key.startswith("/catalogs//knee/") for key in keyed_s3.keys("other"))
    assert {key for _, bucket, key in keyed_s3.requests if bucket == "lab"} == {f"{prefix}{key}" for key in KEYS}


@pytest.mark.parametrize("name", ["a\nb", "a%0ab", "\x7f", "a%2500", "M\udcfcller"])
def test_what_no_catalog_may_hold_is_left_out_of_an_index_and_copied_otherwise(tmp_path, name):
    write_folder(tmp_path / "raw", [f"{name}.h5", f"{name}/scan.h5"])
    root = scans_root(str(tmp_path / "raw"))
    for found in find_sources(str(tmp_path / "raw")):
        record = convert(found, str(tmp_path / "to"), INDEX, root)
        assert "the file's name or folder holds signs that no catalog may hold" in record.rejections[0].reason
        copied = convert(found, str(tmp_path / "to"), ConvertConfig(payload="raw", safe_names=INDEX.safe_names), root)
        assert {row["kind"] for row in copied.rows} == {"packed"}


def test_a_name_that_nobody_vouches_for_is_told_as_such(tmp_path):
    write_folder(tmp_path / "raw", ["Jane Doe #1.h5"])
    (found,) = find_sources(str(tmp_path / "raw"))
    record = convert(found, str(tmp_path / "to"), ConvertConfig(payload="raw", index_only=True), scans_root(str(tmp_path / "raw")))
    assert [rejection.reason for rejection in record.rejections] == [
        "the file's name or folder is not known to be safe to write down (--safe-names says which are); prepare it without index-only"
    ]
