"""Which slices are shown: chosen before anything is scored, so that nobody picks the prettiest."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from echotrain.data.catalog.columns import codes_of, taken
from echotrain.data.catalog.identity import SampleId
from echotrain.seeding import derive_seed

__all__ = ["choose_examples"]


def choose_examples(table: pa.Table, count: int = 6, positions: NDArray[np.int64] | None = None) -> list[SampleId]:
    """Choose the middle slices of up to ``count`` volumes that cover anatomies and contrasts; of a slice with frames the first one.

    Args:
        table: Catalog rows of whole volumes.
        count: How many to choose.
        positions: Of the rows to choose from, as selected for an evaluation; None for all.

    Returns:
        Slices ordered by anatomy and contrast. A volume is preferred if its kind has been chosen less often so far, then by a
        hash of its name.
    """
    chosen_from = np.arange(table.num_rows) if positions is None else positions
    volumes = taken(table, chosen_from, ["dataset", "volume", "anatomy", "contrast"])
    codes, firsts = codes_of(volumes, ["dataset", "volume"])
    found = taken(volumes, firsts).to_pylist()
    keys = [(row["dataset"], row["volume"]) for row in found]
    kinds = dict(zip(keys, ((row["anatomy"], row["contrast"]) for row in found), strict=True))
    waiting = sorted(keys, key=lambda key: derive_seed(0, "example", *key))
    chosen: list[tuple[str, str]] = []
    while waiting and len(chosen) < count:
        seen = [kinds[key] for key in chosen]
        anatomies = [anatomy for anatomy, _ in seen]
        best = min(waiting, key=lambda key: (seen.count(kinds[key]), anatomies.count(kinds[key][0])))
        waiting.remove(best)
        chosen.append(best)
    slices = {key: _first_frames(taken(table, chosen_from[codes == keys.index(key)], ["slice", "frame"])) for key in chosen}
    chosen.sort(key=lambda key: (kinds[key], len(slices[key]), key))
    middles = [sorted(slices[key])[len(slices[key]) // 2] for key in chosen]
    return [SampleId(*key, middle, slices[key][middle]) for key, middle in zip(chosen, middles, strict=True)]


def _first_frames(rows: pa.Table) -> dict[int, int | None]:
    """Return the slices of a volume, and the first frame of each that has some."""
    frames: dict[int, int | None] = {}
    for row in rows.to_pylist():
        there = [each for each in (row["frame"], frames.get(row["slice"])) if each is not None]
        frames[row["slice"]] = min(there, default=None)
    return frames
