"""What the sections of transfer share: models of parts of the data, tested on every part (5.3 to 5.5, Figures 3 and 4, Table 4)."""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from echotrain.config import from_dict
from echotrain.data.catalog.selection import Where
from echotrain.errors import CatalogError, ConfigError
from echotrain.evaluation.results import Evaluation, VolumeResult, shared_metrics
from echotrain.evaluation.study_page import Exhibit, StudySection
from echotrain.evaluation.transfer import EVERYTHING, transfer_chart, transfer_matrix, transfer_table
from echotrain.metrics.table import METRICS, drawn
from echotrain.studies.mosaic.line_masked import LineMasked
from echotrain.studies.parts import count_volumes, tells
from echotrain.studies.section import Findings
from echotrain.studies.study import Study, Values
from echotrain.studies.wording import SPREAD

__all__ = ["ByColumn", "Transfer", "several_parts", "transfer_section"]

Groups = Mapping[str, Callable[[VolumeResult], bool]]


@dataclass(frozen=True, kw_only=True)
class Transfer(LineMasked):
    """Parts of the data, a model of each and one of all of them."""

    title: ClassVar[str]
    text: ClassVar[str]

    @abc.abstractmethod
    def parts(self, study: Study, table: pa.Table) -> dict[str, Where]:
        """Return the parts by name, in the order of the rows."""

    def models(self, study: Study, table: pa.Table, subset: str) -> Mapping[Any, Values]:
        """Return a model of each part, and one of everything."""
        return {**{name: study.model(part=part) for name, part in self.parts(study, table).items()}, EVERYTHING: study.model()}

    def render(self, findings: Findings) -> StudySection:
        """Show the matrix of models and parts."""
        parts = self.parts(findings.study, findings.catalog.table)
        groups = {name: tells(findings.catalog, part) for name, part in parts.items()}
        found = findings.results.several(findings.models)
        missing = findings.results.missing(list(findings.models.values()))
        return transfer_section(self.name, self.title, self.text, found, groups, missing=missing)


@dataclass(frozen=True, kw_only=True)
class ByColumn(Transfer):
    """Parts by what one column says; those with most training volumes come first.

    Attributes:
        min_volumes: A part with fewer training volumes gets no model of its own.
    """

    column: ClassVar[str]

    min_volumes: int = 1

    def __post_init__(self) -> None:
        if self.min_volumes < 1:
            raise ConfigError(f"min_volumes={self.min_volumes}", "must be at least 1", "Leave it out for the recipe's.")

    def group(self, value: str) -> str:
        """Return the part that a value of the column belongs to."""
        return value

    def parts(self, study: Study, table: pa.Table) -> dict[str, Where]:
        """Return the parts that have enough to train on, and something to validate and to test on."""
        groups: dict[str, list[str]] = {}
        for value in sorted(set(table[self.column].to_pylist()) - {""}):
            groups.setdefault(self.group(value), []).append(value)
        every = {name: from_dict(Where, {self.column: values}) for name, values in groups.items()}
        sizes = {name: count_volumes(table, part) for name, part in every.items()}
        enough = [name for name, counts in sizes.items() if counts["train"] >= self.min_volumes and counts["val"] and counts[study.split]]
        found = {name: every[name] for name in sorted(enough, key=lambda name: (-sizes[name]["train"], name))}
        asked = f"with at least {self.min_volumes} volume(s) to train on, and some to validate and to test on"
        return several_parts(self.name, asked, found, ", or lower min_volumes")


def several_parts(name: str, asked: str, found: dict[str, Where], otherwise: str) -> dict[str, Where]:
    """Return the parts, of which there must be two."""
    if len(found) < 2:
        raise CatalogError(
            f"{name} {asked}: {', '.join(found) or 'none'}",
            "must be two or more, to be compared",
            f"Leave {name} out of sections={otherwise}.",
        )
    return found


def transfer_section(
    name: str, title: str, text: str, evaluations: Mapping[str, Evaluation], groups: Groups, *, missing: Sequence[str] = ()
) -> StudySection:
    """Return models of parts of the data, tested on every part (Figures 3 and 4, Table 4).

    Args:
        name: Of the section and its files.
        title: Its heading.
        text: What was done.
        evaluations: What was trained on (``all`` for everything) to the evaluation of that model.
        groups: Parts to test on, in the order of the rows.
        missing: What could not be had.
    """
    exhibits = []
    for place, metric in enumerate(drawn(shared_metrics(list(evaluations.values())))):
        matrix = transfer_matrix(evaluations, groups, metric=metric)
        heading, outlined = METRICS[metric].heading, _outlined(metric)
        if place == 0:
            caption = " ".join(
                ("Mean over the volumes of a row, darker the closer to its best.", *(f"Outlined: {text}" for text in outlined))
            )
            exhibits.append(Exhibit(name=name, title=heading, content=transfer_chart(matrix, heading), caption=caption))
        caption = " ".join((SPREAD, *(f"Starred: {text}" for text in outlined)))
        exhibits.append(Exhibit(name=f"{name}-{metric}", title=heading, content=transfer_table(matrix), caption=caption))
    return StudySection(name=name, title=title, text=text, exhibits=tuple(exhibits), missing=tuple(missing))


def _outlined(metric: str) -> tuple[str, ...]:
    """Say what of a transfer matrix is outlined; nothing where nothing is."""
    entry = METRICS[metric]
    near = "" if entry.near is None else entry.with_unit(f"{entry.near:g}")
    return (f"what comes within {near} of the best of its row, the model of all data aside.",) if near else ()
