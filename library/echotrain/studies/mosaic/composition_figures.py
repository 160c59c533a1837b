"""A catalog in pictures, as MosaicMRI's Figures 1 and 5: how many volumes of what, and how they were acquired."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from echotrain.evaluation.figures import LIGHT, Chart, style_axes
from echotrain.studies.mosaic.anatomy_groups import CONTRAST_FAMILIES

__all__ = ["composition_chart", "diversity_chart"]

_ROW = 0.36


def composition_chart(volumes: pd.DataFrame) -> Chart:
    """Draw how many volumes show each anatomy group, by split (Figure 1, left).

    Args:
        volumes: Of ``volumes_of``.
    """
    groups = list(dict.fromkeys(volumes["group"]))
    figure = Figure(figsize=(9.6, 1.3 + _ROW * len(groups)), layout="constrained")
    axes = figure.subplots()
    style_axes(axes)
    left = np.zeros(len(groups))
    for color, split in zip(LIGHT.series, ("train", "val", "test"), strict=False):
        counts = np.array([int(((volumes["group"] == group) & (volumes["split"] == split)).sum()) for group in groups])
        axes.barh(range(len(groups)), counts, left=left, color=color, label=split, height=0.68)
        left += counts
    for row, total in enumerate(left):
        axes.text(total, row, f"  {total:g} ({total / len(volumes):.0%})", va="center", fontsize=8.5, color=LIGHT.ink)
    axes.set_xlim(0, 1.18 * left.max())
    axes.set_title("Volumes", loc="left", fontsize=10, color=LIGHT.ink, fontweight="bold")
    _name_rows(axes, groups)
    _legend(figure, axes.get_legend_handles_labels()[0], ["train", "val", "test"])
    return Chart.of(figure)


def diversity_chart(volumes: pd.DataFrame) -> Chart:
    """Draw coils and slices per volume, contrast families and orientations of each anatomy group (Figure 5).

    Args:
        volumes: Of ``volumes_of``.
    """
    groups = list(dict.fromkeys(volumes["group"]))
    parts = [volumes[volumes["group"] == group] for group in groups]
    figure = Figure(figsize=(9.6, 1.6 + 2 * (0.5 + _ROW * len(groups))), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True)
    for axes, column, title in ((panels[0, 0], "coils", "Receive coils"), (panels[0, 1], "slices", "Slices per volume")):
        _violins(axes, [part[column].to_numpy() for part in parts], title)
    _presence(panels[1, 0], parts)
    handles, labels = _orientations(panels[1, 1], parts)
    for row in panels:
        _name_rows(row[0], groups)
        row[1].grid(visible=False, axis="y")
    _legend(figure, handles, labels)
    return Chart.of(figure)


def _violins(axes: Any, values: Sequence[NDArray[np.float64]], title: str) -> None:
    """Draw a violin where there is a spread, and the quartiles' box over it."""
    style_axes(axes)
    axes.set_title(title, loc="left", fontsize=10, color=LIGHT.ink, fontweight="bold")
    spread = [(row, each) for row, each in enumerate(values) if len(each) > 1 and each.min() < each.max()]
    if spread:
        bodies = axes.violinplot(
            [each for _, each in spread], [row for row, _ in spread], orientation="horizontal", widths=0.8, showextrema=False
        )
        for body in bodies["bodies"]:
            body.set(facecolor=LIGHT.series[0], alpha=0.25)
    line = {"color": LIGHT.series[0], "linewidth": 1.2}
    axes.boxplot(
        values,
        positions=range(len(values)),
        orientation="horizontal",
        widths=0.22,
        showfliers=False,
        manage_ticks=False,
        boxprops=line,
        whiskerprops=line,
        capprops={"linewidth": 0},
        medianprops={"color": LIGHT.series[0], "linewidth": 2.4},
    )
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _presence(axes: Any, parts: Sequence[pd.DataFrame]) -> None:
    """Draw a dot where a group has volumes of a family, its area their share of the group."""
    style_axes(axes)
    axes.set_title("Contrasts", loc="left", fontsize=10, color=LIGHT.ink, fontweight="bold")
    there = {family for part in parts for family in part["family"]}
    families = [family for family in CONTRAST_FAMILIES if family in there] + sorted(there - set(CONTRAST_FAMILIES))
    for row, part in enumerate(parts):
        shares = [float((part["family"] == family).mean()) for family in families]
        axes.scatter(range(len(families)), [row] * len(families), s=[220 * share for share in shares], color=LIGHT.series[2], linewidths=0)
    axes.set_xticks(range(len(families)), families, rotation=35, ha="right")
    axes.set_xlim(-0.7, len(families) - 0.3)


def _orientations(axes: Any, parts: Sequence[pd.DataFrame]) -> tuple[list[Any], list[str]]:
    """Draw the share of each orientation as a stacked bar; return what the legend names."""
    style_axes(axes)
    axes.set_title("Orientations", loc="left", fontsize=10, color=LIGHT.ink, fontweight="bold")
    names = sorted({name for part in parts for name in part["orientation"]})
    left = np.zeros(len(parts))
    handles = []
    for color, name in zip(LIGHT.series, names, strict=False):
        shares = np.array([float((part["orientation"] == name).mean()) for part in parts])
        handles.append(axes.barh(range(len(parts)), shares, left=left, color=color, height=0.62))
        left += shares
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
    return handles, names


def _name_rows(axes: Any, groups: Sequence[str]) -> None:
    axes.set_yticks(range(len(groups)), groups)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)


def _legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_color(LIGHT.ink)
