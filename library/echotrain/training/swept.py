"""The experiments of a sweep, and everything about them that can be known to fail before one starts."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from echotrain.config import override
from echotrain.errors import ConfigError
from echotrain.metrics.table import find_metric
from echotrain.sweeps.parameters import Choice
from echotrain.sweeps.space import as_settings, trial_values
from echotrain.sweeps.spec import EPOCH, Metric, SweepSpec
from echotrain.sweeps.trial import Trial, new_trial
from echotrain.training.experiment import NUMBERLESS, Experiment, Place

__all__ = ["check_sweep", "corners", "swept_experiment", "swept_metric"]

# The mean training loss of an epoch: what every run reports besides its task's metrics.
_LOSS = "loss"
# A grid beyond this many points is checked in part; each value comes up in it.
_MOST_CHECKED = 2000


def swept_metric(spec: SweepSpec, base: Experiment) -> Metric:
    """Return what the trials are compared by: the sweep's metric, else the task's own score.

    Raises:
        ConfigError: No run reports the sweep's metric, its goal is the worst, or nobody knows which way is better.
    """
    task = base.task.build()
    if spec.metric is None:
        return Metric(name=f"{EPOCH}{task.score}", goal=find_metric(task.score).goal)
    reported = [f"{EPOCH}{name}" for name in (_LOSS, *task.metrics)]
    if spec.metric.name not in reported:
        raise ConfigError(f"metric {spec.metric.name!r}", "is reported by no run at its validations", f"Use one of {', '.join(reported)}.")
    # W&B minimises what has no goal, and a sweep would look for its worst trial.
    name = spec.metric.name.removeprefix(EPOCH)
    goal = "minimize" if name == _LOSS else find_metric(name).goal
    if spec.metric.goal != goal:
        better = "higher" if goal == "maximize" else "lower"
        raise ConfigError(
            f"metric {spec.metric.name}, goal {spec.metric.goal}", f"would look for the worst: {better} is better", f"Write goal: {goal}."
        )
    return spec.metric


def check_sweep(spec: SweepSpec, base: Experiment, *, seed: int = 0) -> list[Experiment]:
    """Return the experiments of all trials; of a search without a list of trials, those at its corners.

    Raises:
        ConfigError: A parameter is unknown, takes a value of the wrong type, or belongs to the place where trials run; or two trials are
            one experiment.
    """
    places = {field.name for field in dataclasses.fields(Place)}
    for path in spec.parameters:
        if path.split(".")[0] in places or path in NUMBERLESS:
            raise ConfigError(
                f"parameter {path}",
                "says where or how trials run and changes no number, so there is nothing to compare",
                f"Take it out of the file and give it once, for all trials: ray_jobs.sweep FILE {path}=VALUE.",
            )
    swept_metric(spec, base)
    points = corners(spec) if spec.method == "bayes" else trial_values(spec, seed=seed)
    seen: dict[Experiment, str] = {}
    experiments: list[Experiment] = []
    for number, values in enumerate(itertools.islice(points, _MOST_CHECKED)):
        trial = new_trial(spec, base.storage, number, values)
        experiment = swept_experiment(spec, base, trial)
        # Whatever it is called: 1e-3 and 0.001 are one learning rate.
        other = seen.setdefault(dataclasses.replace(experiment, name=base.name, wandb=base.wandb), trial.name)
        if spec.method != "bayes" and len(seen) == len(experiments):
            twice = "comes twice" if other == trial.name else f"is {other} again"
            raise ConfigError(f"trial {trial.name}", f"{twice} in the {spec.method}", "Name every value once.")
        experiments.append(experiment)
    return experiments


def swept_experiment(spec: SweepSpec, base: Experiment, trial: Trial) -> Experiment:
    """Return a trial's experiment: the base with the trial's values, in a folder and under a W&B name of its own.

    Raises:
        ConfigError: A value does not fit; the message names the trial.
    """
    try:
        varied = override(base, as_settings(trial.values))
    except ConfigError as error:
        raise ConfigError(f"trial {trial.name}: {error.value}", error.limit, error.remedy) from error
    wandb = dataclasses.replace(
        varied.wandb,
        name=trial.name,
        group=varied.wandb.group or spec.name,
        project=spec.project or varied.wandb.project,
        entity=spec.entity or varied.wandb.entity,
    )
    return dataclasses.replace(varied, name=trial.run.removeprefix(f"{base.storage.rstrip('/')}/"), wandb=wandb)


def corners(spec: SweepSpec) -> Iterator[dict[str, Any]]:
    """Yield values that show each parameter at its ends, and every choice."""
    ends: dict[str, Sequence[Any]] = {
        path: parameter.values if isinstance(parameter, Choice) else (parameter.at(0.0), parameter.at(1.0))
        for path, parameter in spec.parameters.items()
    }
    first = {path: values[0] for path, values in ends.items()}
    yield first
    others: Iterable[tuple[str, Any]] = ((path, value) for path, values in ends.items() for value in values[1:])
    for path, value in others:
        yield {**first, path: value}
