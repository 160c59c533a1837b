"""From the models of a study and their tests to the sections of its page."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from echotrain.data.catalog.rows import SPLITS, Catalog, splits_of_volumes
from echotrain.data.catalog.selection import Where, select
from echotrain.data.catalog.subsets import load_subset
from echotrain.data.samples.kspace_lines import as_lines
from echotrain.evaluation.results import Evaluation, VolumeResult
from echotrain.evaluation.scaling import ScalingPoint
from echotrain.evaluation.statistics import mean_of_repeats
from echotrain.evaluation.study_page import StudySection
from echotrain.evaluation.training_sets import TrainingSet
from echotrain.metrics.table import find_metric
from echotrain.orchestration.jobs.filtering import Filtered
from echotrain.studies.mosaic.montage import read_montage
from echotrain.studies.mosaic.sections import (
    benchmark_section,
    dataset_section,
    filtering_section,
    models_section,
    scaling_section,
    transfer_section,
)
from echotrain.studies.study import Study, StudyModels, Values
from echotrain.sweeps.trial import Trial
from echotrain.training.experiment import Experiment

__all__ = ["StudyResults", "study_facts", "study_sections"]

_TRANSFER_TEXTS = {
    "anatomies": (
        "Transfer between anatomies",
        "A model of each anatomy and one of all of them, tested on every anatomy; those with most training volumes come first "
        "(MosaicMRI, 5.3 and Figure 3).",
    ),
    "contrasts": (
        "Transfer between protocols",
        "A model of each contrast and one of all of them, tested on every contrast; those with most training volumes come first "
        "(MosaicMRI, 5.4 and Figure 4).",
    ),
    "shift": (
        "Dataset shift",
        "Models of one data set or a part of it, tested on the others (MosaicMRI, 5.5 and Table 4).",
    ),
}


class StudyResults:
    """What is known of each model.

    Args:
        seeds: Of the repeats.
        trials: The models.
        tested: Their evaluations by the trial's number.
        baselines: Evaluations of methods that were not trained.
    """

    def __init__(
        self, seeds: Sequence[int], trials: Sequence[Trial], tested: Mapping[int, Evaluation], baselines: Sequence[Evaluation]
    ) -> None:
        self._seeds = seeds
        self._tested = tested
        self.trials = trials
        self.baselines = baselines

    @property
    def all(self) -> list[Evaluation]:
        """Every evaluation, repeats one by one."""
        return [*self.baselines, *(self._tested[number] for number in sorted(self._tested))]

    def of(self, values: Values) -> Evaluation | None:
        """Return the mean over a model's repeats; None where all of them failed."""
        repeats = [self._tested[trial.number] for trial in self._repeats(values) if trial.number in self._tested]
        return mean_of_repeats(repeats) if repeats else None

    def several(self, models: Mapping[str, Values]) -> dict[str, Evaluation]:
        """Return the evaluations of named models, without those that failed."""
        found = {name: self.of(values) for name, values in models.items()}
        return {name: evaluation for name, evaluation in found.items() if evaluation is not None}

    def missing(self, models: Sequence[Values]) -> tuple[str, ...]:
        """Say which models failed, and why."""
        trials = {trial.number: trial for values in models for trial in self._repeats(values) if trial.number not in self._tested}
        return tuple(f"{trial.name} has no result: {trial.reason or trial.state}" for trial in trials.values())

    def _repeats(self, values: Values) -> list[Trial]:
        wanted = [{**values, "seed": seed} for seed in self._seeds]
        return [trial for trial in self.trials if trial.values in wanted]


def study_sections(
    study: Study, models: StudyModels, results: StudyResults, catalog: Catalog, filtered: Filtered | None
) -> list[StudySection]:
    """Return the sections that were asked for, in the order of the paper, and all models at the end."""
    make: dict[str, Callable[[], StudySection]] = {
        "dataset": lambda: dataset_section(catalog.table, read_montage(catalog)),
        "benchmark": lambda: _benchmark(models, results),
        "scaling": lambda: _scaling(study, models, results),
        "anatomies": lambda: _transfer("anatomies", models, results, catalog),
        "contrasts": lambda: _transfer("contrasts", models, results, catalog),
        "shift": lambda: _transfer("shift", models, results, catalog),
        "filtering": lambda: _filtering(study, models, results, catalog, filtered),
    }
    return [*(section() for name, section in make.items() if name in study.sections), models_section(results.trials, results.all)]


def _benchmark(models: StudyModels, results: StudyResults) -> StudySection:
    networks = [evaluation for evaluation in map(results.of, models.benchmark) if evaluation is not None]
    # Networks of several accelerations are one method, as ESPIRiT is.
    alike = [
        dataclasses.replace(e, methods={name: dataclasses.replace(method, checkpoint="") for name, method in e.methods.items()})
        for e in networks
    ]
    return benchmark_section([*results.baselines, *alike], missing=results.missing(models.benchmark))


def _scaling(study: Study, models: StudyModels, results: StudyResults) -> StudySection:
    word = study.size.rpartition(".")[2].removeprefix("num_").replace("_", " ")
    found = {point: results.of(values) for point, values in models.scaling.items()}
    points = [
        ScalingPoint(panel=f"{size} {word if size != 1 else word.removesuffix('s')}", x=fraction, evaluation=evaluation)
        for (size, fraction), evaluation in found.items()
        if evaluation is not None
    ]
    is_val_cut = study.base.data.val_follows_fraction
    return scaling_section(points, is_val_cut=is_val_cut, missing=results.missing(list(models.scaling.values())))


def _transfer(section: str, models: StudyModels, results: StudyResults, catalog: Catalog) -> StudySection:
    groups = {name: _fits(catalog, part) for name, part in models.parts[section].items()}
    trained = models.transfer[section]
    title, text = _TRANSFER_TEXTS[section]
    return transfer_section(section, title, text, results.several(trained), groups, missing=results.missing(list(trained.values())))


def _filtering(study: Study, models: StudyModels, results: StudyResults, catalog: Catalog, filtered: Filtered | None) -> StudySection:
    assert filtered is not None
    queries = " and ".join(study.queries)
    found = results.several(models.filtering)
    sets = [
        TrainingSet(name=name, num_slices=_num_slices(catalog, models.filtering[name]), evaluation=evaluation)
        for name, evaluation in found.items()
    ]
    pool = catalog.rows(select(catalog.table, splits=("train",)))
    text = (
        f"The filtered set: of the {filtered.num_pool} training slices, the {study.neighbors} nearest to {_asked_with(filtered)} of the "
        f"{filtered.num_queries} {queries} slices of the validation split, by the embedder “{study.embedder}” "
        "(MosaicMRI, 5.6 and Table 5, which uses DreamSim, by patches)."
    )
    return filtering_section(
        sets,
        _fits(catalog, Where(anatomy=study.queries)),
        queries=queries,
        composition=(filtered.by_anatomy, Counter(row.anatomy or "unknown" for row in pool)),
        text=text,
        missing=results.missing(list(models.filtering.values())),
    )


def _asked_with(filtered: Filtered) -> str:
    """Say in which form the queries asked."""
    if filtered.patches is None:
        return "each"
    counts = filtered.patches
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


def _fits(catalog: Catalog, part: Where) -> Callable[[VolumeResult], bool]:
    """Return what tells the volumes of a part of the data from the others."""
    rows = catalog.table.take(pa.array(select(catalog.table, splits=SPLITS, where=part)))
    volumes = set(splits_of_volumes(rows))
    return lambda result: (result.dataset, result.volume) in volumes


def study_facts(study: Study, base: Experiment, catalog: Catalog, trials: Sequence[Trial]) -> dict[str, str]:
    """Return what the page begins with."""
    mask = as_lines(base.data).mask
    rates = ", ".join(f"{rate:g}× with {center:.0%} centre" for rate, center in zip(mask.accelerations, mask.center_fractions, strict=True))
    states = Counter(trial.state for trial in trials)
    return {
        "Data": f"{catalog.root}@{catalog.version}",
        "Models": ", ".join(f"{count} {state}" for state, count in states.items()),
        "Training": f"{base.epochs} epochs, {base.batch_size} slices per step, seed {', '.join(map(str, study.seeds))}",
        "Undersampling": f"{mask.kind}, {rates}, where no section says otherwise",
        "Tested on": f"the split “{study.split}”, with the weights of the best validation {find_metric(base.task.build().score).title}",
    }
