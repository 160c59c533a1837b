"""Identifiers in some forty places of headers, attributes, protocols, names and folders: none of them in what conversion writes."""

import json

import pytest

from echotrain.data.catalog.store import commit_catalog
from echotrain.data.formats import Deidentifier, deidentify, fastmri
from echotrain.data.preparing.assemble import assemble
from echotrain.data.preparing.convert import ConvertConfig, convert_scan, scan_key
from echotrain.data.splits.made import SplitConfig
from echotrain.storage.local import LocalStore
from tests.identifiers import IN_ATTRIBUTES, IN_HEADER, IN_TWIX, identifiers_below, identifiers_in, needles, write_named_scans

pytest.importorskip("twixtools")


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("named")
    return folder, write_named_scans(folder)


def convert_all(scans, to, **settings):
    """Convert, assemble and commit everything; return the records."""
    folder, paths = scans
    store, config = LocalStore(to), ConvertConfig(**settings)
    deidentifier = Deidentifier("key", safe_names=config.safe_names, root=f"{folder}/")
    records = []
    for path in paths:
        key = scan_key(deidentifier, str(path), path.stat().st_size, "1", config)
        records.append(convert_scan(path, uri=str(path), key=key, store=store, config=config, deidentifier=deidentifier))
    assembly = assemble(records, None, SplitConfig())
    left_out = [entry.to_dict() for entry in assembly.left_out]
    commit_catalog(store, assembly.table, {"scans": assembly.scans, "left_out": left_out, "notes": list(assembly.notes)})
    return records


def test_the_scans_hold_every_identifier_so_that_a_search_can_find_them(scans):
    folder, _ = scans
    there = {place: needle for found in identifiers_below(folder).values() for needle, place in found.items()}
    assert set(needles().values()) <= set(there)
    assert len(IN_HEADER) + len(IN_ATTRIBUTES) + len(IN_TWIX) >= 40
    assert len(set(needles().values())) >= 45


@pytest.mark.parametrize(
    "settings",
    [{}, {"payload": "raw"}, {"payload": "lines"}, {"payload": "raw", "dataset": "ours"}],
    ids=["packed", "raw", "lines", "named"],
)
def test_no_identifier_is_in_anything_that_conversion_writes(scans, tmp_path, settings):
    records = convert_all(scans, tmp_path, **settings)
    assert sum(bool(record.rows) for record in records) == 11
    assert sum(bool(record.rejections) for record in records) == 2
    assert identifiers_below(tmp_path) == {}
    assert identifiers_in(json.dumps([record.to_values() for record in records])) == {}
    assert {record.name.split("-")[0] for record in records} == {"volume", "unreadable"}
    assert {row["anatomy"] for record in records for row in record.rows} == {"knee"}, "what parsers recognise comes out"


def test_whoever_vouches_for_all_names_vouches_for_names_alone(scans, tmp_path):
    convert_all(scans, tmp_path, safe_names=(".*",), payload="raw")
    places = {place for found in identifiers_below(tmp_path).values() for place in found.values()}
    assert places == {"stem of fastmri", "stem of ismrmrd", "folder"}


@pytest.mark.parametrize(
    ("module", "name", "stand_in", "expected"),
    [
        (fastmri, "acquisition_code", lambda text: text, "attribute acquisition"),
        (fastmri, "collection_name", lambda text: text, "attribute dataset"),
        (deidentify, "is_public_stem", lambda stem: True, "stem of fastmri"),
    ],
)
def test_the_search_finds_what_a_reader_lets_through(scans, tmp_path, monkeypatch, module, name, stand_in, expected):
    monkeypatch.setattr(module, name, stand_in)
    convert_all(scans, tmp_path)
    assert expected in {place for found in identifiers_below(tmp_path).values() for place in found.values()}
