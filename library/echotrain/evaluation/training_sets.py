"""Models that differ in what they were trained on, judged on one kind of volume, as MosaicMRI's Table 5."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from echotrain.evaluation.results import Evaluation, VolumeResult, shared_metrics
from echotrain.evaluation.statistics import describe, differences, signed_rank_p
from echotrain.evaluation.tables import Section, Table, difference_and_interval, mean_and_spread, p_value
from echotrain.metrics.table import METRICS, drawn

__all__ = ["TrainingSet", "composition_table", "training_set_table"]


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """What a model was trained on, and how it did.

    Attributes:
        name: As readers call it.
        num_slices: That it was trained on.
        evaluation: Of the model.
    """

    name: str
    num_slices: int
    evaluation: Evaluation


def training_set_table(sets: Sequence[TrainingSet], fits: Callable[[VolumeResult], bool], num_slices: int) -> Table:
    """Return a row per training set: its size, the quality on the volumes that fit, and the paired difference from the first row.

    Args:
        sets: The first one is what the others are compared with.
        fits: Which volumes count.
        num_slices: There are so many to train on.
    """
    metrics = drawn(shared_metrics([each.evaluation for each in sets]))
    rows = []
    for each in sets:
        cells = []
        for metric in metrics:
            values, reference = (_values(s.evaluation, fits, metric) for s in (each, sets[0]))
            cells.append(mean_and_spread(describe(values), metric))
            gain = differences(values, reference)
            cells += ["", ""] if each is sets[0] else [difference_and_interval(describe(gain), metric), p_value(signed_rank_p(gain))]
        rows.append((each.name, str(each.num_slices), f"{each.num_slices / num_slices:.0%}", *cells))
    count = sum(map(fits, sets[0].evaluation.volumes)) if sets else 0
    scores = [f"{METRICS[metric].heading}\n{text}" for metric in metrics for text in (f"n = {count}", "difference", "p")]
    return Table(columns=("Trained on", "Slices", "Share", *scores), sections=(Section(rows=tuple(rows)),))


def composition_table(chosen: Mapping[str, int], pool: Mapping[str, int]) -> Table:
    """Return what a subset consists of.

    Args:
        chosen: Its slices by anatomy.
        pool: Likewise of what it was chosen from.
    """
    total = sum(chosen.values())
    rows = [
        (name, str(chosen.get(name, 0)), f"{chosen.get(name, 0) / total:.0%}", str(count), f"{chosen.get(name, 0) / count:.0%}")
        for name, count in sorted(pool.items(), key=lambda item: (-chosen.get(item[0], 0), item[0]))
    ]
    return Table(
        columns=("Anatomy", "Slices\nchosen", "Share\nof the subset", "Slices\nto choose from", "Share\nchosen"),
        sections=(Section(rows=tuple(rows)),),
    )


def _values(evaluation: Evaluation, fits: Callable[[VolumeResult], bool], metric: str) -> NDArray[np.float64]:
    chosen = sorted((v.dataset, v.volume, v.scores[evaluation.subject][metric]) for v in evaluation.volumes if fits(v))
    return np.array([value for _, _, value in chosen])
