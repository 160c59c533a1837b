"""Data and network size: several networks on nested fractions of the data (5.2, Figure 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from echotrain.errors import ConfigError
from echotrain.evaluation.comparison import compare
from echotrain.evaluation.results import shared_metrics
from echotrain.evaluation.scaling import ScalingPoint, scaling_chart, scaling_table
from echotrain.evaluation.statistics import mean_of_repeats
from echotrain.evaluation.study_page import Exhibit, StudySection
from echotrain.metrics.table import METRICS, drawn
from echotrain.studies.mosaic.line_masked import LineMasked
from echotrain.studies.section import Findings
from echotrain.studies.study import Study, Values, check_listed
from echotrain.studies.wording import PAIRED, SPREAD

__all__ = ["Scaling", "scaling_section"]


@dataclass(frozen=True, kw_only=True)
class Scaling(LineMasked):
    """A grid of sizes and fractions (5.2, and A.2 for 16 cascades).

    Whether a smaller fraction also has fewer volumes to validate on is the base's ``data.val_follows_fraction``.

    Attributes:
        sizes: Of the networks.
        fractions: Of the training volumes.
    """

    name: ClassVar[str] = "scaling"

    sizes: tuple[int, ...] = (4, 8, 12, 16)
    fractions: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0)

    def __post_init__(self) -> None:
        check_listed("sizes", self.sizes)
        check_listed("fractions", self.fractions)
        if any(not 0 < fraction <= 1 for fraction in self.fractions):
            raise ConfigError(f"fractions={list(self.fractions)}", "must lie in (0, 1]", "Use 1.0 for all volumes.")

    def models(self, study: Study, table: pa.Table, subset: str) -> Mapping[Any, Values]:
        """Return the whole grid."""
        return {(size, fraction): study.model(size=size, fraction=fraction) for size in self.sizes for fraction in self.fractions}

    def render(self, findings: Findings) -> StudySection:
        """Show quality over the data, a panel per size."""
        word = findings.study.size.rpartition(".")[2].removeprefix("num_").replace("_", " ")
        found = {point: findings.results.of(values) for point, values in findings.models.items()}
        points = [
            ScalingPoint(panel=f"{size} {word if size != 1 else word.removesuffix('s')}", x=fraction, evaluation=evaluation)
            for (size, fraction), evaluation in found.items()
            if evaluation is not None
        ]
        is_val_cut = findings.study.base.data.val_follows_fraction
        return scaling_section(points, is_val_cut=is_val_cut, missing=findings.results.missing(list(findings.models.values())))


def scaling_section(points: Sequence[ScalingPoint], *, is_val_cut: bool = False, missing: Sequence[str] = ()) -> StudySection:
    """Return quality over data and network size (Figure 2).

    Args:
        points: What was measured.
        is_val_cut: Whether a model of a fraction also validated on that fraction alone.
        missing: What could not be had.
    """
    validated = "the same fraction of the validation volumes" if is_val_cut else "all validation volumes"
    text = (
        "Networks of several sizes on nested fractions of the training volumes, all for the same number of epochs, so that a smaller "
        f"fraction also means fewer steps (MosaicMRI, 5.2 and Figure 2). The weights of each were chosen on {validated}, and all "
        "are tested on the same volumes."
    )
    exhibits = [
        exhibit
        for metric in drawn(shared_metrics([point.evaluation for point in points]))
        for exhibit in (
            Exhibit(
                name=f"scaling-{metric}",
                title=f"{METRICS[metric].heading} over the data",
                content=scaling_chart(points, lambda attributes: attributes.anatomy, metric=metric),
                caption="A curve per anatomy over its test volumes (how many), with the 95% bootstrap interval of their mean.",
            ),
            Exhibit(name=f"scaling-{metric}-table", title="All volumes", content=scaling_table(points, metric=metric), caption=SPREAD),
        )
    ]
    largest = max((point.x for point in points), default=0.0)
    whole = {
        panel: [p.evaluation for p in points if (p.panel, p.x) == (panel, largest)] for panel in dict.fromkeys(p.panel for p in points)
    }
    sizes = [mean_of_repeats(repeats) for repeats in whole.values() if repeats]
    pairs = compare(sizes).pairs if len(sizes) > 1 else None
    if pairs is not None:
        title = f"Network sizes, each trained on {largest:.0%} of the volumes"
        exhibits.append(Exhibit(name="scaling-pairs", title=title, content=pairs, caption=PAIRED))
    return StudySection(name="scaling", title="Data and network size", text=text, exhibits=tuple(exhibits), missing=tuple(missing))
