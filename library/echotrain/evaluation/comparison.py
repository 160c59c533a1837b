"""Several methods on the same volumes: one table, paired tests, and their pictures side by side."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from echotrain.evaluation.results import Evaluation, Example
from echotrain.evaluation.statistics import METRICS, describe, signed_rank_p
from echotrain.evaluation.tables import TITLES, Section, Table, difference_and_interval, mean_and_spread, p_value
from echotrain.metrics.collector import VolumeKey
from echotrain.metrics.table import Quality

__all__ = ["ZERO_FILLED", "Comparison", "SharedExample", "compare"]

ZERO_FILLED = "Zero-filled"
_ESPIRIT = (
    "ESPIRiT’s image is zero outside the support of its sensitivity maps, where the target, a root sum of squares, shows noise: that "
    "lowers its SSIM, not its anatomy."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedExample:
    """One slice as every method shows it.

    Attributes:
        example: Its identity, the target and the zero-filled image.
        reconstructions: Method to image.
    """

    example: Example
    reconstructions: dict[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What several evaluations say together.

    Attributes:
        quality: A row per method, columns per acceleration, over the volumes that all methods have there.
        pairs: A row per pair of methods and acceleration: mean paired differences and Wilcoxon's signed-rank test. None where
            evaluations of one acceleration undersampled in different ways.
        examples: Slices that all methods of their acceleration show.
        notes: What must be known to read the tables.
    """

    quality: Table
    pairs: Table | None
    examples: tuple[SharedExample, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Side:
    """The methods of one acceleration, on the volumes that they share."""

    acceleration: float
    scores: dict[str, dict[VolumeKey, Quality]]
    is_paired: bool

    @property
    def volumes(self) -> list[VolumeKey]:
        return sorted(set.intersection(*(set(scores) for scores in self.scores.values())))

    def values(self, method: str, metric: str) -> NDArray[np.float64]:
        scores = self.scores[method]
        return np.array([scores[volume][metric] for volume in self.volumes])


def compare(evaluations: Sequence[Evaluation]) -> Comparison:
    """Put evaluations beside each other; one of several accelerations counts at each of them.

    A method is what an evaluation says made its images (``info.model``), told apart by the evaluation's name where two are called the same.
    """
    labels = _labels(evaluations)
    accelerations = sorted({v.attributes.acceleration for evaluation in evaluations for v in evaluation.volumes})
    sides = [side for side in (_side(evaluations, labels, acceleration) for acceleration in accelerations) if side.volumes]
    is_paired = bool(sides) and all(side.is_paired for side in sides)
    return Comparison(
        quality=_quality(sides, [ZERO_FILLED, *dict.fromkeys(labels)]),
        pairs=_pairs(sides) if is_paired else None,
        examples=tuple(_shared(evaluations, labels)),
        notes=(_ESPIRIT,) if any("ESPIRiT" in label for label in labels) else (),
    )


def _labels(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return a name for the method of each evaluation; two evaluations of the same weights are of one method."""
    weights: dict[str, set[str]] = {}
    for evaluation in evaluations:
        weights.setdefault(evaluation.info.model, set()).add(evaluation.info.checkpoint)
    return [
        e.info.model if e.info.model and len(weights[e.info.model]) == 1 else f"{e.info.model}: {e.info.name}".removeprefix(": ")
        for e in evaluations
    ]


def _side(evaluations: Sequence[Evaluation], labels: Sequence[str], acceleration: float) -> _Side:
    scores: dict[str, dict[VolumeKey, Quality]] = {ZERO_FILLED: {}}
    is_paired = True
    for evaluation, label in zip(evaluations, labels, strict=True):
        for v in evaluation.volumes:
            if v.attributes.acceleration != acceleration:
                continue
            known = scores[ZERO_FILLED].setdefault((v.dataset, v.volume), v.zero_filled)
            # The same lines give the same zero-filled image, up to the arithmetic of another device.
            is_paired &= bool(np.isclose(known["nmse"], v.zero_filled["nmse"], rtol=1e-3))
            scores.setdefault(label, {})[v.dataset, v.volume] = v.model
    return _Side(acceleration, scores, is_paired)


def _quality(sides: Sequence[_Side], methods: Sequence[str]) -> Table:
    where = [(f"R = {side.acceleration:g}, n = {len(side.volumes)}", metric) for side in sides for metric in METRICS]
    rows = []
    for method in methods:
        cells = [
            mean_and_spread(describe(side.values(method, metric)), metric) if method in side.scores else ""
            for side in sides
            for metric in METRICS
        ]
        rows.append((method, *cells))
    columns = ("Method", *(f"{TITLES[metric]}\n{side}" for side, metric in where))
    return Table(columns=columns, sections=(Section(rows=tuple(rows)),))


def _pairs(sides: Sequence[_Side]) -> Table:
    rows = []
    for side in sides:
        for first, second in itertools.combinations(side.scores, 2):
            cells = []
            for metric in METRICS:
                gain = side.values(second, metric) - side.values(first, metric)
                cells += [difference_and_interval(describe(gain), metric), p_value(signed_rank_p(gain))]
            rows.append((f"{second}\nagainst {first}", f"{side.acceleration:g}", str(len(side.volumes)), *cells))
    columns = [column for metric in METRICS for column in (f"{TITLES[metric]}\nmean difference", "p")]
    return Table(columns=("Methods", "R", "n", *columns), sections=(Section(rows=tuple(rows)),))


def _shared(evaluations: Sequence[Evaluation], labels: Sequence[str]) -> list[SharedExample]:
    found: dict[tuple[str, str, int, float], dict[str, Example]] = {}
    methods: dict[float, set[str]] = {}
    for evaluation, label in zip(evaluations, labels, strict=True):
        for volume in evaluation.volumes:
            methods.setdefault(volume.attributes.acceleration, set()).add(label)
        for example in evaluation.examples:
            found.setdefault((example.dataset, example.volume, example.slice, example.attributes.acceleration), {})[label] = example
    shared = []
    for (*_, acceleration), examples in found.items():
        shapes = {example.reconstruction.shape for example in examples.values()}
        if set(examples) == methods[acceleration] and len(examples) > 1 and len(shapes) == 1:
            # Whose k-space was kept: all of one acceleration have undersampled alike.
            first = max(examples.values(), key=lambda example: example.masked_kspace is not None)
            pictures = {label: examples[label].reconstruction for label in dict.fromkeys(labels) if label in examples}
            shared.append(SharedExample(example=first, reconstructions=pictures))
    return shared
