"""The montage shows the right slice of the right volume in the right place, chosen without looking."""

import dataclasses
import itertools

import numpy as np
import pyarrow as pa
import pytest

from echotrain.data.catalog.rows import SCHEMA
from echotrain.studies.mosaic import montage
from echotrain.studies.mosaic.montage import Tile, choose_slices, montage_chart, read_montage
from tests.catalogs import write_catalog


def table_of(*volumes):
    """Return catalog rows of ``(name, anatomy, contrast, orientation, slices)``, slices given by their numbers."""
    rows = []
    for name, anatomy, contrast, orientation, slices in volumes:
        kind = {"dataset": "d", "volume": name, "anatomy": anatomy, "contrast": contrast, "orientation": orientation}
        rows += [{**kind, "slice": index, "target_nbytes": 4} for index in slices]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def chosen_of(table):
    rows = table.to_pylist()
    return {cell: (rows[at]["volume"], rows[at]["slice"]) for cell, at in choose_slices(table)[0].items()}


def test_each_group_and_family_has_the_middle_slice_of_one_of_its_volumes():
    table = table_of(
        ("s1", "spine", "T2", "SAG", (4, 0, 1, 2, 3)),
        ("s2", "spine", "T2", "SAG", (0, 1)),
        ("s3", "spine", "T1_POST", "SAG", (0,)),
        ("a1", "ankle", "PD_FS", "COR", (5, 7, 9, 11)),
        ("x1", "", "", "", (0, 1, 2)),
    )
    chosen = chosen_of(table)
    assert list(chosen) == [("spine", "T1"), ("spine", "T2"), ("lower extremity", "PD-FS"), ("unknown", "unknown")]
    assert chosen["spine", "T2"] in {("s1", 2), ("s2", 1)}
    assert chosen["spine", "T1"] == ("s3", 0)
    # Slices that curation left out do not count for the middle.
    assert chosen["lower extremity", "PD-FS"] == ("a1", 9)
    # The order of the rows says nothing.
    assert chosen_of(table.take(pa.array(np.arange(len(table))[::-1].copy()))) == chosen


def test_orientations_differ_along_a_row_where_they_can():
    names = itertools.count()
    volumes = [
        (f"v{next(names)}", "knee", contrast, o, (0,)) for contrast in ("T1", "T2", "PD") for o in ("AX", "SAG", "COR") for _ in range(4)
    ]
    table = table_of(*volumes)
    rows = table.to_pylist()
    assert {rows[at]["orientation"] for at in choose_slices(table)[0].values()} == {"AX", "SAG", "COR"}


def test_volumes_without_a_target_are_passed_over():
    table = table_of(("k1", "knee", "T1", "AX", (0, 1, 2)), ("h1", "hip", "T1", "AX", (0,)))
    lacking = [0 if row["volume"] == "h1" or row["slice"] == 1 else 4 for row in table.to_pylist()]
    table = table.set_column(table.schema.get_field_index("target_nbytes"), "target_nbytes", pa.array(lacking, pa.int64()))
    assert chosen_of(table) == {("knee", "T1"): ("k1", 2)}


def test_rare_kinds_that_find_no_room_are_counted_and_told(monkeypatch):
    monkeypatch.setattr(montage, "_MOST_GROUPS", 2)
    monkeypatch.setattr(montage, "_MOST_FAMILIES", 1)
    volumes = [
        (f"{a}{c}{n}", a, c, "AX", (0,))
        for a, count in (("knee", 3), ("spine", 2), ("brain", 1))
        for c in ("T1", "PD")
        for n in range(count)
    ]
    chosen, num_left_out = choose_slices(table_of(*volumes, ("more", "knee", "T1", "AX", (0,))))
    assert (list(chosen), num_left_out) == ([("knee", "T1"), ("spine", "T1")], 2)
    assert "2 rarer groups or contrasts are left out" in montage.Montage(tiles=(), num_left_out=2).caption
    assert "left out" not in montage.Montage(tiles=()).caption


def test_tiles_hold_the_targets_of_their_slices(tmp_path):
    written = write_catalog(tmp_path, volumes=4, slices=3, anatomies=("knee", "brain", "hip", "foot"))
    found = read_montage(written.catalog)
    assert sorted(tile.group for tile in found.tiles) == ["brain", "knee", "lower extremity", "pelvic girdle"]
    for tile in found.tiles:
        assert (tile.row.slice, tile.family) == (1, "PD")
        assert np.array_equal(tile.image, written.target[tile.row.volume, 1])


@pytest.fixture
def tiles(tmp_path):
    """Return four tiles of a grid of three by three, each image bright in a quarter of its own."""
    row = write_catalog(tmp_path, volumes=1).catalog.rows()[0]
    cells = {("spine", "PD"): (0, 0), ("spine", "T1"): (0, 1), ("knee", "STIR"): (1, 0), ("hip", "T1"): (1, 1)}
    made = []
    for (group, family), (y, x) in cells.items():
        image = np.zeros((20, 10), np.float32)
        image[10 * y : 10 * y + 10, 5 * x : 5 * x + 5] = 7.0
        about = {"recon_height": 20, "recon_width": 10, "orientation": f"{group[:2]}{family[:1]}", "coils": 10 + y, "num_slices": 30 + x}
        made.append(Tile(group=group, family=family, row=dataclasses.replace(row, **about), image=image))
    return made


def test_every_tile_is_drawn_in_its_place_under_its_labels(tiles):
    figure = montage_chart(tiles).figure
    panels = figure.axes
    assert [axes.get_title() for axes in panels[:3]] == ["T1", "PD", "STIR"]
    assert [axes.get_ylabel() for axes in panels[::3]] == ["spine", "knee", "hip"]
    drawn = {number: axes for number, axes in enumerate(panels) if axes.images}
    expected = {1: tiles[0], 0: tiles[1], 5: tiles[2], 6: tiles[3]}
    assert drawn.keys() == expected.keys()
    for number, tile in expected.items():
        assert np.asarray(drawn[number].images[0].get_array()) == pytest.approx(tile.image / 7, abs=1e-6)
        orientation, below = (text.get_text() for text in drawn[number].texts)
        assert orientation == tile.row.orientation
        assert below == f"20 × 10\n{tile.row.coils} coils · {tile.row.num_slices} slices"


@pytest.mark.parametrize(("fov", "aspect"), [((None, None), 1.0), ((200.0, 200.0), 0.5), ((400.0, 100.0), 2.0)])
def test_a_tile_has_the_shape_of_its_field_of_view(tiles, fov, aspect):
    row = dataclasses.replace(tiles[0].row, fov_readout_mm=fov[0], fov_phase_mm=fov[1])
    (axes,) = montage_chart([dataclasses.replace(tiles[0], row=row)]).figure.axes
    assert axes.get_aspect() == pytest.approx(aspect)


def test_large_slices_are_made_small_without_losing_their_shape(tiles):
    large = dataclasses.replace(tiles[0], image=np.kron(tiles[0].image, np.ones((40, 40), np.float32)))
    (axes,) = montage_chart([large]).figure.axes
    shown = np.asarray(axes.images[0].get_array())
    assert shown.shape == (192, 96)
    assert shown[:90, :43].min() > 0.9
    assert shown[100:].max() < 0.1
