"""Charts of the report, each for a light and a dark page, and pictures as PNG.

Figures are drawn without pyplot, so nothing global is touched, and two runs over the same numbers give the same bytes.
"""

import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from PIL import Image

from echotrain.evaluation.history import History
from echotrain.evaluation.results import TARGET, Evaluation, Example, column_name
from echotrain.metrics.table import METRICS, drawn, in_order

__all__ = [
    "ERROR_GAIN",
    "LIGHT",
    "Chart",
    "contact_sheet",
    "error_movie",
    "error_png",
    "gray_movie",
    "gray_png",
    "kspace_png",
    "learning_curves",
    "quality_distribution",
    "style_axes",
    "window",
]

ERROR_GAIN = 5
ERROR_COLORS = "inferno"
# All frames of a slice take about as long as a heartbeat, and none is too short to be shown.
_CYCLE_MS, _SHORTEST_MS = 1000, 40
# The grey of the faintest acquired sample.
_DARKEST = 0.15


@dataclass(frozen=True)
class Theme:
    """Colours of one page style; the series are told apart with every kind of colour vision."""

    ink: str
    faint: str
    baseline: str
    series: tuple[str, ...]

    def colors(self) -> tuple[str, ...]:
        """Return all of them, in the same order for every LIGHT."""
        return (self.ink, self.faint, self.baseline, *self.series)


LIGHT = Theme(ink="#334155", faint="#cbd5e1", baseline="#94a3b8", series=("#2563eb", "#d97706", "#059669", "#9333ea", "#db2777", "#475569"))
DARK = Theme(ink="#cbd5e1", faint="#334155", baseline="#7c8aa0", series=("#60a5fa", "#fbbf24", "#34d399", "#c084fc", "#f472b6", "#e2e8f0"))


@dataclass(frozen=True)
class Chart:
    """One chart as two SVG files with transparent ground.

    Attributes:
        light, dark: For pages of either kind.
        figure: What they were drawn from.
    """

    light: bytes
    dark: bytes
    figure: Figure = field(compare=False, repr=False)

    @classmethod
    def of(cls, figure: Figure) -> "Chart":
        """Draw a figure once, in the light theme, and exchange its colours for the dark one."""
        text = io.StringIO()
        with mpl.rc_context({"svg.hashsalt": "echotrain", "font.family": "DejaVu Sans"}):
            figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        light = text.getvalue()
        darker = dict(zip(LIGHT.colors(), DARK.colors(), strict=True))
        dark = re.sub("#[0-9a-f]{6}", lambda color: darker.get(color[0], color[0]), light)
        return cls(light=light.encode(), dark=dark.encode(), figure=figure)

    def files(self) -> dict[str, bytes]:
        """Return the chart as a file of each kind that papers and slides take, by its ending: ``svg``, ``pdf`` and ``png``."""
        found = {"svg": self.light}
        # Fonts as outlines of glyphs (type 42), which journals ask for; no date, so that equal charts are equal files.
        with mpl.rc_context({"pdf.fonttype": 42, "font.family": "DejaVu Sans"}):
            for kind, options in (("pdf", {"metadata": {"CreationDate": None}}), ("png", {"dpi": 200, "facecolor": "white"})):
                data = io.BytesIO()
                self.figure.savefig(data, format=kind, **options)
                found[kind] = data.getvalue()
        return found


def learning_curves(runs: Sequence[History]) -> Chart:
    """Draw training loss, validation metrics, and the wait for data over the steps of one or several runs."""
    known = drawn(in_order(name for run in runs for name in run.metrics()))
    scores = [(f"Validation {METRICS[name].title}", METRICS[name].unit, "epoch", name, 1.0) for name in known]
    panels = [("Training loss", "", "train", "loss", 1.0), *scores, ("Wait for data per step", "ms", "train", "data_wait_s", 1e3)]
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(9.6, 2.7 * rows), layout=ConstrainedLayoutEngine(h_pad=0.11, w_pad=0.08))
    places = figure.subplots(rows, 2).flat
    for axes in places[len(panels) :]:
        axes.remove()
    for axes, (title, unit, kind, metric, scale) in zip(places, panels, strict=False):
        style_axes(axes)
        axes.set_title(title, loc="left", fontsize=10, color=LIGHT.ink, fontweight="bold")
        axes.set_ylabel(unit, fontsize=8.5, color=LIGHT.ink)
        axes.set_xlabel("optimiser steps", fontsize=8.5, color=LIGHT.ink)
        for index, run in enumerate(runs):
            steps, values = run.curve(kind, metric)
            color = LIGHT.series[index % len(LIGHT.series)]
            marker = "o" if len(steps) < 40 else None
            axes.plot(steps, values * scale, color=color, linewidth=1.6, marker=marker, markersize=3.2, label=run.name)
        if not axes.has_data() or all(len(line.get_xdata()) == 0 for line in axes.lines):
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=LIGHT.ink, fontsize=9)
        if metric == "data_wait_s":
            axes.set_ylim(bottom=0)
    if len(runs) > 1:
        legend = figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
        for text in legend.get_texts():
            text.set(color=LIGHT.ink, parse_math=False)
    return Chart.of(figure)


def quality_distribution(evaluation: Evaluation) -> Chart:
    """Draw the metrics of every volume by every method, a row per anatomy."""
    names = sorted({v.attributes.anatomy for v in evaluation.volumes})
    groups = [[v for v in evaluation.volumes if v.attributes.anatomy == name] for name in names]
    labels = [f"{name or 'unknown'} ({len(group)})" for name, group in zip(names, groups, strict=True)]
    metrics, looks = drawn(evaluation.metrics), _looks(evaluation)
    figure = Figure(figsize=(9.6, 1.35 + 0.62 * len(names)), layout="constrained")
    for column, (axes, metric) in enumerate(zip(np.atleast_1d(figure.subplots(1, len(metrics), sharey=True)), metrics, strict=True)):
        style_axes(axes)
        axes.set_title(METRICS[metric].heading, loc="left", fontsize=10, color=LIGHT.ink, fontweight="bold")
        for row, group in enumerate(groups):
            for method, (shift, color) in looks.items():
                values = np.array([v.scores[method][metric] for v in group])
                _strip(axes, values[np.isfinite(values)], row + shift, color, seed=row)
        axes.set_yticks(range(len(names)), labels)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        if column == 0:
            for tick in axes.get_yticklabels():
                tick.set_parse_math(False)
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=5, color=color, label=column_name(method))
        for method, (_, color) in looks.items()
    ]
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_color(LIGHT.ink)
    return Chart.of(figure)


def _looks(evaluation: Evaluation) -> dict[str, tuple[float, str]]:
    """Return where in its row each method stands, and its colour: grey is the baseline."""
    count = len(evaluation.methods)
    step = min(0.36, 0.72 / max(count - 1, 1))
    colors = dict(zip(evaluation.compared, itertools.cycle(LIGHT.series), strict=False))
    return {
        method: (step * (place - (count - 1) / 2), colors.get(method, LIGHT.baseline)) for place, method in enumerate(evaluation.methods)
    }


def window(example: Example) -> float:
    """Return the magnitude shown as white in all pictures of an example: the target's 99.8th percentile."""
    return _white(example.target)


def gray_png(image: NDArray[np.floating[Any]], white: float) -> bytes:
    """Return a magnitude image with 0 as black and ``white`` as white."""
    return _png((np.clip(image / white, 0, 1) * 255).round().astype(np.uint8))


def gray_movie(images: NDArray[np.floating[Any]], white: float) -> bytes:
    """Return magnitude images (frame, y, x) one after the other, again and again, as ``gray_png`` shows each."""
    return _png(*(np.clip(images / white, 0, 1) * 255).round().astype(np.uint8))


def kspace_png(magnitude: NDArray[np.floating[Any]]) -> bytes:
    """Return the logarithm of k-space magnitudes: black where they are zero, and nowhere else, white at their maximum.

    The dark end is the first percentile of what is not zero, so that lines of receiver noise are still told from lines that are missing.
    """
    acquired = magnitude > 0
    shown = np.zeros(magnitude.shape)
    if acquired.any():
        levels = np.log(magnitude[acquired].astype(np.float64))
        dark, light = np.percentile(levels, 1), levels.max()
        shown[acquired] = _DARKEST + (1 - _DARKEST) * np.clip((levels - dark) / max(light - dark, 1e-12), 0, 1)
    return _png((shown * 255).round().astype(np.uint8))


def contact_sheet(volume: NDArray[np.floating[Any]], *, columns: int = 4, most: int = 16) -> bytes:
    """Return up to ``most`` evenly spaced slices of a volume (slices, y, x) side by side, in one window, as PNG."""
    count = min(len(volume), most)
    chosen = volume[np.linspace(0, len(volume) - 1, count).round().astype(int)]
    columns = min(columns, count)
    blank = np.zeros((-count % columns, *volume.shape[1:]), volume.dtype)
    tiles = np.concatenate([chosen, blank]).reshape(-1, columns, *volume.shape[1:])
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in tiles])
    return gray_png(sheet, _white(chosen))


def error_png(example: Example, image: NDArray[np.floating[Any]], white: float) -> bytes:
    """Return ``|image - target|``, the full colour scale being ``white / ERROR_GAIN``."""
    return _png(_error_colors(image - example.target, white))


def error_movie(example: Example, name: str, white: float) -> bytes:
    """Return ``|image - target|`` of every frame by one method, one after the other, as ``error_png`` shows each."""
    return _png(*_error_colors(example.frames[name] - example.frames[TARGET], white))


def _error_colors(difference: NDArray[np.floating[Any]], white: float) -> NDArray[np.uint8]:
    colors = mpl.colormaps[ERROR_COLORS](np.clip(np.abs(difference) / (white / ERROR_GAIN), 0, 1))[..., :3]
    pixels: NDArray[np.uint8] = (colors * 255).round().astype(np.uint8)
    return pixels


def _strip(axes: Any, values: NDArray[np.float64], row: float, color: str, *, seed: int) -> None:
    """Draw every value as a dot, larger where there are few; from five on, a box of the quartiles and a median line behind them."""
    jitter = np.random.default_rng(seed).uniform(-0.08, 0.08, len(values)) if len(values) > 1 else np.zeros(len(values))
    size = 30 if len(values) < 20 else 11
    axes.scatter(values, row + jitter, s=size, color=color, alpha=0.75, linewidths=0, zorder=3)
    if len(values) >= 5:
        line = {"color": color, "linewidth": 1.2}
        axes.boxplot(
            values,
            positions=[row],
            orientation="horizontal",
            widths=0.28,
            showfliers=False,
            manage_ticks=False,
            boxprops=line,
            whiskerprops=line,
            capprops={"linewidth": 0},
            medianprops={"color": color, "linewidth": 2.4},
        )


def style_axes(axes: Any) -> None:
    """Give axes the look of every chart here."""
    axes.set_facecolor("none")
    axes.tick_params(colors=LIGHT.ink, labelsize=8.5, length=0)
    axes.grid(visible=True, color=LIGHT.faint, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(LIGHT.faint)


def _white(magnitudes: NDArray[np.floating[Any]]) -> float:
    """Return the 99.8th percentile, so that a few bright pixels do not darken a picture; 1 where all is black."""
    return float(np.percentile(magnitudes, 99.8)) or 1.0


def _png(*pixels: NDArray[np.uint8]) -> bytes:
    """Return a picture, or several that make up a movie: an animated PNG, which whoever cannot show it sees the first picture of."""
    data = io.BytesIO()
    first, *others = (Image.fromarray(each) for each in pixels)
    if others:
        first.save(data, "PNG", save_all=True, append_images=others, duration=max(_SHORTEST_MS, _CYCLE_MS / len(pixels)), loop=0)
    else:
        first.save(data, "PNG", optimize=True)
    return data.getvalue()
