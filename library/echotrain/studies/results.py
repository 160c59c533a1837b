"""What is known of each model of a study."""

from collections.abc import Mapping, Sequence

from echotrain.evaluation.results import Evaluation
from echotrain.evaluation.statistics import mean_of_repeats
from echotrain.studies.study import Values
from echotrain.sweeps.trial import Trial

__all__ = ["StudyResults"]


class StudyResults:
    """The models of a study and their evaluations.

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
