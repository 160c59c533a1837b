"""A study: one experiment, varied in all the ways that its sections compare."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from echotrain.config import to_dict
from echotrain.data.catalog.selection import Where
from echotrain.errors import ConfigError
from echotrain.training.experiment import Experiment, flatten

if TYPE_CHECKING:
    from echotrain.studies.section import Section

__all__ = ["Study", "StudySettings", "Values", "check_listed", "plan_study", "study_points"]

# What tells a model of a study from the base, by dotted path; without the seed.
Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What can be set of any study, whatever its sections are.

    Attributes:
        name: Folder below the base's storage that keeps everything, and the W&B group of the runs.
        title: Of the page.
        note: What a reader must know first.
        seeds: Repeats of every model; their scores are averaged by volume.
        split: That all models are tested on.
        size: Path of the setting that makes a network larger.
    """

    name: str
    title: str
    note: str = ""
    seeds: tuple[int, ...] = (42,)
    split: Literal["val", "test"] = "test"
    size: str = "model.num_cascades"

    def __post_init__(self) -> None:
        check_listed("seeds", self.seeds)


@dataclass(frozen=True, kw_only=True)
class Study(StudySettings):
    """The experiments of a paper on one catalog.

    Attributes:
        base: What every model is, but for what its section varies.
        sections: What is asked, in the order of the page.
        further: Sections that are not asked for, as they are set where one names them.
    """

    base: Experiment
    sections: tuple["Section", ...]
    further: tuple["Section", ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_listed("sections", [section.name for section in self.sections])
        if self.size not in flatten(to_dict(self.base)):
            raise ConfigError(f"size={self.size}", "is no setting of the experiment", "Name one such as model.num_cascades.")
        data = self.base.data
        chosen = {f"where.{column}": kept for column, kept in data.where.chosen.items()}
        chosen |= {name: getattr(data, name) for name, usual in (("subset", ""), ("fraction", 1.0)) if getattr(data, name) != usual}
        for name, value in chosen.items():
            raise ConfigError(f"data.{name}={value}", "is what the sections of a study vary themselves", "Leave it out.")
        for section in self.sections:
            section.check(self)

    def model(self, *, size: int | None = None, fraction: float = 1.0, part: Where | None = None, subset: str = "") -> dict[str, Any]:
        """Return the values of a model; what is left out is as in the base."""
        values: dict[str, Any] = {
            self.size: flatten(to_dict(self.base))[self.size] if size is None else size,
            "data.fraction": fraction,
        }
        for column, kept in (part or Where()).chosen.items():
            values[f"data.where.{column}"] = list(kept)
        if subset:
            values["data.subset"] = subset
        return values


def check_listed(name: str, listed: Sequence[Any]) -> None:
    """Refuse a list that is empty or names something twice."""
    if not listed or len(set(listed)) != len(listed):
        raise ConfigError(f"{name}={list(listed)}", "must name at least one, and each once", "See --show for the defaults.")


def plan_study(study: Study, table: pa.Table, subsets: Mapping[str, str] | None = None) -> dict[str, Mapping[Any, Values]]:
    """Return the models of each section of a study by what the section calls them; the same model may be in several.

    Args:
        study: What is studied.
        table: All rows of its catalog.
        subsets: Section to the name of the subset that it was given; a section that chooses one needs it.

    Raises:
        CatalogError: A part of the data that a section names is not in the catalog, or there are not two parts to compare.
    """
    return {section.name: section.models(study, table, (subsets or {}).get(section.name, "")) for section in study.sections}


def study_points(models: Mapping[str, Mapping[Any, Values]], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return every model of a plan once, with every seed, as points of a sweep."""
    found = list(_distinct(values for of_section in models.values() for values in of_section.values()))
    return [{**values, "seed": seed} for seed in seeds for values in found]


def _distinct(models: Iterator[Values]) -> Iterator[Values]:
    seen: list[Values] = []
    for values in models:
        if values not in seen:
            seen.append(values)
            yield values
