"""Which slices of an evaluation are shown: chosen before anything is scored, so that nobody picks the prettiest."""

from collections.abc import Mapping

from echotrain.metrics.collector import SliceKey, VolumeKey
from echotrain.seeding import derive_seed

__all__ = ["choose_examples"]


def choose_examples(volumes: Mapping[VolumeKey, tuple[str, str, int]], count: int = 6) -> list[SliceKey]:
    """Choose the middle slices of up to ``count`` volumes that cover anatomies and contrasts.

    Args:
        volumes: (anatomy, contrast, number of slices) of each volume.
        count: How many to choose.

    Returns:
        Their (dataset, volume, slice), ordered by anatomy and contrast. A volume is preferred if its kind has been chosen
        less often so far, then by a hash of its name.
    """
    waiting = sorted(volumes, key=lambda key: derive_seed(0, "example", *key))
    chosen: list[VolumeKey] = []
    while waiting and len(chosen) < count:
        anatomies = [volumes[key][0] for key in chosen]
        kinds = [volumes[key][:2] for key in chosen]
        best = min(waiting, key=lambda key: (kinds.count(volumes[key][:2]), anatomies.count(volumes[key][0])))
        waiting.remove(best)
        chosen.append(best)
    chosen.sort(key=lambda key: (volumes[key], key))
    return [(*key, volumes[key][2] // 2) for key in chosen]
