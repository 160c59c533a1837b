"""A study: train every model that its sections compare, test each of them, and make the page.

Nothing is done twice. The models are the trials of one sweep, which runs as many at a time as the cluster holds; a test of weights that
are still the best ones is read back. So a study that was killed goes on where it was, and one that is given a further section adds it.
"""

import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from echotrain.data.catalog.rows import Catalog
from echotrain.data.catalog.store import load_catalog, split_version
from echotrain.data.samples.data_config import DataConfig
from echotrain.errors import ObjectMissingError, ResourceError
from echotrain.evaluation.results import MODEL, Evaluation, MethodInfo
from echotrain.evaluation.stored import read_evaluation, write_evaluation
from echotrain.evaluation.study_page import exhibit_files, render_study
from echotrain.orchestration.jobs.espirit import EspiritMethod
from echotrain.orchestration.jobs.evaluate import EvaluationJob, evaluate_all
from echotrain.orchestration.jobs.filtering import FilterConfig, Filtered, filter_catalog
from echotrain.orchestration.jobs.inference import InferenceConfig, Method
from echotrain.orchestration.jobs.tuning import SweepResult, run_sweep, trials_at_a_time, with_one_catalog
from echotrain.orchestration.runtime.cluster import connect
from echotrain.orchestration.runtime.parts import Parts
from echotrain.storage.guarded import GuardedStore
from echotrain.storage.lease import held
from echotrain.storage.open import absolute_uri, open_store
from echotrain.studies.page import study_facts, study_sections
from echotrain.studies.results import StudyResults
from echotrain.studies.section import MethodTest, SubsetRequest
from echotrain.studies.study import Study, plan_study, study_points
from echotrain.sweeps.console import SweepConsole
from echotrain.sweeps.spec import SweepSpec
from echotrain.sweeps.trial import SweepFolder, Trial
from echotrain.training.experiment import Experiment
from echotrain.training.swept import check_sweep

__all__ = ["PAGE", "StudyResult", "run_study"]

logger = logging.getLogger(__name__)

PAGE = "study.html"
# What is tested beside a study's models, by the name that its sections have for it.
_METHODS: dict[str, Callable[[Sequence[str]], Method]] = {"espirit": lambda settings: EspiritMethod(overrides=settings)}


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
        ConfigError, CatalogError, StorageError, LeaseError: As ``run_sweep``.
        ResourceError: Likewise; or what a section tests beside its models is not installed.
    """
    store = open_store(f"{absolute_uri(study.base.storage)}/{study.name}")
    folder = SweepFolder(store)
    loaded: dict[str, Catalog] = {}
    base = with_one_catalog(study.base, folder, loaded)
    catalog = loaded.get(base.data.catalog) or load_catalog(base.data.catalog, trusted=base.data.trusted)
    requests = {section.name: request for section in study.sections if (request := section.subset(study, catalog.version)) is not None}
    planned = study_points(plan_study(study, catalog.table, dict.fromkeys(requests, "chosen-later")), study.seeds)
    if planned:
        check_sweep(SweepSpec.listed(study.name, study.name, planned), base)
        connect()
        trials_at_a_time(base, concurrency)
    for section in study.sections:
        for test in section.tests(study):
            _check_method(test, base.data)
    # Before the folder is held: what cannot be chosen is refused, and the same is chosen every time.
    chosen = {name: _choose(request, base.data) for name, request in requests.items()}
    with held(store, silence_s=base.lease_s) as lease:
        folder = SweepFolder(GuardedStore(store, lease))
        train = functools.partial(run_sweep, retry_failed=retry_failed, concurrency=concurrency, console=console, lease=lease)
        return _run_held(study, base, catalog, chosen, folder, train, generated)


def _run_held(
    study: Study,
    base: Experiment,
    catalog: Catalog,
    chosen: Mapping[str, Filtered],
    folder: SweepFolder,
    train: Callable[..., SweepResult],
    generated: str,
) -> StudyResult:
    """Run a study whose folder is held."""
    models = plan_study(study, catalog.table, {name: found.subset.name for name, found in chosen.items()})
    trials: tuple[Trial, ...] = ()
    if points := study_points(models, study.seeds):
        spec = SweepSpec.listed(study.name, study.name, points)
        known = bool(folder.trials())
        sweep = train(spec, base, resume=known)
        trials = sweep.trials
        if not sweep.is_finished:
            return StudyResult(folder=folder.uri, trials=trials, is_finished=False)
    results, tests = _test_all(study, base, folder.uri, trials)
    sections = study_sections(study, catalog, models=models, results=results, tests=tests, chosen=chosen)
    for key, data in exhibit_files(sections):
        folder.write(key, data)
    facts = study_facts(study, base, catalog, trials)
    folder.write(PAGE, render_study(sections, title=study.title, note=study.note, facts=facts, generated=generated).encode())
    return StudyResult(folder=folder.uri, trials=trials, is_finished=True)


def _check_method(test: MethodTest, data: DataConfig) -> None:
    """Refuse a test of a method that is not to be had here."""
    try:
        _method(test, data).resolved()
    except ResourceError as error:
        raise ResourceError(error.value, error.limit, f"{error.remedy.rstrip('.')}; or {test.without}") from error


def _method(test: MethodTest, data: DataConfig) -> Method:
    return _METHODS[test.method]((*_located(data), *test.settings))


def _choose(request: SubsetRequest, data: DataConfig) -> Filtered:
    """Choose the slices of a training set; the same ones every time."""
    return filter_catalog(
        FilterConfig(
            catalog=data.catalog,
            trusted=data.trusted,
            name=request.name,
            where=request.where,
            k=request.neighbors,
            patches=request.patches,
            embedder=request.embedder,
            weights=request.weights,
        )
    )


def _test_all(study: Study, base: Experiment, folder: str, trials: Sequence[Trial]) -> tuple[StudyResults, dict[str, list[Evaluation]]]:
    """Test every model that there is, and the methods beside them; return what is known, and the latter's evaluations by section."""
    models = {trial.number: job for trial in trials if (job := _model_job(study, base, trial)) is not None}
    beside = {section.name: [_method_job(study, base, folder, test) for test in section.tests(study)] for section in study.sections}
    tested = _test([*models.values(), *(job for jobs in beside.values() for job in jobs)])
    tests = {name: [tested[job.resume_in] for job in jobs] for name, jobs in beside.items()}
    by_number = {number: tested[job.resume_in] for number, job in models.items()}
    return StudyResults(study.seeds, trials, by_number, [found for each in tests.values() for found in each]), tests


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


def _method_job(study: Study, base: Experiment, folder: str, test: MethodTest) -> EvaluationJob:
    """Return the test of a method that was not trained."""
    return EvaluationJob(
        method=_method(test, base.data),
        split=study.split,
        num_volumes=test.num_volumes,
        title=test.title,
        note=study.note,
        resume_in=f"{folder}/{test.folder}",
    )


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
