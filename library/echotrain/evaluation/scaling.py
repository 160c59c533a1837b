"""Scaling curves: quality over the share of the training data, a curve per group of volumes, as MosaicMRI's Figure 2."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from echotrain.evaluation.figures import LIGHT, Chart, style_axes
from echotrain.evaluation.results import Evaluation, VolumeAttributes
from echotrain.evaluation.statistics import bootstrap_interval, describe, mean_of_repeats
from echotrain.evaluation.tables import Section, Table, mean_and_spread
from echotrain.metrics.table import METRICS

__all__ = ["ScalingPoint", "scaling_chart", "scaling_table"]

EVERYTHING = "all volumes"
_MARKERS = ("o", "s", "^")


@dataclass(frozen=True, kw_only=True, eq=False)
class ScalingPoint:
    """One model of a scaling study.

    Attributes:
        panel: What the models of one panel share: ``8 cascades``.
        x: The axis: the share of the training volumes.
        evaluation: Of the model; points of one panel and x are repeats over seeds, whose volumes are averaged.
    """

    panel: str
    x: float
    evaluation: Evaluation


def scaling_table(points: Sequence[ScalingPoint], *, metric: str) -> Table:
    """Return mean ± sd over the volumes, a row per panel, a column per share."""
    shares = sorted({point.x for point in points})
    rows = []
    for panel in dict.fromkeys(point.panel for point in points):
        cells = []
        for share in shares:
            values = _values([p for p in points if (p.panel, p.x) == (panel, share)], metric, lambda _: EVERYTHING).get(EVERYTHING)
            cells.append("" if values is None else mean_and_spread(describe(values), metric))
        rows.append((panel, *cells))
    columns = tuple(f"{METRICS[metric].heading}\nfraction {share:g}" for share in shares)
    return Table(columns=("Model", *columns), sections=(Section(rows=tuple(rows)),))


def scaling_chart(points: Sequence[ScalingPoint], group_of: Callable[[VolumeAttributes], str], *, metric: str) -> Chart:
    """Draw the metric over the share, a panel per model size, a curve per group with its 95% bootstrap interval.

    Args:
        points: The models.
        group_of: The group that a volume belongs to; "" leaves it out.
        metric: What is drawn.
    """
    panels = list(dict.fromkeys(point.panel for point in points))
    groups = sorted({group_of(v.attributes) for point in points for v in point.evaluation.volumes} - {""})
    looks = {
        group: (LIGHT.series[i % len(LIGHT.series)], _MARKERS[i // len(LIGHT.series) % len(_MARKERS)]) for i, group in enumerate(groups)
    }
    figure = Figure(figsize=(max(4.8, 3.2 * len(panels)), 3.4), layout="constrained")
    for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels), sharey=True)), panels, strict=True):
        style_axes(axes)
        axes.set_title(panel, loc="left", fontsize=10, color=LIGHT.ink, fontweight="bold")
        axes.set_xlabel("share of the training volumes", fontsize=8.5, color=LIGHT.ink)
        for group in groups:
            _curve(axes, [p for p in points if p.panel == panel], group, group_of, metric, looks[group])
        shares = sorted({point.x for point in points if point.panel == panel})
        axes.set_xscale("log")
        axes.set_xticks(shares, [f"{share:g}" for share in shares])
        axes.minorticks_off()
    figure.axes[0].set_ylabel(METRICS[metric].heading, fontsize=8.5, color=LIGHT.ink)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6) or 1, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set(color=LIGHT.ink, parse_math=False)
    return Chart.of(figure)


def _curve(
    axes: Any, points: Sequence[ScalingPoint], group: str, group_of: Callable[[VolumeAttributes], str], metric: str, look: tuple[str, str]
) -> None:
    shares = sorted({point.x for point in points})
    values = [_values([p for p in points if p.x == share], metric, group_of).get(group, np.array([])) for share in shares]
    found = [(share, each) for share, each in zip(shares, values, strict=True) if len(each)]
    if not found:
        return
    xs = [share for share, _ in found]
    intervals = np.array([bootstrap_interval(each) for _, each in found])
    color, marker = look
    means = [float(each.mean()) for _, each in found]
    axes.plot(xs, means, color=color, marker=marker, markersize=4.5, linewidth=1.6, label=f"{group} ({len(found[0][1])})")
    if np.isfinite(intervals).all():
        axes.fill_between(xs, intervals[:, 0], intervals[:, 1], color=color, alpha=0.12, linewidth=0)


def _values(points: Sequence[ScalingPoint], metric: str, group_of: Callable[[VolumeAttributes], str]) -> dict[str, NDArray[np.float64]]:
    """Return the volumes' metric by group; of repeats, each volume's mean."""
    found: dict[str, list[float]] = {}
    if points:
        mean = mean_of_repeats([point.evaluation for point in points])
        for v in mean.volumes:
            found.setdefault(group_of(v.attributes), []).append(v.scores[mean.subject][metric])
    return {group: np.array(values) for group, values in found.items()}
