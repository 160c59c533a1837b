"""Which slices are shown: chosen before anything is scored, so that nobody picks the prettiest."""

import pyarrow as pa

from echotrain.data.catalog.identity import SampleId
from echotrain.seeding import derive_seed

__all__ = ["choose_examples"]


def choose_examples(table: pa.Table, count: int = 6) -> list[SampleId]:
    """Choose the middle slices of up to ``count`` volumes that cover anatomies and contrasts; of a slice with frames the first one.

    Args:
        table: Catalog rows of whole volumes, as selected for an evaluation.
        count: How many to choose.

    Returns:
        Slices ordered by anatomy and contrast. A volume is preferred if its kind has been chosen less often so far, then by a
        hash of its name.
    """
    slices: dict[tuple[str, str], dict[int, int | None]] = {}
    kinds: dict[tuple[str, str], tuple[str, str]] = {}
    for row in table.select(["dataset", "volume", "slice", "frame", "anatomy", "contrast"]).to_pylist():
        key = row["dataset"], row["volume"]
        frames = slices.setdefault(key, {})
        frames[row["slice"]] = min((each for each in (row["frame"], frames.get(row["slice"])) if each is not None), default=None)
        kinds[key] = row["anatomy"], row["contrast"]
    waiting = sorted(slices, key=lambda key: derive_seed(0, "example", *key))
    chosen: list[tuple[str, str]] = []
    while waiting and len(chosen) < count:
        seen = [kinds[key] for key in chosen]
        anatomies = [anatomy for anatomy, _ in seen]
        best = min(waiting, key=lambda key: (seen.count(kinds[key]), anatomies.count(kinds[key][0])))
        waiting.remove(best)
        chosen.append(best)
    chosen.sort(key=lambda key: (kinds[key], len(slices[key]), key))
    middles = [sorted(slices[key])[len(slices[key]) // 2] for key in chosen]
    return [SampleId(*key, middle, slices[key][middle]) for key, middle in zip(chosen, middles, strict=True)]
