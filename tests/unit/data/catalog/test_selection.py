"""Selections of a catalog."""

import itertools
from dataclasses import fields

import numpy as np
import pyarrow as pa
import pytest

from echotrain.data.catalog.rows import SCHEMA
from echotrain.data.catalog.selection import Where, select
from echotrain.errors import CatalogError


@pytest.fixture
def table() -> pa.Table:
    rows = [
        {
            "dataset": "a" if volume % 2 else "b",
            "volume": f"v{volume}",
            "slice": index,
            "split": ["train", "train", "train", "val"][volume % 4],
            "anatomy": ["knee", "brain", "spine"][volume % 3],
            "contrast": ["T1", "T2"][volume % 2],
            "kind": "packed",
        }
        for volume in range(60)
        for index in range(1 + volume % 5)
    ]
    return pa.Table.from_pylist(rows)


def test_rows_of_a_split_come_in_catalog_order(table: pa.Table) -> None:
    chosen = select(table, splits=["val"])
    assert set(table["split"].take(pa.array(chosen)).to_pylist()) == {"val"}
    assert len(chosen) == table["split"].to_pylist().count("val")
    assert (np.diff(chosen) > 0).all()


def test_selections_by_anatomy_contrast_and_dataset_hold_together(table: pa.Table) -> None:
    where = Where(anatomy=("knee", "brain"), contrast=("T1",), dataset=("b",))
    rows = table.take(pa.array(select(table, splits=["train"], where=where))).to_pylist()
    assert {row["anatomy"] for row in rows} == {"knee", "brain"}
    assert {(row["contrast"], row["dataset"], row["split"]) for row in rows} == {("T1", "b", "train")}


def test_fractions_are_nested_and_made_of_whole_volumes(table: pa.Table) -> None:
    sets = [set(select(table, splits=["train"], fraction=fraction).tolist()) for fraction in (0.1, 0.2, 0.5, 1.0)]
    assert all(small < large for small, large in itertools.pairwise(sets))
    volumes = table["volume"].to_pylist()
    for chosen, count in zip(sets, (5, 9, 23, 45), strict=True):  # 4.5, 9, 22.5 and 45, halves rounded up
        names = {volumes[i] for i in chosen}
        assert len(names) == count
        assert chosen == {i for i, name in enumerate(volumes) if name in names and table["split"][i].as_py() == "train"}


def test_a_fraction_does_not_depend_on_the_order_of_the_catalog(table: pa.Table) -> None:
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(table.num_rows)))
    names = [set(t["volume"].take(pa.array(select(t, splits=["train"], fraction=0.2))).to_pylist()) for t in (table, shuffled)]
    assert names[0] == names[1]


def test_volumes_of_one_name_in_two_datasets_are_two() -> None:
    rows = [
        {
            "dataset": dataset,
            "volume": f"v{volume}",
            "slice": index,
            "split": "train",
            "anatomy": "knee",
            "contrast": "T1",
            "kind": "packed",
        }
        for dataset in ("a", "b", "av")
        for volume in range(20)
        for index in range(3)
    ]
    table = pa.Table.from_pylist(rows)
    chosen = table.take(pa.array(select(table, splits=["train"], fraction=0.5))).to_pylist()
    volumes = {(row["dataset"], row["volume"]) for row in chosen}
    assert len(volumes) == 30
    assert len(chosen) == 3 * 30
    of_each = [{name for dataset, name in volumes if dataset == each} for each in ("a", "b", "av")]
    assert of_each[0] != of_each[1] != of_each[2]


@pytest.mark.parametrize("lists", list(itertools.product([(), ("a",), ("a", "b")], [(), ("knee",)], [(), ("T1",), ("T2",)])))
def test_a_selection_keeps_what_fits_each_of_its_lists_as_select_does(table: pa.Table, lists) -> None:
    where = Where(**dict(zip(("dataset", "anatomy", "contrast"), lists, strict=True)))
    kept = [row for row in table.to_pylist() if where.fits(row)]
    try:
        chosen = select(table, splits=["train", "val"], where=where)
    except CatalogError:
        chosen = []
    assert kept == table.take(pa.array(chosen, pa.int64())).to_pylist()


def test_the_smallest_fraction_still_has_a_volume(table: pa.Table) -> None:
    assert len(select(table, splits=["train"], fraction=1e-6)) > 0


def test_an_empty_selection_names_what_there_is(table: pa.Table) -> None:
    with pytest.raises(CatalogError, match=r"anatomy elbow.*brain, knee, spine"):
        select(table, splits=["train"], where=Where(anatomy=("elbow",)))
    with pytest.raises(CatalogError, match=r"split test.*train, val"):
        select(table, splits=["test"])


def test_one_misspelt_name_among_good_ones_is_refused(table: pa.Table) -> None:
    with pytest.raises(CatalogError, match=r"anatomy brian: is not in the catalog.*brain, knee, spine"):
        select(table, splits=["train"], where=Where(anatomy=("knee", "brian")))


def test_every_column_that_a_header_decides_can_be_chosen_by() -> None:
    of_slices = {"slice", "frame", "split", "padding_left", "padding_right", "max_value", "norm"}
    of_payload = {"kind", "uri", "offset", "nbytes", "dtype", "checksum", "acs_lines"}
    of_payload |= {name for name in SCHEMA.names if name.startswith(("target_", "fov_")) or name == "thickness_mm"}
    assert {f.name for f in fields(Where)} == set(SCHEMA.names) - of_slices - of_payload


def test_numbers_and_claims_are_chosen_by_as_the_column_has_them() -> None:
    rows = [
        {"split": "train", "kind": "packed", "field_strength": field, "fat_suppressed": claim, "sex": sex}
        for field, claim, sex in itertools.product((0.55, 1.5, 3.0), (True, False, None), ("female", None))
    ]
    types = pa.schema(
        [
            ("split", pa.string()),
            ("kind", pa.string()),
            ("field_strength", pa.float32()),
            ("fat_suppressed", pa.bool_()),
            ("sex", pa.string()),
        ]
    )
    table = pa.Table.from_pylist(rows, schema=types)
    chosen = select(table, splits=["train"], where=Where(field_strength=(0.55, 3.0), fat_suppressed=(False,), sex=("female",)))
    assert [rows[position] for position in chosen] == [
        {"split": "train", "kind": "packed", "field_strength": field, "fat_suppressed": False, "sex": "female"} for field in (0.55, 3.0)
    ]
    with pytest.raises(CatalogError, match=r"field_strength 7.0: is not in the catalog.*1.5, 3.0"):
        select(table, splits=["train"], where=Where(field_strength=(1.5, 7.0)))


def test_of_a_column_with_thousands_of_names_some_are_named() -> None:
    rows = [{"split": "train", "volume": f"v{number:05d}"} for number in range(5000)]
    with pytest.raises(CatalogError, match=r"v00029 and 4970 more\.") as caught:
        select(pa.Table.from_pylist(rows), splits=["train"], where=Where(volume=("x",)))
    assert len(str(caught.value)) < 500
