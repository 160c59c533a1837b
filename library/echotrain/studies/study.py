"""What a study trains: one experiment varied in all the ways that its sections compare."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from echotrain.config import from_dict, override, to_dict
from echotrain.data.catalog.selection import Where
from echotrain.data.samples.kspace_lines import as_lines
from echotrain.errors import CatalogError, ConfigError
from echotrain.physics.masks import MaskConfig
from echotrain.studies.mosaic.anatomy_groups import contrast_family
from echotrain.training.experiment import Experiment, flatten

__all__ = ["SECTIONS", "SectionName", "Study", "StudyModels", "Values", "override_study", "plan_study"]

SectionName = Literal["dataset", "benchmark", "scaling", "anatomies", "contrasts", "shift", "filtering"]
SECTIONS: tuple[SectionName, ...] = ("dataset", "benchmark", "scaling", "anatomies", "contrasts", "shift", "filtering")
_TRANSFERS: tuple[str, ...] = ("anatomies", "contrasts", "shift")
# What tells a model of a study from the base, by dotted path; without the seed.
Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Study:
    """The experiments of MosaicMRI (arXiv:2604.11762, sections 4 and 5) on one catalog.

    Attributes:
        name: Folder below the base's storage that keeps everything, and the W&B group of the runs.
        title: Of the page.
        note: What a reader must know first.
        base: What every model is, but for what its section varies: its size is that of all sections but the scaling.
        sections: Those to run: ``dataset``, ``benchmark``, ``scaling``, ``anatomies``, ``contrasts``, ``shift``, ``filtering``.
        seeds: Repeats of every model; their scores are averaged by volume.
        split: That all models are tested on.
        accelerations: (R, centre fraction) pairs of the benchmark (5.1).
        rivals: Further networks of the benchmark, at its first acceleration, each as the settings that make it of the base:
            ``{"task.kind": "bridge", "model.kind": "bridge", …}`` for LBM.
        espirit_volumes: Volumes that ESPIRiT reconstructs, at every acceleration; 0 leaves it out.
        size: Path of the setting that makes a network larger.
        sizes, fractions: The scaling grid (5.2, and A.2 for 16 cascades). Whether a smaller fraction also has fewer volumes to validate on
            is the base's ``data.val_follows_fraction``.
        min_volumes: A part of the data with fewer training volumes gets no model of its own in the transfer matrices (5.3, 5.4).
        shift: Parts of the data that models are trained and tested on (5.5); empty takes each dataset of the catalog.
        queries: Anatomies that the filtering is for (5.6).
        neighbors: Training slices chosen for each query, or for each of its patches.
        by_patches: Whether neighbours are found by patches, as the paper's authors do, with ``PatchConfig``'s thresholds; else by whole
            slices.
        random_fraction: Of the random subset beside it.
        embedder, embedder_weights: As ``ray_jobs.filter`` takes them.
    """

    name: str
    title: str
    note: str = ""
    base: Experiment
    sections: tuple[SectionName, ...] = SECTIONS
    seeds: tuple[int, ...] = (42,)
    split: Literal["val", "test"] = "test"
    accelerations: tuple[tuple[float, float], ...] = ((4, 0.08), (8, 0.04))
    rivals: tuple[Mapping[str, Any], ...] = ()
    espirit_volumes: int = 0
    size: str = "model.num_cascades"
    sizes: tuple[int, ...] = (4, 8, 12, 16)
    fractions: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0)
    min_volumes: int = 1
    shift: tuple[Where, ...] = ()
    queries: tuple[str, ...] = ("knee",)
    neighbors: int = 4
    by_patches: bool = False
    random_fraction: float = 0.1
    embedder: str = "gradients"
    embedder_weights: str = ""

    def __post_init__(self) -> None:
        for name in ("sections", "seeds", "sizes", "fractions", "accelerations", "queries"):
            listed = getattr(self, name)
            if not listed or len(set(listed)) != len(listed):
                raise ConfigError(f"{name}={list(listed)}", "must name at least one, and each once", "See --show for the defaults.")
        if any(not 0 < fraction <= 1 for fraction in (*self.fractions, self.random_fraction)):
            raise ConfigError(f"fractions={list(self.fractions)}", "must lie in (0, 1]", "Use 1.0 for all volumes.")
        if self.espirit_volumes < 0 or self.min_volumes < 1:
            values = f"espirit_volumes={self.espirit_volumes}, min_volumes={self.min_volumes}"
            raise ConfigError(values, "must be at least 0 and 1", "Leave them out for the recipe's.")
        if self.size not in flatten(to_dict(self.base)):
            raise ConfigError(f"size={self.size}", "is no setting of the experiment", "Name one such as model.num_cascades.")
        for acceleration, center in self.accelerations:
            self.mask(acceleration, center)
        data = self.base.data
        chosen = {f"where.{column}": kept for column, kept in data.where.chosen.items()}
        chosen |= {name: getattr(data, name) for name, usual in (("subset", ""), ("fraction", 1.0)) if getattr(data, name) != usual}
        for name, value in chosen.items():
            raise ConfigError(f"data.{name}={value}", "is what the sections of a study vary themselves", "Leave it out.")

    def mask(self, acceleration: float, center_fraction: float) -> MaskConfig:
        """Return the base's mask at an acceleration."""
        return dataclasses.replace(as_lines(self.base.data).mask, accelerations=(acceleration,), center_fractions=(center_fraction,))

    def model(
        self,
        *,
        size: int | None = None,
        fraction: float = 1.0,
        part: Where | None = None,
        acceleration: tuple[float, float] | None = None,
        subset: str = "",
    ) -> dict[str, Any]:
        """Return the values of a model; what is left out is as in the base."""
        values: dict[str, Any] = {
            self.size: flatten(to_dict(self.base))[self.size] if size is None else size,
            "data.fraction": fraction,
        }
        for column, kept in (part or Where()).chosen.items():
            values[f"data.where.{column}"] = list(kept)
        if acceleration is not None and self.mask(*acceleration) != as_lines(self.base.data).mask:
            values["data.mask"] = {"accelerations": [acceleration[0]], "center_fractions": [acceleration[1]]}
        if subset:
            values["data.subset"] = subset
        return values


@dataclass(frozen=True, kw_only=True)
class StudyModels:
    """The models of a study by section and by what the section calls them; the same model may be in several.

    Attributes:
        benchmark: Models at each acceleration, then the rivals.
        scaling: Size and fraction to model.
        transfer: Section (``anatomies``, ``contrasts``, ``shift``) to part to model.
        parts: Section to part to what it selects, in the order of the rows.
        filtering: Name of the training set to model, the whole one first.
    """

    benchmark: Sequence[Values]
    scaling: Mapping[tuple[int, float], Values]
    transfer: Mapping[str, Mapping[str, Values]]
    parts: Mapping[str, Mapping[str, Where]]
    filtering: Mapping[str, Values]

    def points(self, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Return every model once, with every seed, as points of a sweep."""
        found: list[Values] = []
        for values in self._all():
            if values not in found:
                found.append(values)
        return [{**values, "seed": seed} for seed in seeds for values in found]

    def _all(self) -> Iterator[Values]:
        yield from self.scaling.values()
        yield from self.benchmark
        for models in self.transfer.values():
            yield from models.values()
        yield from self.filtering.values()


def override_study(study: Study, settings: Sequence[str]) -> Study:
    """Return a study with ``dotted.path=value`` applied: settings of the study by their names, all others are the experiment's.

    Raises:
        ConfigError: As ``override``; or a seed is given, which a study has several of.
    """
    own = {field.name for field in dataclasses.fields(Study)} - {"base"}
    heads = [re.split(r"[.=]", setting, maxsplit=1)[0] for setting in settings]
    if "seed" in heads:
        raise ConfigError(settings[heads.index("seed")], "is one seed, and a study repeats its models", "Give seeds=[1,2,3].")
    base = override(study.base, [setting for setting, head in zip(settings, heads, strict=True) if head not in own])
    return override(dataclasses.replace(study, base=base), [setting for setting, head in zip(settings, heads, strict=True) if head in own])


def plan_study(study: Study, table: pa.Table, *, whole: str = "all", subset: str = "") -> StudyModels:
    """Return the models of a study.

    Args:
        study: What is studied.
        table: All rows of its catalog.
        whole: What the model of all data is called.
        subset: Name of the filtered subset; needed for the section ``filtering``.

    Raises:
        CatalogError: A part of the data that the study names is not in the catalog, or there are not two parts to compare.
    """
    parts: dict[str, dict[str, Where]] = {name: _parts(study, table, name) for name in _TRANSFERS if name in study.sections}
    transfer: dict[str, dict[str, Values]] = {
        section: {**{name: study.model(part=selection) for name, selection in selections.items()}, whole: study.model()}
        for section, selections in parts.items()
    }
    filtering = {}
    if "filtering" in study.sections:
        queries = Where(anatomy=study.queries)
        _volumes(table, queries, study)
        filtering = {
            "everything": study.model(),
            f"a random {study.random_fraction:.0%}": study.model(fraction=study.random_fraction),
            f"{' and '.join(study.queries)} only": study.model(part=queries),
            f"{study.neighbors} nearest neighbours": study.model(subset=subset),
        }
    return StudyModels(
        benchmark=_benchmark(study) if "benchmark" in study.sections else (),
        scaling={
            (size, fraction): study.model(size=size, fraction=fraction)
            for size in study.sizes
            for fraction in study.fractions
            if "scaling" in study.sections
        },
        transfer=transfer,
        parts=parts,
        filtering=filtering,
    )


def _benchmark(study: Study) -> list[Values]:
    """Return the base's network at every acceleration, and the rivals at the first."""
    networks = [study.model(acceleration=pair) for pair in study.accelerations]
    shared = {path: value for path, value in networks[0].items() if path != study.size}
    return [*networks, *({**shared, **rival} for rival in study.rivals)]


def _parts(study: Study, table: pa.Table, section: str) -> dict[str, Where]:
    """Return the parts of the data that a transfer matrix compares, those with most training volumes first."""
    if section == "shift":
        listed = study.shift or tuple(Where(dataset=(name,)) for name in sorted(set(table["dataset"].to_pylist())))
        found = {_name(selection): selection for selection in listed}
        for selection in listed:
            _volumes(table, selection, study)
    else:
        column = {"anatomies": "anatomy", "contrasts": "contrast"}[section]
        groups: dict[str, list[str]] = {}
        for value in sorted(set(table[column].to_pylist()) - {""}):
            groups.setdefault(value if section == "anatomies" else contrast_family(value), []).append(value)
        every = {name: from_dict(Where, {column: values}) for name, values in groups.items()}
        sizes = {name: _count(table, selection) for name, selection in every.items()}
        enough = [name for name, counts in sizes.items() if counts["train"] >= study.min_volumes and counts["val"] and counts[study.split]]
        found = {name: every[name] for name in sorted(enough, key=lambda name: (-sizes[name]["train"], name))}
    if len(found) < 2:
        raise CatalogError(
            f"{section} with at least {study.min_volumes} volume(s) to train on, and some to validate and to test on: "
            f"{', '.join(found) or 'none'}",
            "must be two or more, to be compared",
            f"Leave {section} out of sections=, or lower min_volumes.",
        )
    return found


def _volumes(table: pa.Table, selection: Where, study: Study) -> None:
    """Refuse a part of the data that has nothing in one of the splits."""
    counts = _count(table, selection)
    for split in ("train", "val", study.split):
        if not counts[split]:
            raise CatalogError(_name(selection), f"has no volume in the split {split}", "Name what the catalog has, or split it anew.")


def _count(table: pa.Table, part: Where) -> dict[str, int]:
    """Return how many volumes of each split fit."""
    columns = list(dict.fromkeys(["dataset", "volume", "split", *part.chosen]))
    rows = table.select(columns).group_by(columns).aggregate([]).to_pylist()
    found = {(row["dataset"], row["volume"], row["split"]) for row in rows if part.fits(row)}
    splits = [split for _, _, split in found]
    return {split: splits.count(split) for split in ("train", "val", "test")}


def _name(selection: Where) -> str:
    return " ".join(str(value) for kept in selection.chosen.values() for value in kept) or "all"
