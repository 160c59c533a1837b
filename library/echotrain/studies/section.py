"""What a study asks: a section says which models it trains, which methods it tests beside them, and how it shows what came out."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from echotrain.data.catalog.rows import Catalog
from echotrain.data.catalog.selection import Where
from echotrain.data.catalog.subsets import Subset
from echotrain.evaluation.results import Evaluation
from echotrain.evaluation.study_page import StudySection
from echotrain.similarity.patches import PatchConfig
from echotrain.studies.results import StudyResults
from echotrain.studies.study import Study, Values

__all__ = ["Chosen", "Findings", "MethodTest", "PatchesCounted", "Section", "SubsetRequest"]


@dataclass(frozen=True, kw_only=True)
class SubsetRequest:
    """Training slices to be chosen by what they look like, before anything is trained.

    Attributes:
        name: Of the subset: two that are chosen otherwise are called otherwise.
        where: What the queries show.
        neighbors: Slices chosen for each query, or for each of its patches.
        patches: How slices are cut; None compares whole ones.
        embedder, weights: As ``ray_jobs.filter`` takes them.
    """

    name: str
    where: Where
    neighbors: int
    patches: PatchConfig | None
    embedder: str
    weights: str


class PatchesCounted(Protocol):
    """How many patches counted."""

    @property
    def num_queries(self) -> int:
        """Patches that were asked with."""

    @property
    def num_pool(self) -> int:
        """Patches that were chosen from."""

    @property
    def num_blank(self) -> int:
        """Patches to choose from that are blank."""

    @property
    def num_duplicates(self) -> int:
        """Patches to choose from that are near-duplicates of others."""


class Chosen(Protocol):
    """What was chosen for a ``SubsetRequest``."""

    @property
    def subset(self) -> Subset:
        """The slices."""

    @property
    def num_queries(self) -> int:
        """Slices that were asked with."""

    @property
    def num_pool(self) -> int:
        """Slices that were chosen from."""

    @property
    def by_anatomy(self) -> dict[str, int]:
        """Slices chosen of each anatomy."""

    @property
    def patches(self) -> PatchesCounted | None:
        """How many patches counted; None where whole slices were compared."""


@dataclass(frozen=True, kw_only=True)
class MethodTest:
    """A test of a method that the study does not train.

    Attributes:
        method: Which one, by its name among the jobs' methods.
        settings: ``dotted.path=value`` of it; where the data lies is added.
        num_volumes: Volumes at most.
        title: Of the evaluation.
        folder: Below the study's own, where the evaluation is kept.
        without: How a study does without it.
    """

    method: str
    settings: tuple[str, ...]
    num_volumes: int
    title: str
    folder: str
    without: str


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a section is shown from.

    Attributes:
        study: What is studied.
        catalog: On what.
        models: The section's own, by what it calls them.
        results: What is known of every model.
        tests: The evaluations of the section's own tests.
        chosen: The subset that it asked for.
    """

    study: Study
    catalog: Catalog
    models: Mapping[Any, Values]
    results: StudyResults
    tests: Sequence[Evaluation]
    chosen: Chosen | None


@dataclass(frozen=True, kw_only=True)
class Section(abc.ABC):
    """One question of a study; its fields are settings of it.

    Attributes:
        name: By which studies name it: a plain word.
    """

    name: ClassVar[str]

    def check(self, study: Study) -> None:
        """Refuse what can be seen to be wrong without the data."""
        return

    def facts(self, study: Study) -> dict[str, str]:
        """Return what the page says of the study's models because of this section."""
        return {}

    def subset(self, study: Study, version: int) -> SubsetRequest | None:
        """Return the training slices that are to be chosen first; the catalog has this version."""
        return None

    def models(self, study: Study, table: pa.Table, subset: str) -> Mapping[Any, Values]:
        """Return the models that it compares, by what it calls them.

        Args:
            study: What is studied.
            table: All rows of the catalog.
            subset: Name of the subset that it asked for; "" where it asked for none.

        Raises:
            CatalogError: The catalog lacks what it compares.
        """
        return {}

    def tests(self, study: Study) -> tuple[MethodTest, ...]:
        """Return the tests of methods beside its models."""
        return ()

    @abc.abstractmethod
    def render(self, findings: Findings) -> StudySection:
        """Show what came out; what is missing is named, and the rest stands."""
