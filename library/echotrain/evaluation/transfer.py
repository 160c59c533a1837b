"""Transfer matrices: models trained on one group of the data, tested on every group, as MosaicMRI's Figures 3 and 4."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from echotrain.errors import ConfigError
from echotrain.evaluation.figures import LIGHT, Chart, style_axes
from echotrain.evaluation.results import Evaluation, VolumeResult
from echotrain.evaluation.statistics import describe
from echotrain.evaluation.tables import Section, Table, mean_and_spread
from echotrain.metrics.table import METRICS

__all__ = ["EVERYTHING", "TransferMatrix", "transfer_chart", "transfer_matrix", "transfer_table"]

# What the model of all data is called.
EVERYTHING = "all"


@dataclass(frozen=True, kw_only=True, eq=False)
class TransferMatrix:
    """Mean quality of every model on every group of volumes.

    Attributes:
        metric: What the cells hold.
        tests: Groups that are tested on, rows.
        trainings: What was trained on, columns, in the order of the rows; ``all`` comes last, where there is such a model.
        values: Volumes' metric by (row, column).
    """

    metric: str
    tests: tuple[str, ...]
    trainings: tuple[str, ...]
    values: tuple[tuple[NDArray[np.float64], ...], ...]

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean over the volumes of each cell, (rows, columns)."""
        return np.array([[float(cell.mean()) for cell in row] for row in self.values])

    @property
    def deficits(self) -> NDArray[np.float64]:
        """How much worse each mean is than the best of its row, (rows, columns)."""
        goodness = METRICS[self.metric].sign * self.means
        found: NDArray[np.float64] = goodness.max(axis=1, keepdims=True) - goodness
        return found

    def near_best(self) -> NDArray[np.bool_]:
        """Return which single-group models come near the row's best one; the model of all data never counts.

        What is near, the metric says; by one that does not say, no model is.

        Source: MosaicMRI, Fig. 3: "black outlines mark all anatomy models within 1 dB of the best anatomy result for that row (excluding
        the baseline)".
        """
        entry = METRICS[self.metric]
        singles = np.array([name != EVERYTHING and entry.near is not None for name in self.trainings])
        goodness = np.where(singles, entry.sign * self.means, -np.inf)
        near: NDArray[np.bool_] = (goodness >= goodness.max(axis=1, keepdims=True) - (entry.near or 0.0)) & singles
        return near


def transfer_matrix(
    evaluations: Mapping[str, Evaluation], groups: Mapping[str, Callable[[VolumeResult], bool]], *, metric: str
) -> TransferMatrix:
    """Build a matrix from one evaluation per model, each of the same volumes.

    Args:
        evaluations: What was trained on (``all`` for everything) to the evaluation of that model.
        groups: Name to which volumes are of the group, in the order of the rows; one without volumes is left out. Groups may overlap.
        metric: What the cells hold.

    Raises:
        ConfigError: There is no evaluation, they are of different volumes, or one is of several methods.
    """
    if not evaluations:
        raise ConfigError("a transfer matrix of no models", "needs at least one", "Train and evaluate some first.")
    volumes = {name: {(v.dataset, v.volume): v for v in evaluation.volumes} for name, evaluation in evaluations.items()}
    first = next(iter(volumes))
    for name, found in volumes.items():
        if found.keys() != volumes[first].keys():
            raise ConfigError(
                f"models trained on {first} and on {name}", "were evaluated on different volumes", "Evaluate all of them on one split."
            )
    fitting = {name: [key for key, volume in sorted(volumes[first].items()) if fits(volume)] for name, fits in groups.items()}
    members = {name: keys for name, keys in fitting.items() if keys}
    tests = list(members)
    known = [name for name in groups if name in evaluations]
    others = sorted(name for name in evaluations if name not in known and name != EVERYTHING)
    trainings = [*known, *others, *([EVERYTHING] if EVERYTHING in evaluations else [])]

    def cell(test: str, training: str) -> NDArray[np.float64]:
        subject = evaluations[training].subject
        return np.array([volumes[training][key].scores[subject][metric] for key in members[test]])

    values = tuple(tuple(cell(test, training) for training in trainings) for test in tests)
    return TransferMatrix(metric=metric, tests=tuple(tests), trainings=tuple(trainings), values=values)


def transfer_table(matrix: TransferMatrix) -> Table:
    """Return mean ± sd of every cell; the near-best single-group models of a row carry a star."""
    near = matrix.near_best()
    rows = [
        (
            f"{test} ({len(cells[0])})",
            *(mean_and_spread(describe(cell), matrix.metric) + ("*" if near[row, column] else "") for column, cell in enumerate(cells)),
        )
        for row, (test, cells) in enumerate(zip(matrix.tests, matrix.values, strict=True))
    ]
    return Table(columns=("Tested on (n)", *(f"trained on\n{name}" for name in matrix.trainings)), sections=(Section(rows=tuple(rows)),))


def transfer_chart(matrix: TransferMatrix, title: str) -> Chart:
    """Draw the matrix as a heat map per row, near-best single-group models outlined.

    A cell's colour says how far it is below the best of its row: test groups differ more in difficulty than models in quality.
    """
    means, near = matrix.means, matrix.near_best()
    rows, columns = means.shape
    figure = Figure(figsize=(2.4 + 0.95 * columns, 1.3 + 0.55 * rows), layout="constrained")
    axes = figure.subplots()
    style_axes(axes)
    axes.grid(visible=False)
    digits, deficit = METRICS[matrix.metric].note_digits, matrix.deficits
    for row in range(rows):
        for column in range(columns):
            strength = float(np.exp(-deficit[row, column] / 3))
            axes.add_patch(Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, color=LIGHT.series[0], alpha=0.06 + 0.5 * strength, lw=0))
            if near[row, column]:
                axes.add_patch(Rectangle((column - 0.46, row - 0.43), 0.92, 0.86, fill=False, edgecolor=LIGHT.ink, lw=1.6))
            axes.text(column, row, f"{means[row, column]:.{digits}f}", ha="center", va="center", fontsize=9, color=LIGHT.ink)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xticks(range(columns), [_wrapped(name) for name in matrix.trainings])
    axes.set_yticks(range(rows), [f"{name} ({len(cells[0])})" for name, cells in zip(matrix.tests, matrix.values, strict=True)])
    axes.xaxis.set_ticks_position("top")
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("trained on", loc="left", fontsize=8.5, color=LIGHT.ink)
    axes.set_ylabel("tested on (volumes)", fontsize=8.5, color=LIGHT.ink)
    axes.spines["bottom"].set_visible(False)
    axes.set_title(title, loc="left", fontsize=10, color=LIGHT.ink, fontweight="bold", pad=14)
    for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        tick.set_parse_math(False)
    return Chart.of(figure)


def _wrapped(name: str) -> str:
    return name.replace(" ", "\n")
