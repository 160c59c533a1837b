"""A catalog in tables and figures: volumes and patients are counted once, groups are the paper's."""

import pyarrow as pa
import pytest

from echotrain.data.anatomy_groups import anatomy_group, contrast_family
from echotrain.data.catalog import SCHEMA
from echotrain.evaluation.dataset import anatomy_table, geometry_table, split_table, volumes_of
from echotrain.evaluation.dataset_figures import composition_chart, diversity_chart

# volume, patient, split, anatomy, contrast, coils, slices, field of view
VOLUMES = (
    ("k1", "p1", "train", "knee", "PD_FS", 16, 4, 184.0),
    ("k2", "p1", "train", "knee", "T1", 18, 2, 200.0),
    ("k3", "p2", "test", "knee", "T2_POST", 16, 3, None),
    ("a1", "p3", "train", "ankle", "STIR", 8, 5, 120.0),
    ("f1", "p3", "train", "foot", "", 4, 1, 140.0),
    ("x1", "p4", "val", "", "T1", 4, 2, None),
)


@pytest.fixture
def volumes():
    rows = []
    for volume, patient, split, anatomy, contrast, coils, slices, fov in VOLUMES:
        for index in range(slices):
            known = {"dataset": "d", "volume": volume, "slice": index, "patient": patient, "split": split, "anatomy": anatomy}
            shape = {"coils": coils, "recon_height": 320, "recon_width": 160, "fov_readout_mm": fov, "fov_phase_mm": fov}
            rows.append({**known, "contrast": contrast, "orientation": "SAG", **shape})
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
