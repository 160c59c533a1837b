"""The trials of one sweep: which are known, and which comes next."""

import dataclasses
import itertools
from collections.abc import Container, Mapping, Sequence
from typing import Any

from echotrain.sweeps.bayes import propose
from echotrain.sweeps.space import draws, first_new, point_key, trial_values
from echotrain.sweeps.spec import Metric, SweepSpec
from echotrain.sweeps.trial import SweepFolder, Trial, new_trial

__all__ = ["Book"]

# Of a Bayesian search for one trial, after which it draws at random: where few points are left, it would go for the best one again.
_MOST_PROPOSALS = 8


class Book:
    """Knows every trial, and writes down each change before anybody else hears of it.

    Trials of a list are known by their values: one that a longer list held before stays in the folder, and out of the book.

    Args:
        spec: What is swept.
        metric: What the trials are compared by.
        storage: Where the sweep's folder lies.
        folder: The sweep's folder; trials that it knows to have ended stay as they are, the others run again, from their checkpoints.
        seed: Of a random or a Bayesian search.
        retry_failed: Whether trials that failed run again.
        renamed: Present paths of settings that trials of a list may have been told by under old ones.
    """

    def __init__(
        self,
        spec: SweepSpec,
        metric: Metric,
        *,
        storage: str,
        folder: SweepFolder,
        seed: int = 0,
        retry_failed: bool = False,
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        self._spec = spec
        self._storage = storage
        self._folder = folder
        self._seed = seed
        self._listed = None if spec.method == "bayes" else list(trial_values(spec, seed=seed))
        again = ("waiting", "running", "failed") if retry_failed else ("waiting", "running")
        found = _in_folders_of_their_own(folder.trials(), again)
        if spec.method == "list":
            found = [_by_present_names(trial, renamed or {}) for trial in found]
        taken = {trial.number for trial in found}
        self._found = found
        self._free = (number for number in itertools.count() if number not in taken)
        self._trials = {
            trial.number: _as_new(trial) if trial.state in again else trial
            for trial in found
            if spec.method != "list" or trial.values in spec.points
        }
        self.metric = metric

    @property
    def uri(self) -> str:
        """URI of the sweep's folder."""
        return self._folder.uri

    @property
    def trials(self) -> Sequence[Trial]:
        """All known trials by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    @property
    def total(self) -> int:
        """How many trials the sweep has when it is done."""
        return self._spec.run_cap if self._listed is None else len(self._listed)

    @property
    def is_finished(self) -> bool:
        """Whether every trial has ended."""
        return len(self._trials) >= self.total and all(trial.has_ended for trial in self._trials.values())

    def trial(self, number: int) -> Trial:
        """Return a known trial."""
        return self._trials[number]

    def next(self) -> Trial | None:
        """Return the next trial, running from now on; None where there is none left to start."""
        waiting = next((trial for trial in self.trials if trial.state == "waiting"), None)
        if waiting is None and len(self._trials) < self.total:
            number = next(self._free)
            others = (*self._found, *self.trials)
            waiting = new_trial(self._spec, self._storage, number, self._values(number), others=others)
        if waiting is None:
            return None
        return self.update(dataclasses.replace(waiting, state="running"))

    def update(self, trial: Trial) -> Trial:
        """Remember what became of a trial, and return it."""
        self._folder.save(trial)
        self._trials[trial.number] = trial
        return trial

    def _values(self, number: int) -> dict[str, Any]:
        """Return the values of a new trial."""
        if self._listed is None:
            proposed = (propose(self._spec, self.metric, self.trials, seed=self._seed, again=again) for again in range(_MOST_PROPOSALS))
            taken = {point_key(trial.values) for trial in self.trials}
            return first_new(self._spec, itertools.chain(proposed, draws(self._spec, self._seed, number)), taken)
        if self._spec.method != "list":
            return self._listed[number]
        known = [trial.values for trial in self.trials]
        return next(values for values in self._listed if values not in known)


def _in_folders_of_their_own(trials: Sequence[Trial], again: Container[str]) -> list[Trial]:
    """Leave out trials that have not ended and would go on in another's folder; sweeps of before gave two the same one."""
    taken = {trial.run for trial in trials if trial.state not in again}
    kept = []
    for trial in trials:
        if trial.state not in again or trial.run not in taken:
            kept.append(trial)
        taken.add(trial.run)
    return kept


def _as_new(trial: Trial) -> Trial:
    """Return an interrupted trial as it is before its run tells again what it has done."""
    return dataclasses.replace(trial, state="waiting", curve=(), epoch=0, scores={}, reason="", wall_s=0.0, training_s=0.0)


def _by_present_names(trial: Trial, renamed: Mapping[str, str]) -> Trial:
    return dataclasses.replace(trial, values={renamed.get(path, path): value for path, value in trial.values.items()})
