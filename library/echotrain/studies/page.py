"""From the models of a study and their tests to the sections of its page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from echotrain.data.catalog.rows import Catalog
from echotrain.evaluation.results import Evaluation
from echotrain.evaluation.study_page import StudySection
from echotrain.metrics.table import find_metric
from echotrain.studies.models import models_section
from echotrain.studies.results import StudyResults
from echotrain.studies.section import Chosen, Findings
from echotrain.studies.study import Study, Values
from echotrain.sweeps.trial import Trial
from echotrain.training.experiment import Experiment

__all__ = ["study_facts", "study_sections"]


def study_sections(
    study: Study,
    catalog: Catalog,
    *,
    models: Mapping[str, Mapping[Any, Values]],
    results: StudyResults,
    tests: Mapping[str, Sequence[Evaluation]],
    chosen: Mapping[str, Chosen],
) -> list[StudySection]:
    """Return what each section shows, and all models at the end.

    Args:
        study: What is studied.
        catalog: On what.
        models: Section to its models, as ``plan_study`` made them.
        results: What is known of them.
        tests: Section to the evaluations of its tests.
        chosen: Section to the subset that it asked for.
    """
    shown = [
        section.render(
            Findings(
                study=study,
                catalog=catalog,
                models=models[section.name],
                results=results,
                tests=tests.get(section.name, ()),
                chosen=chosen.get(section.name),
            )
        )
        for section in study.sections
    ]
    return [*shown, models_section(results.trials, results.all)]


def study_facts(study: Study, base: Experiment, catalog: Catalog, trials: Sequence[Trial]) -> dict[str, str]:
    """Return what the page begins with."""
    states = Counter(trial.state for trial in trials)
    facts = {
        "Data": f"{catalog.root}@{catalog.version}",
        "Models": ", ".join(f"{count} {state}" for state, count in states.items()),
        "Training": f"{base.epochs} epochs, {base.batch_size} slices per step, seed {', '.join(map(str, study.seeds))}",
    }
    for section in study.sections:
        facts |= section.facts(study)
    score = find_metric(base.task.build().score).title
    return {**facts, "Tested on": f"the split “{study.split}”, with the weights of the best validation {score}"}
