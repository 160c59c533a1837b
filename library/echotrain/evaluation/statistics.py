"""Means, spreads and bootstrap intervals over volumes, for all of them and by group."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from echotrain.errors import ConfigError
from echotrain.evaluation.results import Evaluation, VolumeResult
from echotrain.metrics.collector import mean_quality
from echotrain.metrics.table import Quality
from echotrain.seeding import numpy_generator

__all__ = ["GroupStatistics", "Statistic", "bootstrap_interval", "describe", "group_statistics", "mean_of_repeats", "signed_rank_p"]

METRICS = ("psnr", "ssim", "nmse")
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
        model, zero_filled: Metric to statistic.
        gain: Metric to the statistic of the paired difference, model minus zero-filled.
    """

    kind: str
    name: str
    model: dict[str, Statistic]
    zero_filled: dict[str, Statistic]
    gain: dict[str, Statistic]

    @property
    def n(self) -> int:
        """Number of volumes."""
        return self.model["psnr"].n


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

    Raises:
        ConfigError: They are of different volumes.
    """
    first, *others = evaluations
    if not others:
        return first
    repeats = [{(v.dataset, v.volume): v.model for v in evaluation.volumes} for evaluation in evaluations]
    if any(repeat.keys() != repeats[0].keys() for repeat in repeats):
        raise ConfigError(f"repeats of {first.info.name}", "were evaluated on different volumes", "Evaluate all of them on one split.")

    def mean(v: VolumeResult) -> Quality:
        qualities = [repeat[v.dataset, v.volume] for repeat in repeats]
        return mean_quality(qualities)

    return dataclasses.replace(first, volumes=tuple(dataclasses.replace(v, model=mean(v)) for v in first.volumes))


def group_statistics(volumes: Sequence[VolumeResult]) -> list[GroupStatistics]:
    """Return statistics of all volumes, then by anatomy, contrast, acceleration and dataset where these differ.

    Anatomy and contrast are always listed where they are known; a group without a name is listed as ``unknown``.
    """
    by: dict[str, Callable[[VolumeResult], str]] = {
        "anatomy": lambda v: v.attributes.anatomy,
        "contrast": lambda v: v.attributes.contrast,
        "acceleration": lambda v: f"{v.attributes.acceleration:g}×",
        "dataset": lambda v: v.dataset,
    }
    groups = [_statistics("all", "All volumes", volumes)]
    for kind, key in by.items():
        names = sorted({key(v) for v in volumes}, key=lambda name: (not name, _leading_number(name), name))
        if len(names) == 1 and (kind in ("acceleration", "dataset") or names == [""]):
            continue
        groups += [_statistics(kind, name or "unknown", [v for v in volumes if key(v) == name]) for name in names]
    return groups


def _statistics(kind: str, name: str, volumes: Sequence[VolumeResult]) -> GroupStatistics:
    model = {metric: np.array([v.model[metric] for v in volumes]) for metric in METRICS}
    zero_filled = {metric: np.array([v.zero_filled[metric] for v in volumes]) for metric in METRICS}
    return GroupStatistics(
        kind=kind,
        name=name,
        model={metric: describe(values) for metric, values in model.items()},
        zero_filled={metric: describe(values) for metric, values in zero_filled.items()},
        gain={metric: describe(_differences(model[metric], zero_filled[metric])) for metric in METRICS},
    )


def _differences(model: NDArray[np.float64], zero_filled: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # two perfect images differ by inf - inf
        return np.nan_to_num(model - zero_filled, nan=0.0, posinf=np.inf, neginf=-np.inf)


def _leading_number(name: str) -> float:
    """Let accelerations sort as numbers: 4× before 16×."""
    digits = name.removesuffix("×")
    return float(digits) if digits.replace(".", "", 1).isdecimal() else 0.0
