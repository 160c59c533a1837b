"""Data filtering: a model of the slices that look like what it is for, beside models of others (5.6, Table 5)."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from echotrain.data.catalog.rows import Catalog
from echotrain.data.catalog.selection import Where, select
from echotrain.data.catalog.subsets import load_subset
from echotrain.errors import ConfigError
from echotrain.evaluation.results import VolumeResult
from echotrain.evaluation.study_page import Exhibit, StudySection
from echotrain.evaluation.training_sets import TrainingSet, composition_table, training_set_table
from echotrain.similarity.patches import PatchConfig
from echotrain.studies.mosaic.line_masked import LineMasked
from echotrain.studies.parts import require_volumes, tells
from echotrain.studies.section import Chosen, Findings, SubsetRequest
from echotrain.studies.study import Study, Values, check_listed
from echotrain.studies.wording import PAIRED, SPREAD

__all__ = ["Filtering", "filtering_section"]


@dataclass(frozen=True, kw_only=True)
class Filtering(LineMasked):
    """Training sets for some anatomies: everything, a random part, these anatomies alone, and what is nearest to them.

    Attributes:
        queries: Anatomies that the filtering is for.
        neighbors: Training slices chosen for each query, or for each of its patches.
        by_patches: Whether neighbours are found by patches, as the paper's authors do, with ``PatchConfig``'s thresholds; else by whole
            slices.
        random_fraction: Of the random subset beside it.
        embedder, embedder_weights: As ``ray_jobs.filter`` takes them.
    """

    name: ClassVar[str] = "filtering"

    queries: tuple[str, ...] = ("knee",)
    neighbors: int = 4
    by_patches: bool = False
    random_fraction: float = 0.1
    embedder: str = "gradients"
    embedder_weights: str = ""

    def __post_init__(self) -> None:
        check_listed("queries", self.queries)
        if not 0 < self.random_fraction <= 1:
            raise ConfigError(f"random_fraction={self.random_fraction}", "must lie in (0, 1]", "Use 1.0 for all volumes.")

    @property
    def part(self) -> Where:
        """What the filtering is for."""
        return Where(anatomy=self.queries)

    def subset(self, study: Study, version: int) -> SubsetRequest:
        """Return what is to be chosen; the same one every time."""
        patches = PatchConfig() if self.by_patches else None
        form = "" if patches is None else f"-p{patches.side}"
        queries = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(self.queries)).strip("-")
        return SubsetRequest(
            name=f"{queries}-{self.neighbors}nn-{self.embedder}{form}-v{version}",
            where=self.part,
            neighbors=self.neighbors,
            patches=patches,
            embedder=self.embedder,
            weights=self.embedder_weights,
        )

    def models(self, study: Study, table: pa.Table, subset: str) -> Mapping[Any, Values]:
        """Return a model of each training set, the whole one first."""
        require_volumes(table, self.part, study)
        return {
            "everything": study.model(),
            f"a random {self.random_fraction:.0%}": study.model(fraction=self.random_fraction),
            f"{' and '.join(self.queries)} only": study.model(part=self.part),
            f"{self.neighbors} nearest neighbours": study.model(subset=subset),
        }

    def render(self, findings: Findings) -> StudySection:
        """Show every training set on what the filtering is for, and what the filtered one consists of."""
        assert findings.chosen is not None
        chosen, catalog = findings.chosen, findings.catalog
        sets = [
            TrainingSet(name=name, num_slices=_num_slices(catalog, findings.models[name]), evaluation=evaluation)
            for name, evaluation in findings.results.several(findings.models).items()
        ]
        queries = " and ".join(self.queries)
        pool = catalog.rows(select(catalog.table, splits=("train",)))
        text = (
            f"The filtered set: of the {chosen.num_pool} training slices, the {self.neighbors} nearest to {_asked_with(chosen)} of the "
            f"{chosen.num_queries} {queries} slices of the validation split, by the embedder “{self.embedder}” "
            "(MosaicMRI, 5.6 and Table 5, which uses DreamSim, by patches)."
        )
        return filtering_section(
            sets,
            tells(catalog, self.part),
            queries=queries,
            composition=(chosen.by_anatomy, Counter(row.anatomy or "unknown" for row in pool)),
            text=text,
            missing=findings.results.missing(list(findings.models.values())),
        )


def filtering_section(
    sets: Sequence[TrainingSet],
    fits: Callable[[VolumeResult], bool],
    *,
    queries: str,
    composition: tuple[Mapping[str, int], Mapping[str, int]],
    text: str,
    missing: Sequence[str] = (),
) -> StudySection:
    """Return models of several training sets on one kind of volume (Table 5), and what the filtered set consists of.

    Args:
        sets: The first one is what the others are compared with.
        fits: Which volumes count.
        queries: Their name.
        composition: Slices by anatomy of the filtered set, and of what it was chosen from.
        text: What was done.
        missing: What could not be had.
    """
    chosen, pool = composition
    exhibits = [Exhibit(name="filtering-composition", title="The filtered set", content=composition_table(chosen, pool))]
    if sets:
        table = training_set_table(sets, fits, sum(pool.values()))
        caption = f"{SPREAD} Differences are from the first row. {PAIRED}"
        exhibits.insert(0, Exhibit(name="filtering", title=f"Tested on {queries}", content=table, caption=caption))
    return StudySection(name="filtering", title="Data filtering", text=text, exhibits=tuple(exhibits), missing=tuple(missing))


def _asked_with(chosen: Chosen) -> str:
    """Say in which form the queries asked."""
    counts = chosen.patches
    if counts is None:
        return "each"
    return (
        f"each of the {counts.num_queries} patches that are not blank (among {counts.num_pool} patches, {counts.num_blank} blank and "
        f"{counts.num_duplicates} near-duplicate ones left out)"
    )


def _num_slices(catalog: Catalog, values: Values) -> int:
    """Return how many slices a model was trained on."""
    subset = load_subset(catalog.root, values["data.subset"]) if "data.subset" in values else None
    prefix = "data.where."
    where = Where(**{path.removeprefix(prefix): tuple(kept) for path, kept in values.items() if path.startswith(prefix)})
    return len(select(catalog.table, splits=("train",), where=where, subset=subset, fraction=values["data.fraction"]))
