"""Evaluations and training runs as one self-contained HTML page, or their tables as Markdown or CSV.

The page takes no script, font or picture from elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from echotrain.evaluation.comparison import Comparison, compare
from echotrain.evaluation.figures import ERROR_GAIN, error_png, gray_png, learning_curves, quality_distribution, window
from echotrain.evaluation.history import History
from echotrain.evaluation.html import chart_images, example_pictures, render, score_text, shared_pictures
from echotrain.evaluation.results import Evaluation, Example
from echotrain.evaluation.statistics import GroupStatistics, group_statistics
from echotrain.evaluation.tables import quality_numbers, quality_table, signed, volume_table

__all__ = ["render_csv", "render_markdown", "render_report"]

TEMPLATE = "report.html.j2"


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
        comparison=_comparison(compare(evaluations)) if len(evaluations) > 1 else None,
        evaluations=[_evaluation(evaluation, index) for index, evaluation in enumerate(evaluations)],
        curves=chart_images(learning_curves(runs)) if runs else None,
        runs=[_Run.of(run) for run in runs],
    )


def render_markdown(evaluations: Sequence[Evaluation]) -> str:
    """Return the table of each evaluation under its name."""
    sections = [
        f"## {evaluation.info.name}\n\n{quality_table(group_statistics(evaluation.volumes)).to_markdown()}" for evaluation in evaluations
    ]
    return "\n".join(sections)


def render_csv(evaluations: Sequence[Evaluation]) -> str:
    """Return all group statistics in full precision, a row for each."""
    return quality_numbers([(evaluation.info.name, group_statistics(evaluation.volumes)) for evaluation in evaluations]).to_csv()


@dataclass(frozen=True)
class _Run:
    """What the page says of a run in words."""

    name: str
    num_steps: int
    num_epochs: int
    best: dict[str, Any] | None

    @classmethod
    def of(cls, run: History) -> "_Run":
        records = (*run.train, *run.epochs)
        return cls(run.name, max((r["global_step"] for r in records), default=0), len(run.epochs), run.best())


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "quality": comparison.quality,
        "notes": comparison.notes,
        "pairs": comparison.pairs,
        "examples": [shared_pictures(each) for each in comparison.examples],
    }


def _evaluation(evaluation: Evaluation, index: int) -> dict[str, Any]:
    groups = group_statistics(evaluation.volumes)
    accelerations = sorted({v.attributes.acceleration for v in evaluation.volumes})
    return {
        "anchor": f"evaluation-{index + 1}",
        "info": evaluation.info,
        "num_volumes": len(evaluation.volumes),
        "num_slices": sum(v.num_slices for v in evaluation.volumes),
        "accelerations": ", ".join(f"{acceleration:g}×" for acceleration in accelerations),
        "figures": _key_figures(groups[0]),
        "table": quality_table(groups),
        "distribution": chart_images(quality_distribution(evaluation.volumes)),
        "examples": [_example(example) for example in evaluation.examples],
        "volumes": volume_table(evaluation.volumes),
    }


def _key_figures(overall: GroupStatistics) -> list[dict[str, str]]:
    """Return the three numbers that the page begins with."""
    figures = []
    for metric, label, digits, unit in (("psnr", "PSNR", 2, " dB"), ("ssim", "SSIM", 3, ""), ("nmse", "NMSE", 4, "")):
        gain = overall.gain[metric]
        better = gain.mean < 0 if metric == "nmse" else gain.mean > 0
        interval = f" (95%: {signed(gain.low, digits)} to {signed(gain.high, digits)})" if gain.n > 1 else ""
        figures.append(
            {
                "label": label,
                "value": f"{overall.model[metric].mean:.{digits}f}{unit}",
                "baseline": f"zero-filled {overall.zero_filled[metric].mean:.{digits}f}{unit}",
                "gain": f"{signed(gain.mean, digits)}{unit}",
                "interval": interval,
                "tone": "better" if better else "worse",
            }
        )
    return figures


def _example(example: Example) -> dict[str, Any]:
    white = window(example)
    pictures = [
        ("Zero-filled", gray_png(example.zero_filled, white), score_text(example, example.zero_filled)),
        ("Reconstruction", gray_png(example.reconstruction, white), score_text(example, example.reconstruction)),
        ("Target", gray_png(example.target, white), "fully sampled"),
        (f"Error × {ERROR_GAIN}", error_png(example, example.reconstruction, white), "reconstruction − target"),
    ]
    return example_pictures(example, pictures)
