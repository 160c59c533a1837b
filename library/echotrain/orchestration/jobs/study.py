"""A study: train every model that its sections compare, test each of them, and make the page.

Nothing is done twice. The models are the trials of one sweep, which runs as many at a time as the cluster holds; a test of weights that
are still the best ones is read back. So a study that was killed goes on where it was, and one that is given a further section adds it.
"""

import functools
import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from echotrain.baselines.bart import find_bart
from echotrain.config import to_dict
from echotrain.data.catalog.rows import Catalog
from echotrain.data.catalog.selection import Where
from echotrain.data.catalog.store import load_catalog, split_version
from echotrain.data.samples.data_config import DataConfig
from echotrain.errors import ObjectMissingError, ResourceError
from echotrain.evaluation.results import MODEL, Evaluation, MethodInfo
from echotrain.evaluation.stored import read_evaluation, write_evaluation
from echotrain.evaluation.study_page import exhibit_files, render_study
from echotrain.evaluation.transfer import BASELINE
from echotrain.orchestration.jobs.espirit import EspiritMethod
from echotrain.orchestration.jobs.evaluate import EvaluationJob, evaluate_all
from echotrain.orchestration.jobs.filtering import FilterConfig, Filtered, filter_catalog
from echotrain.orchestration.jobs.inference import InferenceConfig
from echotrain.orchestration.jobs.study_results import StudyResults, study_facts, study_sections
from echotrain.orchestration.jobs.tuning import SweepResult, run_sweep, trials_at_a_time, with_one_catalog
from echotrain.orchestration.runtime.cluster import connect
from echotrain.orchestration.runtime.parts import Parts
from echotrain.similarity.patches import PatchConfig
from echotrain.storage.guarded import GuardedStore
from echotrain.storage.lease import held
from echotrain.storage.open import absolute_uri, open_store
from echotrain.studies.study import Study, StudyModels, plan_study
from echotrain.sweeps.console import SweepConsole
from echotrain.sweeps.spec import SweepSpec
from echotrain.sweeps.trial import SweepFolder, Trial
from echotrain.training.experiment import Experiment
from echotrain.training.swept import check_sweep

__all__ = ["PAGE", "StudyResult", "run_study"]

logger = logging.getLogger(__name__)

PAGE = "study.html"


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What a study came to.

    Attributes:
        folder: URI of the study's folder: models, tests, ``study.html``, ``figures/`` and ``tables/``.
        trials: The models.
        is_finished: Whether every model has ended and the page is there; else the same command goes on.
    """

    folder: str
    trials: tuple[Trial, ...]
    is_finished: bool


def run_study(
    study: Study, *, concurrency: int = 0, retry_failed: bool = False, generated: str = "", console: SweepConsole | None = None
) -> StudyResult:
    """Run a study, or go on with one.

    Everything that can be known to fail is checked before a model is trained. A model that fails is named on the page; the rest stands.

    Args:
        study: What is studied.
        concurrency: Models trained at a time; 0 takes as many as the cluster holds.
        retry_failed: Whether models that failed are trained again.
        generated: When and by what the page was made.
        console: Where progress of the training is shown.

    Raises:
        ConfigError, CatalogError, StorageError, ResourceError, LeaseError: As ``run_sweep``; or BART is missing and ESPIRiT was asked for.
    """
    store = open_store(f"{absolute_uri(study.base.storage)}/{study.name}")
    folder = SweepFolder(store)
    loaded: dict[str, Catalog] = {}
    base = with_one_catalog(study.base, folder, loaded)
    catalog = loaded.get(base.data.catalog) or load_catalog(base.data.catalog, trusted=base.data.trusted)
    planned = _models(study, catalog, subset="chosen-later").points(study.seeds)
    if planned:
        check_sweep(SweepSpec.listed(study.name, study.name, planned), base)
        connect()
        trials_at_a_time(base, concurrency)
    if study.espirit_volumes and "benchmark" in study.sections:
        _check_bart()
    # Before the folder is held: what cannot be chosen is refused, and the same is chosen every time.
    filtered = _filter(study, base.data, catalog) if "filtering" in study.sections else None
    with held(store, silence_s=base.lease_s) as lease:
        folder = SweepFolder(GuardedStore(store, lease))
        train = functools.partial(run_sweep, retry_failed=retry_failed, concurrency=concurrency, console=console, lease=lease)
        return _run_held(study, base, catalog, filtered, folder, train, generated)


def _run_held(
    study: Study,
    base: Experiment,
    catalog: Catalog,
    filtered: Filtered | None,
    folder: SweepFolder,
    train: Callable[..., SweepResult],
    generated: str,
) -> StudyResult:
    """Run a study whose folder is held."""
    models = _models(study, catalog, subset=filtered.subset.name if filtered else "")
    trials: tuple[Trial, ...] = ()
    if points := models.points(study.seeds):
        spec = SweepSpec.listed(study.name, study.name, points)
        known = bool(folder.trials())
        sweep = train(spec, base, resume=known)
        trials = sweep.trials
        if not sweep.is_finished:
            return StudyResult(folder=folder.uri, trials=trials, is_finished=False)
    sections = study_sections(study, models, _test_all(study, base, folder.uri, trials), catalog, filtered)
    for key, data in exhibit_files(sections):
        folder.write(key, data)
    facts = study_facts(study, base, catalog, trials)
    folder.write(PAGE, render_study(sections, title=study.title, note=study.note, facts=facts, generated=generated).encode())
    return StudyResult(folder=folder.uri, trials=trials, is_finished=True)


def _check_bart() -> None:
    try:
        find_bart()
    except ResourceError as error:
        remedy = f"{error.remedy.rstrip('.')}; or leave ESPIRiT out: espirit_volumes=0."
        raise ResourceError(error.value, error.limit, remedy) from error


def _models(study: Study, catalog: Catalog, *, subset: str) -> StudyModels:
    return plan_study(study, catalog.table, whole=BASELINE, subset=subset)


def _filter(study: Study, data: DataConfig, catalog: Catalog) -> Filtered:
    """Choose the filtered training set; the same one every time."""
    patches = PatchConfig() if study.by_patches else None
    form = "" if patches is None else f"-p{patches.side}"
    queries = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(study.queries)).strip("-")
    name = f"{queries}-{study.neighbors}nn-{study.embedder}{form}-v{catalog.version}"
    return filter_catalog(
        FilterConfig(
            catalog=data.catalog,
            trusted=data.trusted,
            name=name,
            where=Where(anatomy=study.queries),
            k=study.neighbors,
            patches=patches,
            embedder=study.embedder,
            weights=study.embedder_weights,
        )
    )


def _test_all(study: Study, base: Experiment, folder: str, trials: Sequence[Trial]) -> StudyResults:
    """Test every model that there is, and ESPIRiT."""
    models = {trial.number: job for trial in trials if (job := _model_job(study, base, trial)) is not None}
    espirit = _espirit_jobs(study, base, folder)
    tested = _test([*models.values(), *espirit])
    by_number = {number: tested[job.resume_in] for number, job in models.items()}
    return StudyResults(study.seeds, trials, by_number, [tested[job.resume_in] for job in espirit])


def _test(jobs: Sequence[EvaluationJob]) -> dict[str, Evaluation]:
    """Return every job's evaluation by the URI that keeps it, new or read back."""
    found = {job.resume_in: known for job in jobs if (known := _known(job)) is not None}
    new = [job for job in jobs if job.resume_in not in found]
    logger.info("%d models to test, %d were tested before", len(new), len(found))
    for job, evaluation in evaluate_all(new):
        store = open_store(job.resume_in)
        write_evaluation(store, evaluation)
        Parts(store.uri).clear()
        found[job.resume_in] = evaluation
    return found


def _model_job(study: Study, base: Experiment, trial: Trial) -> EvaluationJob | None:
    """Return the test of a model on all parts of the data; None where there is no model."""
    if trial.state != "finished":
        return None
    everything = (f"{path}=[]" for path in trial.values if path.startswith("data.where."))
    settings = (*_located(base.data), *everything)
    return EvaluationJob(
        method=InferenceConfig(run=trial.run, overrides=settings),
        split=study.split,
        title=trial.name,
        note=study.note,
        resume_in=f"{trial.run}/evaluation-{study.split}-all",  # Where the report looks too.
    )


def _espirit_jobs(study: Study, base: Experiment, folder: str) -> list[EvaluationJob]:
    if not study.espirit_volumes or "benchmark" not in study.sections:
        return []
    jobs = []
    for acceleration, center in study.accelerations:
        settings = (*_located(base.data), f"data.mask={json.dumps(to_dict(study.mask(acceleration, center)))}")
        jobs.append(
            EvaluationJob(
                method=EspiritMethod(overrides=settings),
                split=study.split,
                num_volumes=study.espirit_volumes,
                title=f"ESPIRiT, R = {acceleration:g}",
                note=study.note,
                resume_in=f"{folder}/espirit/{study.split}-{acceleration:g}x-{center:g}-{study.espirit_volumes}",
            )
        )
    return jobs


def _located(data: DataConfig) -> tuple[str, str]:
    return f"data.catalog={data.catalog}", f"data.trusted={json.dumps(data.trusted)}"


def _known(job: EvaluationJob) -> Evaluation | None:
    """Return an earlier test of the same weights on the same data."""
    _, subject = job.method.resolved()
    try:
        known = read_evaluation(open_store(job.resume_in))
    except ObjectMissingError:
        return None
    root, version = split_version(subject.data.catalog)
    now = (subject.model, subject.weights, f"{open_store(root).uri}@{version}")
    method = known.methods.get(MODEL, MethodInfo())
    return known if (method.model, method.checkpoint, known.info.catalog) == now else None
