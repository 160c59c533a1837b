"""Tables as CSV, Markdown and, through the report's template, HTML."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from echotrain.csv_text import csv_of
from echotrain.evaluation.results import Evaluation, column_name
from echotrain.evaluation.statistics import GroupStatistics, Statistic
from echotrain.metrics.table import METRICS

__all__ = [
    "Section",
    "Table",
    "best_of",
    "difference_and_interval",
    "mean_and_spread",
    "p_value",
    "quality_numbers",
    "quality_table",
    "signed",
    "volume_table",
]

_LATEX = str.maketrans(
    {
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "\n": " ",
        "±": "$\\pm$",
        "−": "$-$",
        "×": "$\\times$",
        "–": "--",
    }
)


@dataclass(frozen=True, kw_only=True)
class Section:
    """Rows that belong together.

    Attributes:
        title: Above them.
        rows: Of cells.
        best: Row and column of each cell that is the best of its column.
    """

    title: str = ""
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()

    def marked(self, mark: Callable[[str], str], plain: Callable[[str], str] = str) -> list[list[str]]:
        """Return the rows as texts, those of the best cells as ``mark`` writes them."""
        return [
            [(mark if (row, column) in self.best else str)(plain(cell)) for column, cell in enumerate(cells)]
            for row, cells in enumerate(self.rows)
        ]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Text in cells and headings, the first ``num_labels`` columns words, the others numbers. A second line of a text is a minor one."""

    columns: tuple[str, ...]
    sections: tuple[Section, ...]
    num_labels: int = 1

    def to_csv(self) -> str:
        """Return comma-separated values; section titles are left out."""
        return csv_of([[column.replace("\n", " ") for column in self.columns], *(row for section in self.sections for row in section.rows)])

    def to_latex(self) -> str:
        """Return a LaTeX table in the manner of ``booktabs``; a section's title becomes a row."""
        rule = "l" * self.num_labels + "r" * (len(self.columns) - self.num_labels)
        lines = [f"\\begin{{tabular}}{{{rule}}}", "\\toprule", _latex_row(map(_latex, self.columns)), "\\midrule"]
        for section in self.sections:
            if section.title:
                lines.append(f"\\multicolumn{{{len(self.columns)}}}{{l}}{{\\emph{{{_latex(section.title)}}}}} \\\\")
            lines += map(_latex_row, section.marked(lambda cell: f"\\textbf{{{cell}}}", _latex))
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])

    def to_markdown(self) -> str:
        """Return a Markdown table; a section's title becomes a row."""
        rule = [*["---"] * self.num_labels, *["---:"] * (len(self.columns) - self.num_labels)]
        rows: list[Sequence[str]] = [self.columns, rule]
        for section in self.sections:
            if section.title:
                rows.append([f"*{section.title}*", *[""] * (len(self.columns) - 1)])
            rows.extend(section.marked(lambda cell: f"**{cell}**"))
        return "".join(f"| {' | '.join(_markdown(cell) for cell in row)} |\n" for row in rows)


def quality_table(evaluation: Evaluation, groups: Sequence[GroupStatistics]) -> Table:
    """Return what a person reads: mean ± sd of every method, and of the first metric the interval of the paired gain as a minor line."""
    titles = {"all": "", "anatomy": "Anatomy", "contrast": "Contrast", "acceleration": "Acceleration", "dataset": "Dataset"}
    kinds = dict.fromkeys(group.kind for group in groups)
    sides = [column_name(name) for name in evaluation.methods]
    first, *others = ([f"{METRICS[metric].heading}\n{side}" for side in sides] for metric in evaluation.metrics)
    heading = METRICS[evaluation.metrics[0]].heading
    gains = [f"{heading}\n{_side('gain', name, groups[0])}" for name in groups[0].gain]
    return Table(
        columns=("Group", "n", *first, *gains, *(column for columns in others for column in columns)),
        sections=tuple(
            Section(title=titles[kind], rows=tuple(_quality_row(evaluation, g) for g in groups if g.kind == kind)) for kind in kinds
        ),
    )


def quality_numbers(evaluations: Sequence[tuple[Evaluation, Sequence[GroupStatistics]]]) -> Table:
    """Return what a program reads: one row per evaluation (by name), group, metric and side, in full precision."""
    rows = [
        (evaluation.info.name, group.kind, group.name, metric, side, str(s.n), repr(s.mean), repr(s.sd), repr(s.low), repr(s.high))
        for evaluation, groups in evaluations
        for group in groups
        for metric in evaluation.metrics
        for side, s in (
            *((name, found[metric]) for name, found in group.of.items()),
            *((_side("gain", name, group), found[metric]) for name, found in group.gain.items()),
        )
    ]
    columns = ("evaluation", "kind", "group", "metric", "side", "n", "mean", "sd", "ci95_low", "ci95_high")
    return Table(columns=columns, sections=(Section(rows=tuple(rows)),), num_labels=5)


def volume_table(evaluation: Evaluation) -> Table:
    """Return a row per volume, the worst one by the first metric first: that is where to look.

    The worst is that of the first method beside the baseline.
    """
    entries = [(metric, METRICS[metric]) for metric in evaluation.metrics]
    columns = ("Dataset", "Volume", "Anatomy", "Contrast", "R", "Slices")
    scores = [f"{entry.title}\n{column_name(name)}" for _, entry in entries for name in evaluation.methods]
    leading, entry = entries[0]
    judged = (*evaluation.compared, evaluation.baseline)[0]
    rows = [
        (
            v.dataset,
            v.volume,
            v.attributes.anatomy,
            v.attributes.contrast,
            f"{v.attributes.acceleration:g}",
            str(v.num_slices),
            *(f"{v.scores[name][metric]:.{entry.digits}f}" for metric, entry in entries for name in evaluation.methods),
        )
        for v in sorted(evaluation.volumes, key=lambda v: (entry.sign * v.scores[judged][leading], v.dataset, v.volume))
    ]
    return Table(columns=(*columns, *scores), sections=(Section(rows=tuple(rows)),), num_labels=4)


def signed(value: float, digits: int) -> str:
    """Return a difference with its sign, a typographic minus included."""
    return f"{value:+.{digits}f}".replace("-", "−")


def _side(word: str, method: str, group: GroupStatistics) -> str:
    """Return what a gain is called: by the method where there are several."""
    return word if len(group.gain) == 1 else f"{word} of {column_name(method)}"


def _quality_row(evaluation: Evaluation, group: GroupStatistics) -> tuple[str, ...]:
    first, *others = ([mean_and_spread(found[metric], metric) for found in group.of.values()] for metric in evaluation.metrics)
    leading = evaluation.metrics[0]
    gains = [difference_and_interval(found[leading], leading) for found in group.gain.values()]
    return (group.name, str(group.n), *first, *gains, *(cell for cells in others for cell in cells))


def best_of(found: Mapping[str, Statistic], metric: str) -> list[str]:
    """Return whose mean is the best, several where tables show no difference between them; what is not a number never is."""
    entry = METRICS[metric]
    goodness = {name: entry.sign * round(statistic.mean, entry.digits) for name, statistic in found.items()}
    best = max((value for value in goodness.values() if not math.isnan(value)), default=math.nan)
    return [name for name, value in goodness.items() if value == best]


def mean_and_spread(statistic: Statistic, metric: str) -> str:
    """Return ``mean ± sd`` in the metric's usual digits."""
    digits = METRICS[metric].digits
    spread = f" ± {statistic.sd:.{digits}f}" if statistic.n > 1 else ""
    return f"{statistic.mean:.{digits}f}{spread}"


def difference_and_interval(statistic: Statistic, metric: str) -> str:
    """Return the mean of paired differences, and its bootstrap interval as a minor line where there are several."""
    digits = METRICS[metric].digits
    interval = f"\n[{signed(statistic.low, digits)}, {signed(statistic.high, digits)}]" if statistic.n > 1 else ""
    return f"{signed(statistic.mean, digits)}{interval}"


def p_value(p: float) -> str:
    """Return the p of a test, a dash where there was none."""
    if math.isnan(p):
        return "–"
    return f"{p:.2g}" if p >= 0.001 else "< 0.001"


def _latex_row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _latex(cell: str) -> str:
    """Escape what LaTeX would take for its own."""
    return cell.translate(_LATEX)


def _markdown(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
