"""Named subsets: chosen once, the same for whoever names them, and never of held-out slices."""

import dataclasses

import pytest

from echotrain.data.catalog.identity import SampleId
from echotrain.data.catalog.rows import Catalog
from echotrain.data.catalog.selection import select
from echotrain.data.catalog.subsets import load_subset, save_subset
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import CatalogError, ConfigError, LeakageError
from tests.catalogs import write_catalog

CHOSEN = [SampleId("test", "file000", 2), SampleId("test", "file003", 0), SampleId("test", "file003", 1)]


@pytest.fixture
def root(tmp_path):
    """Return a catalog of six volumes of three slices: four to train on, one to validate, one to test."""
    return write_catalog(tmp_path, splits=("train", "val", "test", "train", "train", "train")).catalog


def test_a_run_trains_on_the_subset_and_validates_on_everything(root):
    save_subset(root.root, "few", CHOSEN, {"k": 4})
    stream = PlannedStream(LinesData(catalog=root.root, subset="few"), seed=1, batch_size=1)
    seen = {sample for step in stream.steps(0) for batch in step.batches for sample in batch.ids}
    assert seen == set(CHOSEN)
    assert sum(len(batch.ids) for batch in stream.evaluation("val")) == 3
    stream.close()


def test_fractions_and_names_choose_within_the_subset(root):
    subset = save_subset(root.root, "few", CHOSEN, {})
    rows = root.rows(select(root.table, splits=("train",), subset=subset, fraction=0.5))
    assert {row.volume for row in rows} in ({"file000"}, {"file003"})
    assert len(rows) == (1 if rows[0].volume == "file000" else 2)


def test_a_subset_of_a_slice_has_all_of_its_frames(root):
    subset = save_subset(root.root, "few", CHOSEN[:1], {})
    cine = [dataclasses.replace(row, frame=frame) for row in root.rows() for frame in range(3)]
    table = Catalog.from_rows(cine).table
    assert [cine[i].id for i in select(table, splits=("train",), subset=subset)] == [CHOSEN[0]._replace(frame=frame) for frame in range(3)]


def test_a_subset_is_read_back_and_never_replaced(root):
    save_subset(root.root, "few", [*reversed(CHOSEN), CHOSEN[0]], {"k": 4})
    found = load_subset(root.root, "few")
    assert [SampleId(**row) for row in found.slices.to_pylist()] == CHOSEN
    assert found.about == {"k": 4}
    save_subset(root.root, "few", [*CHOSEN, CHOSEN[1]._replace(frame=5)], {"k": 4})
    with pytest.raises(CatalogError, match=r"few\.parquet: is another subset of this name"):
        save_subset(root.root, "few", CHOSEN[:1], {"k": 1})


@pytest.mark.parametrize(("volume", "split"), [("file001", "val"), ("file002", "test")])
def test_held_out_slices_in_a_subset_are_a_leak(root, volume, split):
    subset = save_subset(root.root, "leaky", [*CHOSEN, SampleId("test", volume, 0)], {})
    with pytest.raises(LeakageError, match=rf"subset leaky: test/{volume}\[0\]: and 0 more of its slices are held out \({split}\)"):
        select(root.table, splits=("train",), subset=subset)


def test_slices_that_the_catalog_lacks_are_named(root):
    subset = save_subset(root.root, "old", [*CHOSEN, SampleId("test", "file009", 0)], {})
    with pytest.raises(CatalogError, match=r"subset old: test/file009\[0\]: and 0 more of its 4 slices are not in the catalog"):
        select(root.table, splits=("train",), subset=subset)


def test_what_is_no_subset_is_refused(root, tmp_path):
    with pytest.raises(CatalogError, match=r"data\.subset=none: is not among.*There is none yet"):
        load_subset(root.root, "none")
    save_subset(root.root, "few", CHOSEN, {})
    with pytest.raises(CatalogError, match="There are: few"):
        load_subset(root.root, "none")
    with pytest.raises(CatalogError, match="subset empty: would be empty"):
        save_subset(root.root, "empty", [], {})
    with pytest.raises(ConfigError, match="must be a plain word"):
        load_subset(root.root, "../secret")
    (tmp_path / "subsets" / "bad.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(CatalogError, match=r"bad\.parquet: is no subset"):
        load_subset(root.root, "bad")
