"""Bayesian search by Optuna's TPE, as a pure function: what is proposed follows from the trials so far, and from nothing else.

Source: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011; Optuna's ``TPESampler``. W&B's own service fits a
Gaussian process instead, so the same file proposes other trials there.
"""

from collections.abc import Sequence
from typing import Any

from echotrain.seeding import derive_seed
from echotrain.sweeps.parameters import Choice
from echotrain.sweeps.spec import Metric, SweepSpec
from echotrain.sweeps.trial import Trial

__all__ = ["propose"]

_MOST_RANDOM = 10
_LEAST_RANDOM = 3


def propose(spec: SweepSpec, metric: Metric, trials: Sequence[Trial], *, seed: int = 0, again: int = 0) -> dict[str, Any]:
    """Return the values of the next trial.

    The sampler draws from (seed, number of the trial), so a search that was killed goes on as it would have. The first quarter of
    the budget, three to ten trials, is random. Trials under way count as bad ones, so that two at a time do not try the same; one that
    was stopped early counts by the epoch it reached.

    Args:
        spec: What is searched.
        metric: What counts.
        trials: All trials so far.
        seed: Of the search.
        again: How many proposals for this trial were another's values.
    """
    import optuna  # A third of a second that a grid need not wait for.

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space: dict[str, optuna.distributions.BaseDistribution] = {
        path: optuna.distributions.CategoricalDistribution(range(len(parameter.values)))
        if isinstance(parameter, Choice)
        else optuna.distributions.FloatDistribution(0.0, 1.0)
        for path, parameter in spec.parameters.items()
    }
    num_random = min(_MOST_RANDOM, max(_LEAST_RANDOM, spec.run_cap // 4))
    sampler = optuna.samplers.TPESampler(
        seed=derive_seed(seed, "sweep", spec.name, len(trials), *([again] if again else [])) % 2**32,
        n_startup_trials=num_random,
        constant_liar=True,
    )
    study = optuna.create_study(direction=metric.goal, sampler=sampler)
    for trial in trials:
        result = _result(trial, metric)
        study.add_trial(optuna.trial.create_trial(params=_coordinates(spec, trial.values), distributions=space, **result))
    drawn = study.ask(space).params
    return {
        path: parameter.values[drawn[path]] if isinstance(parameter, Choice) else parameter.at(drawn[path])
        for path, parameter in spec.parameters.items()
    }


def _result(trial: Trial, metric: Metric) -> dict[str, Any]:
    """Return what Optuna is to know of a trial's result."""
    from optuna.trial import TrialState

    score = trial.score(metric)
    if not trial.has_ended:
        return {"state": TrialState.RUNNING}
    if trial.state == "failed" or score is None:
        return {"state": TrialState.FAIL}
    if trial.state == "stopped":
        return {"state": TrialState.PRUNED, "value": score, "intermediate_values": dict(trial.curve)}
    return {"state": TrialState.COMPLETE, "value": score}


def _coordinates(spec: SweepSpec, values: dict[str, Any]) -> dict[str, Any]:
    """Return values as Optuna sees them: the index of a choice, the quantile of anything else."""
    return {
        path: parameter.values.index(values[path]) if isinstance(parameter, Choice) else parameter.where(values[path])
        for path, parameter in spec.parameters.items()
    }
