"""Rows of a catalog point below its root, or below what the user trusts; every way out is refused before a byte is read."""

import json
import os
import shlex

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from echotrain.config import override
from echotrain.data.catalog import containment
from echotrain.data.catalog.containment import absolute_trusted, check_contained, check_key, trust_setting
from echotrain.data.catalog.store import load_catalog
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import CatalogError, ConfigError
from echotrain.training.experiment import Experiment
from tests.catalogs import write_catalog
from tests.unit.data.catalog.test_catalog import commit, row


def table(*uris, targets=()):
    return pa.table(
        {"uri": list(uris), "target_uri": list(targets) or [""] * len(uris)}, pa.schema({"uri": pa.string(), "target_uri": pa.string()})
    )


OUT_OF_A_FOLDER = [
    "/proc/self/environ",
    "//proc/self/environ",
    "/etc/../etc/passwd",
    "../secret",
    "..",
    "shards/../../secret",
    "shards/..",
    "shards\\..\\..\\secret",
    "%2e%2e/secret",
    "shards/%2E%2e/%2e%2e/secret",
    "%252e%252e/secret",
    "..%2fsecret",
    "..%5csecret",
    "%25252525252e./x",
    "shards/..%00",
    "shards/a\x00.bin",
    "shards/a\n.bin",
    "file:///etc/passwd",
    "file:///{root}/../secret",
    "file:///{root}/%2e%2e/secret",
    "file://etc/passwd",
    "FILE:///etc/passwd",
    "File://{root}/a.bin",
    "http://host/a",
    "https://host/a",
    "ftp://host/a",
    "s3://lab/a",
    "S3://lab/a",
    "s3:////etc/passwd",
    "gs://lab/a",
    "data://x",
    "{root}-other/a.bin",
    "{root}/../other",
]


@pytest.mark.parametrize("column", ["uri", "target_uri"])
@pytest.mark.parametrize("uri", OUT_OF_A_FOLDER)
def test_no_uri_leads_out_of_a_folder(tmp_path, uri, column):
    root = tmp_path / "root"
    root.mkdir()
    named = uri.replace("{root}", str(root)[1:] if uri.startswith("file:///{") else str(root))
    rows = table("shards/a.bin", named) if column == "uri" else table("shards/a.bin", "b.bin", targets=("", named))
    with pytest.raises(CatalogError, match="lies outside of the catalog"):
        check_contained(rows, str(root))


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/passwd",
        "../knee2/a.h5",
        "s3://lab/knee/../raw/a.h5",
        "s3://lab/knee/%2e%2e/raw/a.h5",
        "s3://lab/knee2/a.h5",
        "s3://lab/knee",
        "s3://lab2/knee/a.h5",
        "s3://lab/Knee/a.h5",
        "S3://lab/knee/a.h5",
        "s3:///knee/a.h5",
        "file:///s3/lab/knee/a.h5",
        "http://lab/knee/a.h5",
        "//lab/knee/a.h5",
    ],
)
def test_no_uri_leads_out_of_a_prefix(uri):
    with pytest.raises(CatalogError, match="lies outside of the catalog s3://lab/knee"):
        check_contained(table("shards/a.bin", uri), "s3://lab/knee")


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_a_bucket_of_any_store_is_trusted_by_name_and_not_by_that_of_another_stores(scheme):
    rows = table(f"{scheme}://lab/raw/a.h5", f"{scheme}://lab/raw/b/c.h5", "shards/a.bin")
    for root in (f"{scheme}://lab/knee", "/data/knee"):
        with pytest.raises(CatalogError, match=rf"data\.trusted=\[{scheme}://lab/raw\]"):
            check_contained(rows, root)
        check_contained(rows, root, [f"{scheme}://lab/raw"])
        for other in {"s3", "gs", "az"} - {scheme}:
            with pytest.raises(CatalogError):
                check_contained(rows, root, [f"{other}://lab/raw"])
    check_contained(rows, f"{scheme}://lab")


@pytest.mark.parametrize("root", ["/data/knee", "s3://lab/knee", "s3://lab"])
@pytest.mark.parametrize(
    "key",
    ["shards/a.bin", "scan..h5", "..scan.h5", "a b.h5", "50% signal.h5", "a%20b.h5", "x@3.h5", "Ä.h5", "a:b.h5", "...", "a//b", "C:x"],
)
def test_whatever_a_file_is_called_below_the_root_it_is_inside(root, key):
    check_contained(table(key, f"{root}/{key}", ""), root)


def test_what_the_user_trusts_may_be_read_and_no_more(tmp_path):
    rows = table("s3://lab/raw/a.h5", "s3://lab/raw/b/c.h5", "shards/a.bin", targets=("", "s3://lab/raw/a.h5", ""))
    with pytest.raises(
        CatalogError, match=r"as do 1 more of its 3 objects.*data\.trusted=\[s3://lab/raw\] \(filter: --trusted s3://lab/raw\)"
    ):
        check_contained(rows, "s3://lab/knee")
    for trusted in (["s3://lab/raw"], ["s3://lab/raw/"], ["s3://lab"], ["/x", "s3://lab/raw"]):
        check_contained(rows, "s3://lab/knee", trusted)
    for trusted in (["s3://lab/ra"], ["s3://lab/raw/b"], ["s3://lab/raw2"], ["S3x"], ["s3://la"]):
        with pytest.raises(CatalogError):
            check_contained(rows, "s3://lab/knee", trusted)
    scans = table(str(tmp_path / "scans" / "a.h5"))
    check_contained(scans, str(tmp_path / "to"), [str(tmp_path / "scans")])
    check_contained(scans, str(tmp_path / "to"), [f"file://{tmp_path}/scans"])
    check_contained(scans, str(tmp_path / "to"), [str(tmp_path / "scans" / "a.h5")])
    with pytest.raises(CatalogError):
        check_contained(table("s3://lab/raw/../x"), "s3://lab/knee", ["s3://lab/raw", "s3://lab"])


def test_the_error_asks_for_no_more_than_is_needed(tmp_path):
    rows = table(f"{tmp_path}/a/1.h5", f"{tmp_path}/b/2.h5", "s3://one/x/1.h5", "s3://two/2.h5")
    with pytest.raises(CatalogError) as caught:
        check_contained(rows, "/data/knee")
    setting = caught.value.remedy.partition("data.trusted=[")[2].partition("]")[0]
    assert setting.split(",") == [str(tmp_path), "s3://one/x", "s3://two"]
    check_contained(rows, "/data/knee", setting.split(","))
    assert trust_setting(rows, "/data/knee") == f"data.trusted=[{setting}]"
    assert trust_setting(table("a", "/data/knee/b"), "/data/knee") == ""
    apart = table("/one/1.h5", "/two/2.h5")
    assert trust_setting(apart, "/data/knee") == "data.trusted=[/one,/two]"


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        (["a.h5", "x/b.h5"], "s3://lab"),
        (["/a.h5", "/x/b.h5"], "s3://lab//"),
        (["scans//a.h5", "scans//x/b.h5"], "s3://lab/scans//"),
        (["scans//a.h5", "scans/b.h5"], "s3://lab/scans"),
        (["//scans/a.h5"], "s3://lab///scans"),
        (["my scans #1/a.h5", "my scans #1/[b], c.h5"], "s3://lab/my scans #1"),
        (["it's/Mü.h5"], "s3://lab/it's"),
    ],
)
def test_the_told_setting_is_what_a_shell_and_the_settings_take_and_trusts_these_keys_alone(keys, place):
    rows = table(*(f"s3://lab/{key}" for key in keys))
    for told in (trust_setting(rows, "s3://other"), _remedy_of(rows)):
        (word,) = shlex.split(told)
        assert override(Experiment(), [word]).data.trusted == (place,)
    check_contained(rows, "s3://other", [place])
    if place.endswith("//"):
        with pytest.raises(CatalogError):
            check_contained(table(f"{place.removesuffix('/')}z.h5"), "s3://other", [place])


def _remedy_of(rows):
    with pytest.raises(CatalogError) as caught:
        check_contained(rows, "s3://other")
    return caught.value.remedy.removeprefix("If you know that place and trust it: ").partition(" (filter: --trusted ")[0]


def test_links_count_as_where_they_lead(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / "shards").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "a.bin").write_bytes(b"x")
    (root / "shards" / "own.bin").write_bytes(b"x")
    (root / "link.bin").symlink_to(elsewhere / "a.bin")
    (root / "folder").symlink_to(elsewhere)
    (root / "inner.bin").symlink_to(root / "shards" / "own.bin")
    (tmp_path / "alias").symlink_to(root)
    check_contained(table("inner.bin", "shards/own.bin"), str(root))
    check_contained(table("inner.bin", f"{root}/shards/own.bin"), str(tmp_path / "alias"))
    for uri in ("link.bin", "folder/a.bin"):
        with pytest.raises(CatalogError, match="lies outside"):
            check_contained(table(uri), str(root))
        check_contained(table(uri), str(root), [str(elsewhere)])


@given(st.lists(st.sampled_from(["..", ".", "", "a", "%2e%2e", "%2e.", "..%2f", "\\..\\", "s3:", "file:", "~"]), min_size=1, max_size=6))
def test_no_mixture_of_steps_leads_to_a_path_outside(tmp_path_factory, parts):
    root = tmp_path_factory.getbasetemp() / "mixed"
    root.mkdir(exist_ok=True)
    uri = "/".join(parts)
    try:
        check_contained(table(uri), str(root))
    except CatalogError:
        return
    assert (root / uri).resolve().is_relative_to(root.resolve())


@pytest.mark.parametrize("place", ["", "http://x", "s3://", "s3:///x", "../x/%2e%2e", "/a/../b", "a\nb"])
def test_what_is_trusted_must_be_a_place(place):
    with pytest.raises(ConfigError, match=r"data\.trusted="):
        absolute_trusted([place])


@pytest.mark.parametrize("root", ["s3://lab/knee", "/data/knee"])
def test_of_a_hundred_thousand_rows_each_object_is_looked_at_once_at_most_and_each_folder_resolved_once(monkeypatch, root):
    looked_at, resolved = [], []
    is_sound, realpath = containment.is_sound, os.path.realpath
    monkeypatch.setattr(containment, "is_sound", lambda uri: looked_at.append(uri) or is_sound(uri))
    monkeypatch.setattr(os.path, "realpath", lambda path: resolved.append(str(path)) or realpath(path))
    shards = pa.array([f"shards/{number // 100:05d}.bin" for number in range(100_000)])
    raw = pa.array([f"s3://lab/raw/file{number // 30:07d}.h5" for number in range(100_000)])
    check_contained(pa.table({"uri": shards, "target_uri": shards}), root)
    # Of a store's keys no one needs a look; a folder's may be links.
    assert len(looked_at) == len(set(looked_at)) == (0 if root.startswith("s3") else 1000)
    assert sorted(resolved) == ([] if root.startswith("s3") else [root, f"{root}/shards"])
    looked_at.clear()
    check_contained(pa.table({"uri": raw, "target_uri": raw}), root, ("s3://lab/raw",))
    assert looked_at == ["s3://lab/raw"]


def test_a_catalog_is_refused_at_load_by_its_rows_and_by_its_manifest(tmp_path):
    commit(tmp_path, row(index=0), row(index=1, uri="/proc/self/environ"))
    with pytest.raises(CatalogError, match=r"'/proc/self/environ': lies outside.*data\.trusted=\[/proc"):
        load_catalog(str(tmp_path))
    assert len(load_catalog(str(tmp_path), reads_payload=False)) == 2
    assert len(load_catalog(str(tmp_path), trusted=["/proc"])) == 2
    manifest = tmp_path / "catalog" / "v000001.json"
    values = json.loads(manifest.read_text())
    outside = tmp_path.parent / "table.parquet"
    outside.write_bytes((tmp_path / values["table"]).read_bytes())
    for key in (str(outside), f"../{outside.name}", f"file://{outside}", "", "catalog/%2e%2e/%2e%2e/x"):
        manifest.write_text(json.dumps({**values, "table": key, "checksum": xxhash.xxh3_64_intdigest(outside.read_bytes())}))
        with pytest.raises(CatalogError, match=r"leads out of the catalog"):
            load_catalog(str(tmp_path), trusted=["/"])
    check_key("s3://lab/knee", "catalog/v000001-x.parquet")


def test_a_stream_reads_scans_elsewhere_only_where_they_are_trusted(tmp_path):
    (tmp_path / "scans").mkdir()
    written = write_catalog(tmp_path / "scans", kind="raw", splits=("train", "val"))
    rows = [
        row_.__class__(**{**vars(row_), "uri": f"{tmp_path}/scans/{row_.uri}", "target_uri": f"{tmp_path}/scans/{row_.target_uri}"})
        for row_ in written.catalog.rows()
    ]
    commit(tmp_path / "to", *rows)
    with pytest.raises(CatalogError, match=r"data\.trusted=\[\S+/scans\]"):
        PlannedStream(LinesData(catalog=str(tmp_path / "to")), seed=0, batch_size=1)
    stream = PlannedStream(LinesData(catalog=str(tmp_path / "to"), trusted=(str(tmp_path / "scans"),)), seed=0, batch_size=1)
    assert len(list(stream.steps(0))) == 9
    stream.close()
