"""Means, spreads and bootstrap intervals over volumes, for all of them and by group."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from echotrain.errors import ConfigError
from echotrain.evaluation.results import Evaluation, VolumeResult, shared_metrics
from echotrain.metrics.collector import mean_quality
from echotrain.seeding import numpy_generator

__all__ = [
    "GroupStatistics",
    "Statistic",
    "bootstrap_interval",
    "describe",
    "differences",
    "group_statistics",
    "mean_of_repeats",
    "signed_rank_p",
]

# Below this many pairs no rank test can reject at 5%, whatever they are.
_FEWEST_PAIRS = 6


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """A mean over n volumes.

    Attributes:
        mean: The mean.
        sd: Sample standard deviation; NaN for one volume.
        low, high: 95% bootstrap interval of the mean; NaN for one volume.
        n: Number of volumes.
    """

    mean: float
    sd: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class GroupStatistics:
    """All metrics of one group of volumes.

    Attributes:
        kind: What it is grouped by: ``all``, ``anatomy``, ``contrast``, ``acceleration`` or ``dataset``.
        name: The group's value of that.
        n: Number of volumes.
        of: Method to metric to statistic.
        gain: Likewise of the paired difference from the baseline, of the methods beside it; empty where there is no baseline.
    """

    kind: str
    name: str
    n: int
    of: dict[str, dict[str, Statistic]]
    gain: dict[str, dict[str, Statistic]]


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.float64], *, level: float = 0.95, num_resamples: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean (Efron, Ann. Statist. 7:1, 1979), the same at every call.

    NaN where there is only one value: it says nothing about its own spread.
    """
    samples = np.asarray(values, dtype=np.float64)
    if len(samples) < 2 or not np.isfinite(samples).all():
        return float("nan"), float("nan")
    draws = numpy_generator(seed, "bootstrap").integers(len(samples), size=(num_resamples, len(samples)))
    low, high = np.quantile(samples[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def describe(values: Sequence[float] | NDArray[np.float64]) -> Statistic:
    """Return mean, sample standard deviation, bootstrap interval and count."""
    samples = np.asarray(values, dtype=np.float64)
    has_spread = len(samples) > 1 and bool(np.isfinite(samples).all())
    low, high = bootstrap_interval(samples)
    sd = float(samples.std(ddof=1)) if has_spread else float("nan")
    return Statistic(mean=float(samples.mean()), sd=sd, low=low, high=high, n=len(samples))


def signed_rank_p(differences: NDArray[np.float64]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test (Biometrics 1:80, 1945); NaN where there are too few pairs to tell anything."""
    if len(differences) < _FEWEST_PAIRS or not np.isfinite(differences).all() or not differences.any():
        return float("nan")
    return float(wilcoxon(differences).pvalue)


def mean_of_repeats(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return one evaluation of several repeats, models that differ by their seed: each volume's mean scores, the first one's pictures.

    Of metrics that only some of them have there is no mean.

    Raises:
        ConfigError: They are of different volumes, or one is of several methods.
    """
    first, *others = evaluations
    if not others:
        return first
    repeats = [{(v.dataset, v.volume): v.scores[evaluation.subject] for v in evaluation.volumes} for evaluation in evaluations]
    if any(repeat.keys() != repeats[0].keys() for repeat in repeats):
        raise ConfigError(f"repeats of {first.info.name}", "were evaluated on different volumes", "Evaluate all of them on one split.")

    metrics = shared_metrics(evaluations)

    def mean(v: VolumeResult) -> VolumeResult:
        own = mean_quality([{metric: repeat[v.dataset, v.volume][metric] for metric in metrics} for repeat in repeats])
        others = {name: {metric: quality[metric] for metric in metrics} for name, quality in v.scores.items()}
        return dataclasses.replace(v, scores={**others, first.subject: own})

    return dataclasses.replace(first, volumes=tuple(map(mean, first.volumes)))


def group_statistics(evaluation: Evaluation) -> list[GroupStatistics]:
    """Return statistics of all volumes, then by anatomy, contrast, acceleration and dataset where these differ.

    Anatomy and contrast are always listed where they are known; a group without a name is listed as ``unknown``.
    """
    by: dict[str, Callable[[VolumeResult], str]] = {
        "anatomy": lambda v: v.attributes.anatomy,
        "contrast": lambda v: v.attributes.contrast,
        "acceleration": lambda v: f"{v.attributes.acceleration:g}×",
        "dataset": lambda v: v.dataset,
    }
    volumes = evaluation.volumes
    groups = [_statistics(evaluation, "all", "All volumes", volumes)]
    for kind, key in by.items():
        names = sorted({key(v) for v in volumes}, key=lambda name: (not name, _leading_number(name), name))
        if len(names) == 1 and (kind in ("acceleration", "dataset") or names == [""]):
            continue
        groups += [_statistics(evaluation, kind, name or "unknown", [v for v in volumes if key(v) == name]) for name in names]
    return groups


def _statistics(evaluation: Evaluation, kind: str, name: str, volumes: Sequence[VolumeResult]) -> GroupStatistics:
    values = {
        method: {metric: np.array([v.scores[method][metric] for v in volumes]) for metric in evaluation.metrics}
        for method in evaluation.methods
    }
    base = values.get(evaluation.baseline, {})
    compared = evaluation.compared if base else ()
    return GroupStatistics(
        kind=kind,
        name=name,
        n=len(volumes),
        of={method: {metric: describe(each) for metric, each in found.items()} for method, found in values.items()},
        gain={
            method: {metric: describe(differences(values[method][metric], base[metric])) for metric in evaluation.metrics}
            for method in compared
        },
    )


def differences(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return paired differences; two equal values differ by nothing, infinite ones (PSNR of perfect images) too."""
    with np.errstate(invalid="ignore"):  # two perfect images differ by inf - inf
        return np.nan_to_num(values - others, nan=0.0, posinf=np.inf, neginf=-np.inf)


def _leading_number(name: str) -> float:
    """Let accelerations sort as numbers: 4× before 16×."""
    digits = name.removesuffix("×")
    return float(digits) if digits.replace(".", "", 1).isdecimal() else 0.0
