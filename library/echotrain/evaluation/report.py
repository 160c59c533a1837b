"""Evaluations and training runs as one self-contained HTML page, or their tables as Markdown or CSV.

The page takes no script, font or picture from elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from echotrain.evaluation.comparison import Comparison, compare
from echotrain.evaluation.figures import learning_curves, quality_distribution, window
from echotrain.evaluation.history import History
from echotrain.evaluation.html import chart_images, error_picture, example_pictures, method_picture, render, shared_pictures, target_picture
from echotrain.evaluation.results import Evaluation, Example, column_name, method_title, shared_metrics
from echotrain.evaluation.statistics import GroupStatistics, group_statistics
from echotrain.evaluation.tables import quality_numbers, quality_table, signed, volume_table
from echotrain.metrics.table import METRICS

__all__ = ["render_csv", "render_markdown", "render_report"]

TEMPLATE = "report.html.j2"
_MOST_COLUMNS = 6


def render_report(
    evaluations: Sequence[Evaluation] = (), runs: Sequence[History] = (), *, title: str = "Reconstruction report", generated: str = ""
) -> str:
    """Return the page.

    Args:
        evaluations: A section each, with key figures, tables, distributions and pictures.
        runs: Their learning curves, in one chart.
        title: Heading of the page.
        generated: When and by what, for the footer.
    """
    return render(
        TEMPLATE,
        title=title,
        generated=generated,
        comparison=_comparison(compare(evaluations)) if len(evaluations) > 1 and shared_metrics(evaluations) else None,
        evaluations=[_evaluation(evaluation, index) for index, evaluation in enumerate(evaluations)],
        curves=chart_images(learning_curves(runs)) if runs else None,
        runs=[_Run.of(run) for run in runs],
    )


def render_markdown(evaluations: Sequence[Evaluation]) -> str:
    """Return the table of each evaluation under its name."""
    sections = [
        f"## {evaluation.info.name}\n\n{quality_table(evaluation, group_statistics(evaluation)).to_markdown()}"
        for evaluation in evaluations
    ]
    return "\n".join(sections)


def render_csv(evaluations: Sequence[Evaluation]) -> str:
    """Return all group statistics in full precision, a row for each."""
    return quality_numbers([(evaluation, group_statistics(evaluation)) for evaluation in evaluations]).to_csv()


@dataclass(frozen=True)
class _Run:
    """What the page says of a run in words."""

    name: str
    num_steps: int
    num_epochs: int
    best: str

    @classmethod
    def of(cls, run: History) -> "_Run":
        records = (*run.train, *run.epochs)
        return cls(run.name, max((r["global_step"] for r in records), default=0), len(run.epochs), _best(run))


def _best(run: History) -> str:
    """Return the scores of the run's best weights, in words; "" where it has none."""
    record = run.best()
    if record is None:
        return ""
    scores = [
        f"{entry.title} {entry.with_unit(f'{record[name]:.{entry.digits}f}')}"
        for name in run.metrics()
        if isinstance(record.get(name), int | float) and (entry := METRICS[name])
    ]
    return f"best validation {', '.join(scores)} after epoch {record['epoch'] + 1}" if scores else ""


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "quality": comparison.quality,
        "notes": comparison.notes,
        "pairs": comparison.pairs,
        "unpaired": comparison.unpaired,
        "examples": [shared_pictures(each) for each in comparison.examples],
    }


def _evaluation(evaluation: Evaluation, index: int) -> dict[str, Any]:
    groups = group_statistics(evaluation)
    accelerations = sorted({v.attributes.acceleration for v in evaluation.volumes})
    leading = METRICS[evaluation.metrics[0]]
    examples = [_example(evaluation, example) for example in evaluation.examples]
    return {
        "anchor": f"evaluation-{index + 1}",
        "info": evaluation.info,
        "methods": [_method(evaluation, name) for name in evaluation.compared],
        "num_volumes": len(evaluation.volumes),
        "num_slices": sum(v.num_slices for v in evaluation.volumes),
        "accelerations": ", ".join(f"{acceleration:g}×" for acceleration in accelerations),
        "figures": _key_figures(evaluation, groups[0]),
        "table": quality_table(evaluation, groups),
        "has_gain": bool(groups[0].gain),
        "distribution": chart_images(quality_distribution(evaluation)),
        "distribution_alt": f"Scores of every volume by anatomy: {', '.join(map(column_name, evaluation.methods))}",
        "examples": examples,
        "volumes": volume_table(evaluation),
        "worst": f"{'lowest' if leading.is_higher_better else 'highest'} {leading.title}",
    }


def _method(evaluation: Evaluation, name: str) -> dict[str, Any]:
    """Return what is known of a method; its name where there are several."""
    return {"name": "" if len(evaluation.compared) == 1 else method_title(name), "info": evaluation.methods[name]}


def _key_figures(evaluation: Evaluation, overall: GroupStatistics) -> list[dict[str, str]]:
    """Return the numbers that the page begins with: every metric of every method beside the baseline."""
    return [_key_figure(evaluation, overall, name, metric) for name in evaluation.compared for metric in evaluation.metrics]


def _key_figure(evaluation: Evaluation, overall: GroupStatistics, name: str, metric: str) -> dict[str, str]:
    entry = METRICS[metric]
    digits = entry.headline_digits
    label = entry.title if len(evaluation.compared) == 1 else f"{entry.title} · {column_name(name)}"
    figure = {"label": label, "value": entry.with_unit(f"{overall.of[name][metric].mean:.{digits}f}")}
    if name not in overall.gain:
        return {**figure, "baseline": "", "gain": "", "interval": "", "tone": ""}
    gain, base = overall.gain[name][metric], overall.of[evaluation.baseline][metric]
    return {
        **figure,
        "baseline": f"{column_name(evaluation.baseline)} {entry.with_unit(f'{base.mean:.{digits}f}')}",
        "gain": entry.with_unit(signed(gain.mean, digits)),
        "interval": f" (95%: {signed(gain.low, digits)} to {signed(gain.high, digits)})" if gain.n > 1 else "",
        "tone": "better" if entry.sign * gain.mean > 0 else "worse",
    }


def _example(evaluation: Evaluation, example: Example) -> dict[str, Any]:
    """Return a slice by all methods, the target, and what each method beside the baseline got wrong."""
    white = window(example)
    # One method by itself is the reconstruction.
    titles = {name: "Reconstruction" if (name,) == evaluation.compared else method_title(name) for name in evaluation.methods}
    pictures = [method_picture(example, name, title, white) for name, title in titles.items()]
    pictures.append(target_picture(example, white))
    pictures += [error_picture(example, name, f"{titles[name].lower()} − target", white) for name in evaluation.compared]
    return {**example_pictures(example, pictures), "columns": min(len(pictures), _MOST_COLUMNS)}
