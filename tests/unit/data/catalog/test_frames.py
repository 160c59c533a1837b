"""The frames of a slice: found in a catalog however it lies, and refused where one is missing or unlike the others."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from echotrain.data.catalog.frames import FrameIndex, check_frames, slice_codes
from echotrain.data.catalog.rows import Catalog
from echotrain.errors import CatalogError
from tests.frame_catalogs import write_frames


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    return write_frames(folder, volumes=5, slices=3, frames=(4, 0, 1, 6), shuffled=True).catalog.rows()


def table_of(rows):
    return Catalog.from_rows(rows).table


def test_the_frames_of_every_row_are_those_of_its_slice_in_order(rows):
    index = FrameIndex(table_of(rows))
    for row in rows:
        frames = index.frames_of(row)
        expected = [r for r in rows if (r.volume, r.slice) == (row.volume, row.slice)]
        assert sorted(expected, key=lambda r: r.frame or 0) == list(frames)
        assert frames[row.frame or 0] == row
    assert {len(index.frames_of(row)) for row in rows} == {1, 4, 6}


def test_volumes_of_one_name_in_two_data_sets_are_two(rows):
    others = [dataclasses.replace(row, dataset="other", max_value=99.0) for row in rows]
    index = FrameIndex(table_of([*rows, *others]))
    for row in (rows[3], others[3]):
        assert {(each.dataset, each.max_value) for each in index.frames_of(row)} == {(row.dataset, row.max_value)}


def test_a_catalog_without_faults_is_let_through(rows):
    check_frames(table_of(rows))
    check_frames(table_of([]))


def changed(rows, volume, slice, frame, columns):
    """Return the rows with one of them changed; without columns, left out."""
    one = next(row for row in rows if (row.volume, row.slice, row.frame) == (volume, slice, frame))
    return [dataclasses.replace(row, **columns) if row is one else row for row in rows if row is not one or columns]


FAULTS = [
    ({}, r"cine/P003\[1\]: lacks frame 2 of the 6 that num_frames says"),
    ({"frame": 3}, r"cine/P003\[1\]: lacks frame 2 of the 6"),
    ({"frame": 6}, r"cine/P003\[1\]: lacks frame 2 of the 6"),
    ({"frame": None}, r"cine/P003\[1\]: lacks frame 2 of the 6"),
    ({"num_frames": 7}, r"num_frames 7 of cine/P003\[1\]\[2\]: is not the 6 of cine/P003\[1\]\[0\]"),
    ({"num_frames": None}, r"num_frames None of cine/P003\[1\]\[2\]"),
    ({"coils": 5}, r"coils 5 of cine/P003\[1\]\[2\]: is not the 3 of cine/P003\[1\]\[0\]: frames of a slice must be alike"),
    ({"width": 26}, "width 26"),
    ({"recon_height": 15}, "recon_height 15"),
    ({"padding_left": 2}, "padding_left 2"),
]


@pytest.mark.parametrize(("columns", "message"), FAULTS)
def test_a_slice_whose_frames_do_not_fit_is_named(rows, columns, message):
    table = table_of(changed(rows, "P003", 1, 2, columns))
    with pytest.raises(CatalogError, match=message):
        check_frames(table)
    index, neighbour = FrameIndex(table), next(row for row in rows if (row.volume, row.slice, row.frame) == ("P003", 1, 0))
    with pytest.raises(CatalogError, match=message):
        index.frames_of(neighbour)
    other = next(row for row in rows if (row.volume, row.slice) == ("P003", 0))
    assert len(index.frames_of(other)) == 6


def test_a_frame_that_is_there_twice_is_named(rows):
    twice = next(row for row in rows if (row.volume, row.slice, row.frame) == ("P000", 0, 1))
    with pytest.raises(CatalogError, match=r"cine/P000\[0\]: has frames 0, 1, 1, 2, 3 of the 4"):
        check_frames(table_of([*rows, twice]))


def test_a_slice_that_was_measured_once_but_is_there_twice_is_named(rows):
    twice = next(row for row in rows if row.frame is None)
    with pytest.raises(CatalogError, match="has frames 0, 0 of the 1"):
        check_frames(table_of([*rows, twice]))


def test_a_row_that_the_catalog_lacks_is_named(rows):
    index = FrameIndex(table_of(rows))
    with pytest.raises(CatalogError, match=r"cine/P000\[0\]\[9\]: is none of the 4 frames"):
        index.frames_of(dataclasses.replace(next(row for row in rows if row.volume == "P000" and row.slice == 0), frame=9))
    with pytest.raises(CatalogError, match="is none of the 0 frames"):
        index.frames_of(dataclasses.replace(rows[0], volume="P999"))


def test_slices_are_numbered_in_the_order_of_names_and_their_frames_share_a_number(rows):
    codes, frames = slice_codes(table_of(rows), np.arange(len(rows)))
    named = sorted({(row.dataset, row.volume, row.slice) for row in rows})
    assert [named[code] for code in codes] == [(row.dataset, row.volume, row.slice) for row in rows]
    assert frames.tolist() == [row.frame or 0 for row in rows]


def test_a_hundred_thousand_frames_are_checked_and_indexed_without_a_loop_over_them(rows):
    one = table_of([row for row in rows if row.volume == "P000" and row.slice == 0])
    many = pa.concat_tables([one.set_column(1, "volume", pa.array([f"v{i}"] * 4)) for i in range(25)]).combine_chunks()
    large = many.take(pa.array(np.tile(np.arange(100), 1000)))
    large = large.set_column(2, "slice", pa.array(np.repeat(np.arange(1000), 100).astype(np.int32)))
    check_frames(large)
    (row,) = Catalog(large).rows(np.array([70_001]))
    frames = FrameIndex(large).frames_of(row)
    assert len(frames) == 4
    assert frames[row.frame] == row
