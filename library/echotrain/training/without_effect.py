"""What somebody says of a sweep that no trial would follow: a run that silently does less than it was told would be believed."""

import itertools
import logging
from collections.abc import Iterable, Sequence

from echotrain.config import override, parse_assignment
from echotrain.errors import ConfigError
from echotrain.sweeps.space import as_settings, trial_values
from echotrain.sweeps.spec import SweepSpec
from echotrain.sweeps.trial import new_trial
from echotrain.training.experiment import Experiment
from echotrain.training.swept import corners, swept_experiment

__all__ = ["check_given", "warn_of_idle_rule"]

logger = logging.getLogger(__name__)

# Of a random search, whose corners need not come up.
_MOST_DRAWN = 100


def check_given(spec: SweepSpec, base: Experiment, given: Sequence[str], *, seed: int = 0) -> None:
    """Refuse a setting of all trials that some trial has otherwise.

    Args:
        spec: The sweep, not a list.
        base: The experiment that is varied, with the settings.
        given: ``dotted.path=value`` of every trial: of the file's command, then of the command line. The later one of a path counts.
        seed: Of a random search.

    Raises:
        ConfigError: The sweep varies it as well, or says it itself.
    """
    by_path = {parse_assignment(setting)[0]: setting for setting in given}
    by_path.pop("name", None)  # It is the sweep's own.
    settings = list(by_path.values())
    points = itertools.islice(trial_values(spec, seed=seed), _MOST_DRAWN) if spec.method == "random" else corners(spec)
    for number, values in enumerate(points):
        trial = new_trial(spec, base.storage, number, values)
        varied = swept_experiment(spec, base, trial)
        if override(varied, settings) == varied:
            continue
        beaten = next((each for each in settings if _differs(varied, each)), settings[-1])
        paths = [path for path, value in values.items() if _differs(override(base, as_settings({path: value})), beaten)]
        by = f"parameter {', '.join(paths)} is varied" if paths else "the sweep says another itself"
        remedy = f"Take {parse_assignment(beaten)[0]} out of the command, or {', '.join(paths) or 'what beats it'} out of the sweep."
        raise ConfigError(beaten, f"has no effect in trial {trial.name}: {by}", remedy)


def warn_of_idle_rule(spec: SweepSpec, trials: Iterable[Experiment]) -> None:
    """Warn where no trial is long enough to be ended early."""
    rule, longest = spec.early_terminate, max((trial.epochs for trial in trials), default=0)
    if rule is not None and rule.min_iter >= longest:
        logger.warning(
            "early_terminate: no trial is ended before epoch %d, and none is longer than epochs=%d; lower min_iter, or raise epochs",
            rule.min_iter,
            longest,
        )


def _differs(experiment: Experiment, setting: str) -> bool:
    return override(experiment, [setting]) != experiment
