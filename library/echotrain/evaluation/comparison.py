"""Several methods on the same volumes: one table, paired tests, and their pictures side by side."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from echotrain.errors import ConfigError
from echotrain.evaluation.results import Evaluation, Example, method_title, shared_metrics
from echotrain.evaluation.statistics import describe, differences, signed_rank_p
from echotrain.evaluation.tables import Section, Table, best_of, difference_and_interval, mean_and_spread, p_value
from echotrain.metrics.collector import VolumeKey
from echotrain.metrics.table import METRICS, Quality

__all__ = ["Comparison", "compare"]

_ESPIRIT = (
    "ESPIRiT’s image is zero outside the support of its sensitivity maps, where the target, a root sum of squares, shows noise: that "
    "lowers its SSIM, not its anatomy."
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What several evaluations say together.

    Attributes:
        quality: A row per method, columns per acceleration, over the volumes that all methods have there.
        pairs: A row per pair of methods and acceleration: mean paired differences and Wilcoxon's signed-rank test. None where
            evaluations of one acceleration undersampled in different ways, or nothing shows that they did not.
        unpaired: Why there are none, a sentence and what to do; "" where there are.
        examples: Slices that all methods of their acceleration show, their images by what readers call the methods.
        notes: What must be known to read the tables.
    """

    quality: Table
    pairs: Table | None
    unpaired: str = ""
    examples: tuple[Example, ...]
    notes: tuple[str, ...] = ()


class _Seen(NamedTuple):
    """What an evaluation says that its methods were given.

    Attributes:
        mask: Settings of the mask, which decide a volume's lines; None where it does not say.
        coils: Virtual coils, which change every image, the zero-filled one included, and no line; 0 for the measured ones.
    """

    mask: Any
    coils: int


# One evaluation and what readers call each of its methods.
_Labelled = tuple[Evaluation, dict[str, str]]


@dataclass(frozen=True)
class _Side:
    """The methods of one acceleration, on the volumes that they share."""

    acceleration: float
    scores: dict[str, dict[VolumeKey, Quality]]
    unpaired: str

    @property
    def volumes(self) -> list[VolumeKey]:
        return sorted(set.intersection(*(set(scores) for scores in self.scores.values())))

    def values(self, method: str, metric: str) -> NDArray[np.float64]:
        scores = self.scores[method]
        return np.array([scores[volume][metric] for volume in self.volumes])


def compare(evaluations: Sequence[Evaluation]) -> Comparison:
    """Put evaluations beside each other; one of several accelerations counts at each of them.

    A method is what an evaluation says made its images (its ``model``), told apart by the evaluation's name where two are called the same.

    Raises:
        ConfigError: There is no metric that all evaluations have.
    """
    metrics = shared_metrics(evaluations)
    if not metrics:
        found = "; ".join(f"{evaluation.info.name}: {', '.join(evaluation.metrics)}" for evaluation in evaluations)
        raise ConfigError(f"evaluations by {found}", "share no metric to be compared by", "Compare those of one kind.")
    labelled = _labelled(evaluations)
    accelerations = sorted({v.attributes.acceleration for evaluation in evaluations for v in evaluation.volumes})
    sides = [side for side in (_side(labelled, acceleration, metrics) for acceleration in accelerations) if side.volumes]
    unpaired = next((side.unpaired for side in sides if side.unpaired), "" if sides else "Evaluations share no volume of one acceleration.")
    baselines = [labels[evaluation.baseline] for evaluation, labels in labelled if evaluation.baseline]
    methods = list(dict.fromkeys([*baselines, *(label for _, labels in labelled for label in labels.values())]))
    notes = [_ESPIRIT] if any("ESPIRiT" in label for label in methods) else []
    left_out = sorted({METRICS[metric].title for evaluation in evaluations for metric in evaluation.metrics if metric not in metrics})
    if left_out:
        notes.append(f"Not all methods have {', '.join(left_out)}.")
    return Comparison(
        quality=_quality(sides, methods, metrics),
        pairs=None if unpaired else _pairs(sides, metrics),
        unpaired=unpaired,
        examples=tuple(_shared(labelled)),
        notes=tuple(notes),
    )


def _labelled(evaluations: Sequence[Evaluation]) -> list[_Labelled]:
    """Return what readers call each method of each evaluation; two evaluations of the same weights and coils are of one method."""
    coils: dict[str, set[int]] = {}
    for evaluation in evaluations:
        for name in evaluation.methods:
            coils.setdefault(_plain_label(evaluation, name), set()).add(_seen(evaluation).coils)

    def of_coils(evaluation: Evaluation, name: str) -> str:
        plain, number = _plain_label(evaluation, name), _seen(evaluation).coils
        return f"{plain}, {number} virtual coils" if plain and number and len(coils[plain]) > 1 else plain

    weights: dict[str, set[str]] = {}
    for evaluation in evaluations:
        for name, method in evaluation.methods.items():
            weights.setdefault(of_coils(evaluation, name), set()).add(method.checkpoint)

    def label(evaluation: Evaluation, name: str) -> str:
        plain = of_coils(evaluation, name)
        return plain if plain and len(weights[plain]) == 1 else f"{plain}: {evaluation.info.name}".removeprefix(": ")

    return [(evaluation, {name: label(evaluation, name) for name in evaluation.methods}) for evaluation in evaluations]


def _plain_label(evaluation: Evaluation, name: str) -> str:
    """Return what a method is called before it is told apart; "" for an evaluation's only one of which nothing is said."""
    said = evaluation.methods[name].model
    return said or ("" if (name,) == evaluation.compared else method_title(name))


def _seen(evaluation: Evaluation) -> _Seen:
    try:
        said = json.loads(evaluation.info.data)
    except ValueError:
        said = {}
    return _Seen(said.get("mask"), said.get("coils", 0)) if isinstance(said, dict) else _Seen(None, 0)


def _why_unpaired(seen: Sequence[_Seen], baselines: Sequence[str], *, is_alike: bool) -> str:
    """Return why volumes of several evaluations are no pairs, "" where they are.

    The settings of a mask and the volume decide what lines are acquired. Where these are not known to be the same, a baseline that came
    out the same shows it.
    """
    if len(seen) == 1:
        return ""
    is_told, is_same = all(each.mask is not None for each in seen), all(each.mask == seen[0].mask for each in seen)
    if not is_alike:
        if is_told and is_same:
            return (
                "Evaluations with the same mask have other images of one baseline, so their data differ: evaluate them on the same catalog."
            )
        return "Evaluations of one acceleration acquired different lines, so their volumes are no pairs: evaluate them with the same mask."
    if (is_told and is_same) or (len(set(baselines)) == 1 and baselines[0]):
        return ""
    if is_told:
        return "Evaluations of one acceleration have different masks, so their volumes are no pairs: evaluate them with the same one."
    return (
        "Nothing shows that evaluations of one acceleration acquired the same lines: they share no baseline, and not all say by which mask."
    )


def _side(labelled: Sequence[_Labelled], acceleration: float, metrics: Sequence[str]) -> _Side:
    scores: dict[str, dict[VolumeKey, Quality]] = {}
    baselines: list[str] = []
    seen: list[_Seen] = []
    is_alike = True
    for evaluation, labels in labelled:
        volumes = [v for v in evaluation.volumes if v.attributes.acceleration == acceleration]
        if not volumes:
            continue
        baselines.append(labels.get(evaluation.baseline, ""))
        seen.append(_seen(evaluation))
        # The baseline of the first evaluation comes first.
        for name in sorted(labels, key=lambda name: name != evaluation.baseline):
            found = scores.setdefault(labels[name], {})
            for v in volumes:
                key = v.dataset, v.volume
                if name == evaluation.baseline:
                    # The same lines of the same coils give the same baseline, up to the arithmetic of another device.
                    known = found.setdefault(key, v.scores[name])
                    is_alike &= all(bool(np.isclose(known[metric], v.scores[name][metric], rtol=1e-3)) for metric in metrics)
                else:
                    found[key] = v.scores[name]
    return _Side(acceleration, scores, _why_unpaired(seen, baselines, is_alike=is_alike))


def _quality(sides: Sequence[_Side], methods: Sequence[str], metrics: Sequence[str]) -> Table:
    where = [(f"R = {side.acceleration:g}, n = {len(side.volumes)}", metric) for side in sides for metric in metrics]
    columns = [
        (metric, {method: describe(side.values(method, metric)) for method in methods if method in side.scores})
        for side in sides
        for metric in metrics
    ]
    rows = [
        (method, *(mean_and_spread(found[method], metric) if method in found else "" for metric, found in columns)) for method in methods
    ]
    best = {
        (methods.index(method), column)
        for column, (metric, found) in enumerate(columns, start=1)
        for method in (best_of(found, metric) if len(found) > 1 else ())
    }
    headings = ("Method", *(f"{METRICS[metric].heading}\n{side}" for side, metric in where))
    return Table(columns=headings, sections=(Section(rows=tuple(rows), best=frozenset(best)),))


def _pairs(sides: Sequence[_Side], metrics: Sequence[str]) -> Table:
    rows = []
    for side in sides:
        for first, second in itertools.combinations(side.scores, 2):
            cells = []
            for metric in metrics:
                gain = differences(side.values(second, metric), side.values(first, metric))
                cells += [difference_and_interval(describe(gain), metric), p_value(signed_rank_p(gain))]
            rows.append((f"{second}\nagainst {first}", f"{side.acceleration:g}", str(len(side.volumes)), *cells))
    columns = [column for metric in metrics for column in (f"{METRICS[metric].heading}\nmean difference", "p")]
    return Table(columns=("Methods", "R", "n", *columns), sections=(Section(rows=tuple(rows)),))


def _shared(labelled: Sequence[_Labelled]) -> list[Example]:
    """Return the slices of which all methods of an acceleration have a picture of one shape, each once, with all of them."""
    found: dict[tuple[str, str, int, float], list[tuple[Example, dict[str, str]]]] = {}
    methods: dict[float, list[str]] = {}
    baselines = {labels[evaluation.baseline] for evaluation, labels in labelled if evaluation.baseline}
    for evaluation, labels in labelled:
        for acceleration in {volume.attributes.acceleration for volume in evaluation.volumes}:
            methods.setdefault(acceleration, []).extend(labels.values())
        for example in evaluation.examples:
            key = (example.dataset, example.volume, example.slice, example.attributes.acceleration)
            found.setdefault(key, []).append((example, labels))
    shared = []
    for (*_, acceleration), members in found.items():
        # Of a picture that several have, a baseline's say, the first one's.
        known = {labels[name]: image for example, labels in reversed(members) for name, image in example.images.items()}
        images = {label: known[label] for label in dict.fromkeys(methods[acceleration]) if label in known}
        is_whole = set(images) == set(methods[acceleration]) and len({image.shape for image in images.values()}) == 1
        if is_whole and len(set(images) - baselines) > 1:
            # Whose k-space was kept: all of one acceleration have undersampled alike.
            first = max((example for example, _ in members), key=lambda example: example.masked_kspace is not None)
            shared.append(dataclasses.replace(first, images=images))
    return shared
