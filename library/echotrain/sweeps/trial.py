"""What became of each trial of a sweep, and the folder that remembers it.

``sweep.json`` says what is swept, ``trials/00003.json`` what is known of trial 3. Each is one object, written whole, by the sweep's driver
alone: whatever kills it, the next one finds every trial either as it was or as it is.
"""

import dataclasses
import json
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from echotrain.config import fingerprint, to_dict
from echotrain.errors import ObjectMissingError, PayloadError
from echotrain.storage.bounded_read import read_json
from echotrain.storage.store import Store
from echotrain.sweeps.space import short_names, trial_name
from echotrain.sweeps.spec import Metric, SweepSpec

__all__ = ["SweepFolder", "Trial", "TrialState", "folder_name", "new_trial"]

TrialState = Literal["waiting", "running", "finished", "stopped", "failed"]

_DESCRIPTION = "sweep.json"
_LONGEST = 120
_LARGEST = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One experiment of a sweep.

    Attributes:
        number: From 0, in the order of the search.
        name: ``num_cascades=8 fraction=0.5 seed=1``.
        values: Settings that make it, by dotted path.
        run: URI of the run's folder.
        state: ``stopped`` is by early termination; a trial that was interrupted is ``running`` still.
        curve: (epochs done, metric) of each validation.
        epoch: Epochs done when ``scores`` were best by the sweep's metric; 0 before a validation.
        scores: All validation metrics of that epoch.
        reason: Why it failed.
        wall_s: From the trial's start to its end, without earlier starts.
        training_s: Of that, between the first step's preparation and the end.
    """

    number: int
    name: str
    values: dict[str, Any]
    run: str
    state: TrialState = "waiting"
    curve: tuple[tuple[int, float], ...] = ()
    epoch: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    wall_s: float = 0.0
    training_s: float = 0.0

    @property
    def has_ended(self) -> bool:
        """Whether a resumed sweep leaves it alone."""
        return self.state in ("finished", "stopped", "failed")

    def score(self, metric: Metric) -> float | None:
        """Return its best value of the metric; None before a validation."""
        return metric.best([value for _, value in self.curve])

    def validated(self, metric: Metric, epochs: int, scores: Mapping[str, float]) -> "Trial":
        """Return the trial with one more validation; one that came before, of a run that was resumed, counts once."""
        value = metric.of(scores)
        if value is None or any(epochs == known for known, _ in self.curve):
            return self
        further = dataclasses.replace(self, curve=(*self.curve, (epochs, value)))
        is_better = further.score(metric) != self.score(metric)
        return dataclasses.replace(further, epoch=epochs, scores=dict(scores)) if is_better else further


_TRIAL = TypeAdapter(Trial)


class SweepFolder:
    """Where a sweep remembers itself.

    Args:
        store: The sweep's folder; the runs lie in it too.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def uri(self) -> str:
        """The folder's URI."""
        return self._store.uri

    def description(self) -> dict[str, Any] | None:
        """Return what ``describe`` wrote; None where there is no sweep yet."""
        try:
            found: dict[str, Any] = _parsed(self._store, _DESCRIPTION)
        except ObjectMissingError:
            return None
        return found

    def describe(self, description: Mapping[str, Any]) -> None:
        """Say what is swept."""
        self._store.write(_DESCRIPTION, json.dumps(description, indent=1).encode())

    def save(self, trial: Trial) -> None:
        """Remember a trial."""
        self._store.write(f"trials/{trial.number:05d}.json", json.dumps(to_dict(trial), indent=1).encode())

    def trials(self) -> list[Trial]:
        """Return the known trials by number.

        Raises:
            PayloadError: One of them is damaged.
        """
        trials = []
        for info in self._store.list("trials/"):
            try:
                trials.append(_TRIAL.validate_python(_parsed(self._store, info.key)))
            except ValidationError as error:
                said = error.errors()[0]["msg"]
                raise PayloadError(f"{self.uri}/{info.key}", f"is no trial ({said})", "Remove it; the trial runs again.") from error
        return sorted(trials, key=lambda trial: trial.number)

    def write(self, key: str, data: bytes) -> None:
        """Write a further object, a table of results say."""
        self._store.write(key, data)


def new_trial(spec: SweepSpec, storage: str, number: int, values: dict[str, Any], *, others: Iterable[Trial] = ()) -> Trial:
    """Return a trial that has not started, in a folder of its own.

    Args:
        spec: The sweep.
        storage: Where the sweep's folder lies.
        number: From 0.
        values: By dotted path.
        others: Trials that there are: whose numbers would read like theirs is named by all of its digits.
    """
    names, others = short_names(list(spec.parameters)), tuple(others)
    name = trial_name(values, names)
    if any(name == other.name for other in others):
        name = trial_name(values, names, is_exact=True)
    folder = folder_name(name, values, {other.run.rpartition("/")[2] for other in others})
    return Trial(number=number, name=name, values=values, run=f"{storage.rstrip('/')}/{spec.name}/{folder}")


def folder_name(name: str, values: Mapping[str, Any], taken: Container[str] = ()) -> str:
    """Return a trial's name as a folder: short, not taken, and of characters that neither a shell nor a URL takes amiss."""
    plain = re.sub(r"[^A-Za-z0-9=.,_+-]+", "-", name.replace(" ", ","))
    if plain == name.replace(" ", ",") and len(plain) <= _LONGEST and plain not in taken:
        return plain
    return f"{plain[:_LONGEST].strip('-')}-{fingerprint(values)}"


def _parsed(store: Store, key: str) -> Any:
    try:
        return read_json(store, key, _LARGEST)
    except ValueError as error:
        remedy = "Remove it; what it described runs again."
        raise PayloadError(f"{store.uri}/{key}", f"is not JSON ({error})", remedy) from error
