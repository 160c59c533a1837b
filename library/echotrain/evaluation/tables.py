"""Tables as CSV, Markdown and, through the report's template, HTML."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from echotrain.csv_text import csv_of
from echotrain.evaluation.results import VolumeResult
from echotrain.evaluation.statistics import METRICS, GroupStatistics, Statistic

__all__ = [
    "DIGITS",
    "TITLES",
    "Section",
    "Table",
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

DIGITS = {"psnr": 2, "ssim": 4, "nmse": 4}
TITLES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "nmse": "NMSE"}


@dataclass(frozen=True, kw_only=True)
class Section:
    """Rows that belong together."""

    title: str = ""
    rows: tuple[tuple[str, ...], ...]


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
        lines = [f"\\begin{{tabular}}{{{rule}}}", "\\toprule", _latex_row(self.columns), "\\midrule"]
        for section in self.sections:
            if section.title:
                lines.append(f"\\multicolumn{{{len(self.columns)}}}{{l}}{{\\emph{{{_latex(section.title)}}}}} \\\\")
            lines += map(_latex_row, section.rows)
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])

    def to_markdown(self) -> str:
        """Return a Markdown table; a section's title becomes a row."""
        rule = [*["---"] * self.num_labels, *["---:"] * (len(self.columns) - self.num_labels)]
        rows: list[Sequence[str]] = [self.columns, rule]
        for section in self.sections:
            if section.title:
                rows.append([f"*{section.title}*", *[""] * (len(self.columns) - 1)])
            rows.extend(section.rows)
        return "".join(f"| {' | '.join(_markdown(cell) for cell in row)} |\n" for row in rows)


def quality_table(groups: Sequence[GroupStatistics]) -> Table:
    """Return what a person reads: mean ± sd, and the interval of the paired gain as a minor line."""
    titles = {"all": "", "anatomy": "Anatomy", "contrast": "Contrast", "acceleration": "Acceleration", "dataset": "Dataset"}
    kinds = dict.fromkeys(group.kind for group in groups)
    qualities = [f"{metric}\n{side}" for metric in TITLES.values() for side in ("zero-filled", "model")]
    return Table(
        columns=("Group", "n", *qualities[:2], "PSNR (dB)\ngain", *qualities[2:]),
        sections=tuple(Section(title=titles[kind], rows=tuple(_quality_row(g) for g in groups if g.kind == kind)) for kind in kinds),
    )


def quality_numbers(evaluations: Sequence[tuple[str, Sequence[GroupStatistics]]]) -> Table:
    """Return what a program reads: one row per evaluation (by name), group, metric and side, in full precision."""
    rows = [
        (name, group.kind, group.name, metric, side, str(s.n), repr(s.mean), repr(s.sd), repr(s.low), repr(s.high))
        for name, groups in evaluations
        for group in groups
        for metric in METRICS
        for side, s in (("zero_filled", group.zero_filled[metric]), ("model", group.model[metric]), ("gain", group.gain[metric]))
    ]
    columns = ("evaluation", "kind", "group", "metric", "side", "n", "mean", "sd", "ci95_low", "ci95_high")
    return Table(columns=columns, sections=(Section(rows=tuple(rows)),), num_labels=5)


def volume_table(volumes: Sequence[VolumeResult]) -> Table:
    """Return a row per volume, the model's worst PSNR first: that is where to look."""
    columns = (
        "Dataset",
        "Volume",
        "Anatomy",
        "Contrast",
        "R",
        "Slices",
        *(f"{m.upper()}\n{side}" for m in METRICS for side in ("zero-filled", "model")),
    )
    rows = [
        (
            v.dataset,
            v.volume,
            v.attributes.anatomy,
            v.attributes.contrast,
            f"{v.attributes.acceleration:g}",
            str(v.num_slices),
            *(f"{quality[metric]:.{DIGITS[metric]}f}" for metric in METRICS for quality in (v.zero_filled, v.model)),
        )
        for v in sorted(volumes, key=lambda v: (v.model["psnr"], v.dataset, v.volume))
    ]
    return Table(columns=columns, sections=(Section(rows=tuple(rows)),), num_labels=4)


def signed(value: float, digits: int) -> str:
    """Return a difference with its sign, a typographic minus included."""
    return f"{value:+.{digits}f}".replace("-", "−")


def _quality_row(group: GroupStatistics) -> tuple[str, ...]:
    cells = {metric: tuple(mean_and_spread(side[metric], metric) for side in (group.zero_filled, group.model)) for metric in METRICS}
    return (group.name, str(group.n), *cells["psnr"], difference_and_interval(group.gain["psnr"], "psnr"), *cells["ssim"], *cells["nmse"])


def mean_and_spread(statistic: Statistic, metric: str) -> str:
    """Return ``mean ± sd`` in the metric's usual digits."""
    digits = DIGITS[metric]
    spread = f" ± {statistic.sd:.{digits}f}" if statistic.n > 1 else ""
    return f"{statistic.mean:.{digits}f}{spread}"


def difference_and_interval(statistic: Statistic, metric: str) -> str:
    """Return the mean of paired differences, and its bootstrap interval as a minor line where there are several."""
    digits = DIGITS[metric]
    interval = f"\n[{signed(statistic.low, digits)}, {signed(statistic.high, digits)}]" if statistic.n > 1 else ""
    return f"{signed(statistic.mean, digits)}{interval}"


def p_value(p: float) -> str:
    """Return the p of a test, a dash where there was none."""
    if math.isnan(p):
        return "–"
    return f"{p:.2g}" if p >= 0.001 else "< 0.001"


def _latex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(map(_latex, cells))} \\\\"


def _latex(cell: str) -> str:
    """Escape what LaTeX would take for its own."""
    return cell.translate(_LATEX)


def _markdown(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
