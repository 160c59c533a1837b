"""Which rows of a catalog are the frames of one slice, and whether all of them are there and fit together."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from echotrain.data.catalog.columns import codes_of, taken
from echotrain.data.catalog.identity import SampleId
from echotrain.data.catalog.rows import SliceRow, rows_of
from echotrain.errors import CatalogError

__all__ = ["FRAME_COLUMNS", "FrameIndex", "check_frames", "slice_codes"]

_SLICE = ("dataset", "volume", "slice")
# What frames of one slice have in common: they become one array, sampled by one pattern.
_ALIKE = ("num_frames", "coils", "height", "width", "recon_height", "recon_width", "padding_left", "padding_right")
# What ``check_frames`` looks at.
FRAME_COLUMNS = (*_SLICE, "frame", *_ALIKE)
# Slices whose rows are kept at hand; more than a step has.
_SLICES_AT_HAND = 512


class _Slices(NamedTuple):
    """Rows in the order of slice and frame.

    Attributes:
        order: Positions of the rows in their table.
        starts: Where in the order each slice begins, and the end of the last.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]


class FrameIndex:
    """Finds the frames of a slice; for use by any number of threads. Takes 8 bytes a row and 12 a slice, once it is asked.

    Args:
        table: Catalog rows.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._rows = functools.lru_cache(maxsize=_SLICES_AT_HAND)(self._look_up)

    def frames_of(self, row: SliceRow) -> tuple[SliceRow, ...]:
        """Return the rows of all frames of a row's slice, in order; the row alone where it was measured once.

        Raises:
            CatalogError: A frame is missing or there twice, or frames differ in shape.
        """
        frames = self._rows(row.dataset, row.volume, row.slice)
        if not 0 <= (row.frame or 0) < len(frames):
            raise CatalogError(str(row.id), f"is none of the {len(frames)} frames that the catalog has of its slice", "Prepare it again.")
        return frames

    @functools.cached_property
    def _sorted(self) -> tuple[_Slices, NDArray[np.int64], dict[tuple[str, str], tuple[int, int]]]:
        """Return the slices in order, the number that each has in its volume, and where each volume's begin and end."""
        slices = _sort(self._table)
        firsts = slices.order[slices.starts[:-1]]
        of_slices = taken(self._table, firsts, _SLICE)
        volumes, begins = codes_of(of_slices, _SLICE[:2])
        ends = begins + np.bincount(volumes)
        names = taken(of_slices, begins, _SLICE[:2])
        keys = zip(names["dataset"].to_pylist(), names["volume"].to_pylist(), strict=True)
        return slices, of_slices["slice"].to_numpy(), dict(zip(keys, zip(begins.tolist(), ends.tolist(), strict=True), strict=True))

    def _look_up(self, dataset: str, volume: str, slice: int) -> tuple[SliceRow, ...]:
        slices, numbers, volumes = self._sorted
        begin, end = volumes.get((dataset, volume), (0, 0))
        at = begin + int(np.searchsorted(numbers[begin:end], slice))
        if at == end or numbers[at] != slice:
            return ()
        rows = taken(self._table, slices.order[slices.starts[at] : slices.starts[at + 1]])
        check_frames(rows)
        return tuple(rows_of(rows))


def check_frames(rows: pa.Table) -> None:
    """Refuse slices of which a frame is missing or there twice, or whose frames differ in shape.

    Args:
        rows: At least the columns ``FRAME_COLUMNS`` of all rows of some slices.

    Raises:
        CatalogError: The first such slice is named.
    """
    if not rows.num_rows:
        return
    order, starts = _sort(rows)
    first, counts = starts[:-1], np.diff(starts)
    slice_of = np.repeat(np.arange(len(counts)), counts)
    for column in _ALIKE:
        values = _numbers(rows, column, 1)[order]
        differs = np.flatnonzero(values != values[first][slice_of])
        if len(differs):
            one, other = (_described(rows, order[at]) for at in (first[slice_of[differs[0]]], differs[0]))
            raise CatalogError(
                f"{column} {other[column]} of {other['id']}",
                f"is not the {one[column]} of {one['id']}: frames of a slice must be alike",
                "Prepare the data again, or leave the volume out.",
            )
    frames, expected = _numbers(rows, "frame", 0)[order], _numbers(rows, "num_frames", 1)[order][first]
    wrong = np.flatnonzero((frames != np.arange(rows.num_rows) - first[slice_of]) | (counts != expected)[slice_of])
    if len(wrong):
        number = slice_of[wrong[0]]
        sample: SampleId = _described(rows, order[first[number]])["id"]
        raise CatalogError(
            str(sample._replace(frame=None)),
            _what_is_wrong(frames[slice_of == number].tolist(), int(expected[number])),
            "Prepare the data again, or leave the volume out.",
        )


def slice_codes(table: pa.Table, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a number for the slice of each of some rows, counted from 0, the same for its frames, and the row's frame."""
    rows = taken(table, positions, (*_SLICE, "frame"))
    return codes_of(rows, _SLICE)[0], _numbers(rows, "frame", 0)


def _described(rows: pa.Table, position: np.integer) -> dict[str, Any]:
    (row,) = taken(rows, np.array([position]), FRAME_COLUMNS).to_pylist()
    return {**row, "id": SampleId(row["dataset"], row["volume"], row["slice"], row["frame"])}


def _what_is_wrong(frames: list[int], expected: int) -> str:
    missing = sorted(set(range(expected)) - set(frames))
    what = f"lacks frame {_listed(missing)}" if missing else f"has frames {_listed(frames)}"
    return f"{what} of the {expected} that num_frames says"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")


def _sort(rows: pa.Table) -> _Slices:
    codes, _ = codes_of(rows, _SLICE)
    order = np.lexsort((_numbers(rows, "frame", 0), codes))
    return _Slices(order, np.concatenate([[0], np.cumsum(np.bincount(codes))]))


def _numbers(rows: pa.Table, column: str, instead: int) -> NDArray[np.int64]:
    """Return a column of whole numbers, with another value where there is none."""
    values: NDArray[np.int64] = pc.fill_null(rows[column], instead).to_numpy().astype(np.int64)
    return values
