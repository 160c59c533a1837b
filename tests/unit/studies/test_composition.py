"""A catalog in tables and figures: volumes and patients are counted once, groups are the paper's."""

import numpy as np
import pyarrow as pa
import pytest

from echotrain.data.catalog.rows import SCHEMA, rows_of
from echotrain.studies.mosaic.anatomy_groups import anatomy_group, contrast_family
from echotrain.studies.mosaic.composition import anatomy_table, geometry_table, split_table, subject_caption, subject_table, volumes_of
from echotrain.studies.mosaic.composition_figures import composition_chart, diversity_chart
from echotrain.studies.mosaic.data import dataset_section
from echotrain.studies.mosaic.montage import Montage, Tile

# volume, patient, split, anatomy, contrast, coils, slices, field of view, sex, weight
VOLUMES = (
    ("k1", "p1", "train", "knee", "PD_FS", 16, 4, 184.0, "F", 40),
    ("k2", "p1", "train", "knee", "T1", 18, 2, 200.0, "F", 40),
    ("k3", "p2", "test", "knee", "T2_POST", 16, 3, None, "M", 120),
    ("a1", "p3", "train", "ankle", "STIR", 8, 5, 120.0, "O", 70),
    ("f1", "p3", "train", "foot", "", 4, 1, 140.0, "M", None),
    ("x1", "p4", "val", "", "T1", 4, 2, None, None, None),
)


@pytest.fixture
def volumes():
    rows = []
    for volume, patient, split, anatomy, contrast, coils, slices, fov, sex, weight in VOLUMES:
        for index in range(slices):
            known = {"dataset": "d", "volume": volume, "slice": index, "patient": patient, "split": split, "anatomy": anatomy}
            shape = {"coils": coils, "recon_height": 320, "recon_width": 160, "fov_readout_mm": fov, "fov_phase_mm": fov}
            rows.append({**known, "contrast": contrast, "orientation": "SAG", "sex": sex, "weight_bin_kg": weight, **shape})
    return volumes_of(pa.Table.from_pylist(rows, schema=SCHEMA))


def cells(table):
    return {row[0]: row[1:] for section in table.sections for row in section.rows}


def test_patients_volumes_and_slices_of_a_split_are_each_counted_once(volumes):
    assert cells(split_table(volumes)) == {
        "train": ("2", "4", "12", "70.6%"),
        "val": ("1", "1", "2", "11.8%"),
        "test": ("1", "1", "3", "17.6%"),
        "all": ("4", "6", "17", "100.0%"),
    }


def test_groups_come_by_size_and_unknown_ones_are_named(volumes):
    rows = cells(anatomy_table(volumes))
    assert list(rows) == ["knee", "lower extremity", "unknown"]
    assert rows["knee"] == ("3", "50%", "2", "9", "16 (16–18)", "3 (2–4)", "PD-FS, T1, T2", "SAG")
    assert rows["lower extremity"][6] == "STIR, unknown"


def test_geometry_leaves_out_what_no_header_tells(volumes):
    rows = cells(geometry_table(volumes))
    assert rows == {"knee": ("2", "192.0", "192.0", "0.600", "1.200"), "lower extremity": ("2", "130.0", "130.0", "0.406", "0.812")}


def test_sex_and_weight_are_of_the_volumes_whose_headers_tell_them(volumes):
    table = subject_table(volumes)
    assert table.columns == ("Weight, kg", "Female", "Male", "Other or\nnot told", "All")
    assert cells(table) == {
        "all that tell": ("2 (50.0%)", "2 (50.0%)", "1", "5"),
        "below 50": ("2 (100.0%)", "0", "0", "2"),
        "70–80": ("0", "0", "1", "1"),
        "120 and more": ("0", "1 (100.0%)", "0", "1"),
        "not told": ("0", "1 (100.0%)", "0", "1"),
    }
    caption = subject_caption(volumes)
    assert "4 of 6 tell female or male, 4 a weight; the median weight is below 50 and 70–80 kg." in caption


def test_a_catalog_of_which_no_header_tells_sex_or_weight_has_no_such_table(volumes):
    silent = volumes.assign(sex=None, weight_bin_kg=np.nan)
    assert subject_table(silent).sections[0].rows == ()
    assert subject_caption(silent) == "By volumes, as the paper counts. 0 of 6 tell female or male, 0 a weight."
    one = silent.assign(weight_bin_kg=[np.nan, 80, np.nan, np.nan, np.nan, np.nan])
    assert cells(subject_table(one)) == {"all that tell": ("0", "0", "1", "1"), "80–90": ("0", "0", "1", "1")}
    assert "the median weight is 80–90 kg" in subject_caption(one)


def test_the_section_shows_what_there_is():
    known = {
        "dataset": "d",
        "volume": "v",
        "slice": 0,
        "num_slices": 1,
        "patient": "p",
        "split": "train",
        "anatomy": "knee",
        "contrast": "T1",
    }
    shape = {"orientation": "AX", "coils": 2, "recon_height": 4, "recon_width": 4}
    table = pa.Table.from_pylist([{**known, **shape}], schema=SCHEMA)
    names = [exhibit.name for exhibit in dataset_section(table, Montage(tiles=())).exhibits]
    assert names == [exhibit.name for exhibit in dataset_section(table).exhibits] == ["volumes", "splits", "diversity", "anatomies"]
    told = table.set_column(table.schema.get_field_index("sex"), "sex", pa.array(["F"]))
    assert dataset_section(told).exhibits[-1].name == "subjects"
    tile = Tile(group="knee", family="T1", row=rows_of(table)[0], image=np.eye(4, dtype=np.float32))
    assert dataset_section(table, Montage(tiles=(tile,))).exhibits[1].name == "montage"


def test_the_groups_are_those_of_the_paper():
    assert {name: anatomy_group(name) for name in ("spine", "hip", "pelvis", "ankle", "foot", "elbow", "wrist", "brain")} == {
        "spine": "spine",
        "hip": "pelvic girdle",
        "pelvis": "pelvic girdle",
        "ankle": "lower extremity",
        "foot": "lower extremity",
        "elbow": "upper extremity",
        "wrist": "upper extremity",
        "brain": "brain",
    }
    assert [contrast_family(name) for name in ("T1_POST_FS", "PD", "STIR")] == ["T1-FS", "PD", "STIR"]


def test_charts_name_every_group_and_family(volumes):
    composition, diversity = composition_chart(volumes), diversity_chart(volumes)
    for chart in (composition, diversity):
        assert b"<!-- lower extremity -->" in chart.light
        assert chart.light != chart.dark
    assert b"<!--   3 (50%) -->" in composition.light
    for family in (b"PD-FS", b"STIR", b"unknown"):
        assert b"<!-- " + family + b" -->" in diversity.light
