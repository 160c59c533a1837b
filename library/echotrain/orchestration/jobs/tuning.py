"""Sweeps on Ray Tune: every trial a whole multi-worker experiment, as many at a time as the cluster holds.

A trial is a light driver, an actor on the sweep's own node that calls ``fit`` as any other driver would. Tune hands the actor from
trial to trial, and with it the training workers, which need ten seconds to start. Tune decides what runs and what is ended early; it
remembers nothing: what became of a trial is in the sweep's folder and in the run's own, and a resumed sweep is a new one that
leaves alone what has ended.
"""

import contextlib
import dataclasses
import math
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from echotrain.config import renamed_settings, to_dict
from echotrain.data.catalog.rows import Catalog
from echotrain.data.catalog.store import load_catalog, split_version
from echotrain.errors import ConfigError, ResourceError
from echotrain.orchestration.jobs.trial_driver import TrialDriver
from echotrain.orchestration.runtime.capacity import capacity
from echotrain.orchestration.runtime.channel import RunChannel
from echotrain.orchestration.runtime.checks import (
    check_selection,
    check_writable,
    choose_device,
    warn_of_unshared_folder,
    with_absolute_paths,
    worker_shape,
)
from echotrain.orchestration.runtime.cluster import DriverEnvironment, connect
from echotrain.orchestration.runtime.maker_room import describe_need, with_makers, workers_that_fit
from echotrain.orchestration.runtime.notes import Notes
from echotrain.orchestration.runtime.signals import catch_signals
from echotrain.orchestration.runtime.streaming import settle_ray_data
from echotrain.storage.guarded import GuardedStore
from echotrain.storage.lease import Lease, held
from echotrain.storage.open import absolute_uri, open_store
from echotrain.sweeps.book import Book
from echotrain.sweeps.console import SweepConsole
from echotrain.sweeps.spec import EPOCH, Hyperband, Metric, SweepSpec
from echotrain.sweeps.table import table_csv
from echotrain.sweeps.trial import SweepFolder, Trial
from echotrain.training.experiment import Experiment, changed_keys, flatten, science
from echotrain.training.swept import check_sweep, swept_experiment, swept_metric
from echotrain.training.without_effect import warn_of_idle_rule

__all__ = ["SweepResult", "run_sweep", "trials_at_a_time", "with_one_catalog"]

_TUNE_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_COMPARED = ("parameters", "metric", "early_terminate")
# Deaths of a trial's driver, not of its workers, after which the trial is given up.
_MOST_DRIVER_DEATHS = 3


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What a sweep came to.

    Attributes:
        folder: URI of the sweep's folder, which the runs are in.
        metric: What the trials are compared by.
        trials: By number.
        is_finished: Whether every trial has ended; else the same command with ``--resume`` goes on.
    """

    folder: str
    metric: Metric
    trials: tuple[Trial, ...]
    is_finished: bool


def run_sweep(
    spec: SweepSpec,
    base: Experiment,
    *,
    resume: bool = False,
    retry_failed: bool = False,
    concurrency: int = 0,
    seed: int = 0,
    console: SweepConsole | None = None,
    lease: Lease | None = None,
) -> SweepResult:
    """Run a sweep, or go on with one that was interrupted.

    Everything that can be known to fail is checked before a trial starts. SIGTERM or Ctrl-C saves a checkpoint of every running trial
    first. A trial that fails is recorded with its reason; the others go on.

    Args:
        spec: What is swept, and how it is searched.
        base: The experiment that is varied; its storage keeps the sweep.
        resume: Go on with the sweep of this name: trials that ended stay as they are, interrupted ones go on from their checkpoints.
        retry_failed: With ``resume``, run trials that failed again, from their checkpoints.
        concurrency: Trials at a time; 0 takes as many as the cluster holds.
        seed: Of a random or a Bayesian search.
        console: Where progress is shown.
        lease: Of the sweep's folder, where the caller holds it already.

    Raises:
        ConfigError: The sweep cannot be run, or there is one of this name already (without ``resume``), or another (with it).
        CatalogError: The catalog is missing, or a trial would select nothing.
        StorageError: The sweep's folder cannot be written.
        ResourceError: The cluster cannot hold one trial.
        LeaseError: Another process runs this sweep, or took it over.
    """
    _refuse_negative(concurrency)
    metric = swept_metric(spec, base)
    base = dataclasses.replace(base, storage=absolute_uri(base.storage))
    store = open_store(f"{base.storage}/{spec.name}")
    folder = SweepFolder(store)
    catalogs: dict[str, Catalog] = {}
    if "data.catalog" not in spec.parameters:
        base = with_one_catalog(base, folder, catalogs)
    trials = check_sweep(spec, base, seed=seed)
    warn_of_idle_rule(spec, trials)
    _check_selections(trials, catalogs)

    def opened(folder: SweepFolder) -> tuple[dict[str, Any] | None, Book]:
        description = _new_description(folder, spec, base, seed, catalogs.get(base.data.catalog), resume=resume)
        renamed = renamed_settings(Experiment)
        book = Book(spec, metric, storage=base.storage, folder=folder, seed=seed, retry_failed=retry_failed, renamed=renamed)
        return description, book

    _, book = opened(folder)
    with contextlib.ExitStack() as stack:
        if not book.is_finished:
            connect()
            at_a_time = trials_at_a_time(base, concurrency)
            check_writable(store)
            asked = stack.enter_context(catch_signals(None))
            lease = lease or stack.enter_context(held(store, silence_s=base.lease_s, gives_up=asked.is_set))
            folder = SweepFolder(GuardedStore(store, lease))
            description, book = opened(folder)  # Again: until the lease was had, another may have written here.
            if description is not None:
                folder.describe(description)
            warn_of_unshared_folder(base)
            shown = stack.enter_context(contextlib.closing(console or SweepConsole()))
            shown.begin(spec.name, book.trials, total=book.total, at_a_time=at_a_time)
            _run(spec, _with_shared_makers(base, at_a_time), book, at_a_time, shown, _Asked(asked, lease))
        folder.write("table.csv", table_csv(list(spec.parameters), book.trials).encode())
    return SweepResult(folder=folder.uri, metric=metric, trials=tuple(book.trials), is_finished=book.is_finished)


@dataclass(frozen=True)
class _Asked:
    """Whether the sweep is to end: somebody asked, or another has taken it over."""

    by_signal: threading.Event
    lease: Lease

    def __call__(self) -> bool:
        return self.by_signal.is_set() or self.lease.lost.is_set()


def with_one_catalog(base: Experiment, folder: SweepFolder, catalogs: dict[str, Catalog]) -> Experiment:
    """Name one version of the catalog for all trials, that of the sweep's start; keep it in ``catalogs`` where it was loaded to know."""
    base = with_absolute_paths(base)
    root, version = split_version(base.data.catalog)
    if version is None:
        # A start that came to nothing binds nobody.
        known = (folder.description() or {}).get("catalog", "") if folder.trials() else ""
        if known.rpartition("@")[0] == root:
            pinned = known
        else:
            newest = load_catalog(root, trusted=base.data.trusted)
            pinned = f"{root}@{newest.version}"
            catalogs[pinned] = newest
        base = dataclasses.replace(base, data=dataclasses.replace(base.data, catalog=pinned))
    return base


def _check_selections(experiments: Iterable[Experiment], catalogs: dict[str, Catalog]) -> None:
    """Raise ``CatalogError`` where a trial would have nothing to train or validate on; ``catalogs`` are those loaded already."""
    for data in {with_absolute_paths(experiment).data for experiment in experiments}:
        if data.catalog not in catalogs:
            catalogs[data.catalog] = load_catalog(data.catalog, trusted=data.trusted)
        check_selection(catalogs[data.catalog], data)


def _new_description(
    folder: SweepFolder, spec: SweepSpec, base: Experiment, seed: int, catalog: Catalog | None, *, resume: bool
) -> dict[str, Any] | None:
    """Return what is swept, to be written down; None where it is what was swept before.

    ``catalog`` is that of all trials, where they share one.
    """
    rows = {} if catalog is None else {"catalog_checksum": catalog.manifest["checksum"]}
    search = to_dict(spec)
    # A list may grow: its trials are known by their values.
    compared = _COMPARED[1:] if spec.method == "list" else _COMPARED
    searched = {"method": spec.method, "seed": seed, "epochs": base.epochs, **{key: search[key] for key in compared}, **science(base)}
    known = folder.description()
    if known is None or not folder.trials():  # A start that came to nothing binds nobody.
        if resume and known is None:
            raise ConfigError(
                folder.uri, "holds no sweep to resume", "Leave out --resume, or give the storage= and name= of the first start."
            )
        told = {"run_cap": spec.run_cap, "compared_by": to_dict(swept_metric(spec, base)), "searched": searched}
        return {"name": spec.name, "catalog": base.data.catalog, **rows, **told}
    if not resume:
        raise ConfigError(folder.uri, "holds a sweep of this name already", "Add --resume to go on with it, or give a new name=.")
    changed = changed_keys(flatten(known["searched"]), flatten(searched))
    if spec.method != "list":  # What every trial sets for itself has no other value.
        changed = {path: values for path, values in changed.items() if path not in spec.parameters}
    if changed:
        listed = ", ".join(f"{path} was {before!r}, now {now!r}" for path, (before, now) in changed.items())
        raise ConfigError(folder.uri, f"holds another sweep: {listed}", "Give this one its own name=, or restore the settings.")
    if known.get("catalog_checksum", rows.get("catalog_checksum")) != rows.get("catalog_checksum"):
        limit = f"holds a sweep on other data, {known['catalog']}: {base.data.catalog} has other rows"
        raise ConfigError(folder.uri, limit, "Give this one its own name=, or the catalog and the version of the first start.")
    return None


def trials_at_a_time(base: Experiment, wanted: int) -> int:
    """Return how many trials run at a time on the cluster that this process is connected to; 0 takes as many as it holds, or may hold.

    Raises:
        ConfigError: The number is negative.
        ResourceError: The cluster cannot hold them.
    """
    _refuse_negative(wanted)
    room, shape = capacity(), worker_shape(base, is_cuda=choose_device(base) == "cuda")
    fit = workers_that_fit(base, room, shape) // base.workers
    if wanted > fit:
        value = f"{wanted} trials at a time, {base.workers} worker(s) of {describe_need(base, shape)} each"
        raise ResourceError(value, f"the cluster holds {fit}: {room}", "Lower --concurrency, or add nodes.")
    return wanted or fit


def _with_shared_makers(base: Experiment, at_a_time: int) -> Experiment:
    """Give each trial its share of the makers of samples, where there are any."""
    if base.stream.where == "rank":
        return base
    return with_makers(base, capacity(), worker_shape(base, is_cuda=choose_device(base) == "cuda"), at_a_time=at_a_time)


def _refuse_negative(wanted: int) -> None:
    if wanted < 0:
        raise ConfigError(f"{wanted} trials at a time", "must be at least 1", "Leave --concurrency out for as many as the cluster holds.")


def _run(spec: SweepSpec, base: Experiment, book: Book, at_a_time: int, shown: SweepConsole, is_asked: _Asked) -> None:
    """Have Tune run every trial that has not ended."""
    for name, value in _TUNE_SETTINGS.items():
        os.environ.setdefault(name, value)
    settle_ray_data()
    notes, sweep_id = Notes(), uuid.uuid4().hex[:12]
    sweep = RunChannel(notes, sweep_id)
    driver = tune.with_parameters(TrialDriver, environment=DriverEnvironment.here(), notes=notes, sweep_id=sweep_id)
    # On this node, so that Tune's folder need not be shared, and without a CPU, which a KubeRay head does not offer.
    driver = tune.with_resources(driver, {f"node:{ray.util.get_node_ip_address()}": 0.001})
    with tempfile.TemporaryDirectory(prefix="echotrain-tune-", ignore_cleanup_errors=True) as scratch:
        search = _Search(book, lambda trial: swept_experiment(spec, base, trial), is_asked=is_asked)
        try:
            tune.Tuner(
                driver,
                tune_config=tune.TuneConfig(
                    search_alg=search,
                    scheduler=_scheduler(spec.early_terminate, base.epochs, book),
                    num_samples=-1,
                    max_concurrent_trials=at_a_time,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name="sweep",
                    storage_path=scratch,
                    callbacks=[_Recorder(book, shown, sweep, is_asked=is_asked)],
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=_MOST_DRIVER_DEATHS),
                    verbose=0,
                ),
            ).fit()
        except Exception:
            is_asked.lease.check()  # Else Tune's error hides that the book refused to be written.
            raise
        finally:
            sweep.clear()


class _Search(Searcher):  # type: ignore[misc]
    """Gives Tune the book's next trial whenever there is room for one."""

    def __init__(self, book: Book, experiment_of: Callable[[Trial], Experiment], *, is_asked: Callable[[], bool]) -> None:
        super().__init__()
        self._book = book
        self._experiment_of = experiment_of
        self._is_asked = is_asked

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        trial = None if self._is_asked() else self._book.next()
        if trial is None:
            return str(Searcher.FINISHED)
        return {"number": trial.number, "experiment": to_dict(self._experiment_of(trial)), "sweep": self._book.uri}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """What became of it is in the book."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing that the book does not know."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing that the book does not know."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes itself into its folder, from which nothing is ever read.


class _Recorder(tune.Callback):  # type: ignore[misc]
    """Writes what Tune hears of a trial into the book, and shows it."""

    def __init__(self, book: Book, shown: SweepConsole, sweep: RunChannel, *, is_asked: Callable[[], bool]) -> None:
        self._book = book
        self._shown = shown
        self._sweep = sweep
        self._is_asked = is_asked
        self._started: dict[int, float] = {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._is_asked() and not self._sweep.is_stop_requested():
            self._sweep.request_stop()
        for trial in trials:
            number = trial.config["number"]
            if number not in self._started:
                self._started[number] = time.monotonic()
                self._shown.started(self._book.trial(number))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        known = self._book.trial(trial.config["number"])
        if "epochs_done" in result:
            self._book.update(known.validated(self._book.metric, result["epochs_done"], result["scores"]))
        elif "waiting" in result:
            self._shown.waiting(known, result["waiting"])
        elif "share" in result:
            self._shown.moved(known, result["share"], f"loss {result['loss']:.4f}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = trial.last_result
        states = {"interrupted": "running", "running": "stopped"}
        self._end(trial, states.get(result["state"], result["state"]), result.get("reason", ""), result.get("training_s", 0.0))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        said = (str(trial.get_error() or "").strip().splitlines() or ["its driver died"])[-1]
        self._end(trial, "failed", f"{said}. See the log above; --resume --retry-failed tries again.", 0.0)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # As in ``_Search``.

    def _end(self, trial: Any, state: Any, reason: str, training_s: float) -> None:
        known = self._book.trial(trial.config["number"])
        wall_s = time.monotonic() - self._started[known.number]
        ended = self._book.update(dataclasses.replace(known, state=state, reason=reason, wall_s=wall_s, training_s=training_s))
        self._shown.ended(ended, self._book.metric)


class _Hyperband(ASHAScheduler):  # type: ignore[misc]
    """ASHA over epochs, which never ends a trial whose last epoch is done."""

    def __init__(self, rule: Hyperband, epochs: int, metric: Metric) -> None:
        self._epochs = epochs
        self._first_spared = rule.max_iter or math.inf
        self._score = f"scores/{metric.name.removeprefix(EPOCH)}"  # Tune flattens what a scheduler sees.
        super().__init__(
            time_attr="epochs_done",
            metric="score",
            mode="max" if metric.goal == "maximize" else "min",
            grace_period=min(rule.min_iter, epochs),
            max_t=max(epochs, rule.min_iter),
            reduction_factor=rule.eta,
        )

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        score = result.get(self._score)
        if score is None or not math.isfinite(score) or result["epochs_done"] >= self._first_spared:
            return str(TrialScheduler.CONTINUE)
        decision = super().on_trial_result(tune_controller, trial, {**result, "score": score})
        return str(TrialScheduler.CONTINUE if result["epochs_done"] >= self._epochs else decision)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Every epoch was counted when it was heard of."""


def _scheduler(rule: Hyperband | None, epochs: int, book: Book) -> TrialScheduler:
    """Return Tune's scheduler, which knows of the trials that have ended as if it had seen them."""
    if rule is None:
        return FIFOScheduler()
    scheduler = _Hyperband(rule, epochs, book.metric)
    name = book.metric.name.removeprefix(EPOCH)
    for trial in book.trials:
        if trial.has_ended:
            stand_in = SimpleNamespace(trial_id=f"ended-{trial.number}")
            scheduler.on_trial_add(None, stand_in)
            for epochs_done, value in trial.curve:
                scheduler.on_trial_result(None, stand_in, {"epochs_done": epochs_done, f"scores/{name}": value})
    return scheduler
