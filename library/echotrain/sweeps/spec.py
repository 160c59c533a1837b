"""A sweep file, read: W&B's own format, so that ``wandb sweep`` takes the very same file.

The experiment stands in ``command``, as ``wandb agent`` would run it: ``… -m ray_jobs.train RECIPE key=value … ${args_no_hyphens}``.
Parameters are settings by their dotted paths; nested ``parameters`` are joined by dots. Whatever of W&B's format is not honoured here is
refused: a sweep that silently does less than its file says would be believed.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic_core import to_jsonable_python

from echotrain.errors import ConfigError
from echotrain.setting_text import read_number
from echotrain.sweeps.as_typed import load_as_typed
from echotrain.sweeps.parameters import Choice, Parameter, parse_parameter

__all__ = ["EPOCH", "Hyperband", "Metric", "SweepSpec", "parse_sweep", "read_sweep"]

# What the metrics of a validation are called in W&B begin with.
EPOCH = "epoch/"
_MODULE = "ray_jobs.train"
_METHODS = ("grid", "random", "bayes")
_MAX_BYTES = 1 << 20
_KEYS = {"name", "description", "method", "command", "parameters", "metric", "early_terminate", "run_cap", "project", "entity"}
# What W&B knows and we do not honour: what is to be done instead.
_INSTEAD = {
    "apiVersion": "Take it out: the format has one version here.",
    "kind": "Take it out: a file is a sweep.",
    "controller": "Take it out: python -m ray_jobs.sweep is the controller.",
    "program": "Take it out: command says what runs.",
    "job": "Take it out: python -m ray_jobs.launch sweep FILE runs it on a cluster.",
    "image_uri": "Take it out: the chart of the cluster says which image runs.",
    "metrics": "Name the one that trials are compared by: metric: {name: epoch/ssim, goal: maximize}.",
    "scheduler": "Use method: bayes (TPE), and early_terminate where trials that fall behind are to end.",
    "metric: target": "Take it out: a sweep ends with its grid or its run_cap; Ctrl-C ends it before, and its best trial is known.",
    "metric: impute": "Take it out: a Bayesian search counts no trial that failed.",
    "metric: impute_while_running": "Take it out: a Bayesian search counts trials under way as bad ones.",
    "early_terminate: strict": "Take it out: ASHA lets the best 1/eta of the trials that reach an epoch go on.",
}
# What stands before the module starts Python, which is done here by us.
_STARTERS = ("${env}", "${interpreter}", "/usr/bin/env", "env", "python", "python3", "-m")
_ARGUMENTS = "${args_no_hyphens}"
_DOCUMENTATION = "See W&B's sweep configuration."


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What is searched for, as the run logs it: ``epoch/ssim``."""

    name: str
    goal: Literal["minimize", "maximize"] = "minimize"

    def of(self, scores: Mapping[str, float]) -> float | None:
        """Return its value among the scores of an epoch; None where it is missing or not finite."""
        value = scores.get(self.name.removeprefix(EPOCH))
        return value if value is not None and math.isfinite(value) else None

    def best(self, values: Sequence[float]) -> float | None:
        """Return the best of some values; None of none."""
        return (max if self.goal == "maximize" else min)(values, default=None)


@dataclass(frozen=True, kw_only=True)
class Hyperband:
    """When a trial that falls behind is ended; iterations are epochs.

    Attributes:
        min_iter: The first epoch at which a trial may be ended.
        max_iter: From this one on none is; 0 leaves it to the length of a run.
        eta: Of so many trials that reach a bracket, one goes on.
    """

    min_iter: int = 1
    max_iter: int = 0
    eta: int = 3


@dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """What a sweep file says.

    Attributes:
        name: Of the sweep, and of the W&B group of its runs.
        recipe: The experiment that is varied.
        settings: ``dotted.path=value`` of every trial, from the command.
        method: How the space is searched; ``list`` runs the points, and is not of W&B's format.
        parameters: By dotted path, in the order of the file.
        points: The trials of a ``list``, each by dotted path.
        metric: None where nothing is compared: a grid need not.
        early_terminate: None lets every trial end by itself.
        run_cap: Trials at most; 0 has no limit.
        project: Of W&B; "" leaves the recipe's.
        entity: Likewise.
    """

    name: str
    recipe: str
    settings: tuple[str, ...] = ()
    method: Literal["grid", "random", "bayes", "list"]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    points: tuple[Mapping[str, Any], ...] = ()
    metric: Metric | None = None
    early_terminate: Hyperband | None = None
    run_cap: int = 0
    project: str = ""
    entity: str = ""

    def __post_init__(self) -> None:
        if not self.parameters:
            raise ConfigError(f"sweep {self.name}: parameters={{}}", "must name at least one", "Say what varies.")
        if self.method == "grid":
            for path, parameter in self.parameters.items():
                if parameter.listed() is None:
                    raise ConfigError(f"{path}: {parameter}", "has no end of values for a grid", "List values, or use method: random.")
        elif self.method != "list" and not self.run_cap:
            raise ConfigError(f"sweep {self.name}: method {self.method}", "would never end", "Set run_cap to the number of trials.")
        for path, parameter in self.parameters.items():
            if self.method != "random" and isinstance(parameter, Choice) and parameter.probabilities is not None:
                limit = f"mean nothing to method {self.method}, which tries every value as it sees fit"
                raise ConfigError(f"{path}: probabilities", limit, "Take them out, or use method: random with a run_cap.")
        if self.method in ("random", "bayes") and self.run_cap > self.num_points:
            limit = f"is more than the {self.num_points} different points that its parameters have, and no trial comes twice"
            remedy = f"Set run_cap: {self.num_points}, or add values."
            raise ConfigError(f"sweep {self.name}: run_cap {self.run_cap}", limit, remedy)
        if self.metric is None and (self.method == "bayes" or self.early_terminate is not None):
            raise ConfigError(
                f"sweep {self.name}", "compares trials but names no metric", "Set metric: {name: epoch/ssim, goal: maximize}."
            )

    @property
    def num_points(self) -> float:
        """How many different points a search may draw; infinite where there is no end of them."""
        drawn = [parameter.drawn() for parameter in self.parameters.values()]
        return math.prod(math.inf if values is None else len(values) for values in drawn)

    @classmethod
    def listed(cls, name: str, recipe: str, points: Sequence[Mapping[str, Any]]) -> "SweepSpec":
        """Return a sweep over given points: it may be given further ones later, and runs none again that it has run.

        Args:
            name: Of the sweep.
            recipe: What is varied, for people to read.
            points: By dotted path; they need not set the same paths.
        """
        plain: list[dict[str, Any]] = [to_jsonable_python(dict(point)) for point in points]
        paths = dict.fromkeys(path for point in plain for path in point)
        values = {path: tuple(point[path] for point in plain if path in point) for path in paths}
        parameters = {path: Choice(values=tuple(each)) for path, each in values.items()}
        return cls(name=name, recipe=recipe, method="list", parameters=parameters, points=tuple(plain))


def read_sweep(path: Path) -> SweepSpec:
    """Read a sweep file.

    Raises:
        ConfigError: There is none, it is no YAML, or says what cannot be run.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(str(path), f"is larger than {_MAX_BYTES} bytes", "Give a sweep file.")
        values = load_as_typed(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read ({error.strerror})", "Name a file such as sweeps/mosaic_scaling.yaml.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"is not YAML ({str(error).splitlines()[0]})", "Correct the file.") from error
    return parse_sweep(values, name=path.stem)


def parse_sweep(values: Any, *, name: str) -> SweepSpec:
    """Read a sweep from plain values.

    Args:
        values: The file's content.
        name: Taken where the file gives none.

    Raises:
        ConfigError: It says what cannot be run; every message names the key.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"sweep {name}", "must be a mapping", _DOCUMENTATION)
    _refuse_others(f"sweep {name}: ", values, _KEYS)
    method = values.get("method")
    if method not in _METHODS:
        raise ConfigError(f"sweep {name}: method {method!r}", f"must be one of {', '.join(_METHODS)}", "Set method: grid.")
    recipe, settings = _experiment(name, values.get("command", ()))
    return SweepSpec(
        name=_text(values, "name", name),
        recipe=recipe,
        settings=settings,
        method=method,
        parameters=_by_path(_parameters(values.get("parameters", {}), "")),
        metric=_metric(values["metric"]) if "metric" in values else None,
        early_terminate=_hyperband(values["early_terminate"]) if "early_terminate" in values else None,
        run_cap=_count("run_cap", values["run_cap"]) if "run_cap" in values else 0,
        project=_text(values, "project", ""),
        entity=_text(values, "entity", ""),
    )


def _refuse_others(where: str, values: Mapping[Any, Any], known: set[str], group: str = "") -> None:
    """Refuse keys that are not honoured; ``group`` is the key that these belong to, with a colon."""
    for key in values:
        if key not in known:
            remedy = _INSTEAD.get(f"{group}{key}", f"Use some of {', '.join(sorted(known))}.")
            raise ConfigError(f"{where}{group}{key}", "is no key that can be run here", remedy)


def _text(values: Mapping[str, Any], key: str, default: str) -> str:
    """Return a text of the file, as it stands there."""
    value = values.get(key, default)
    if value is None or isinstance(value, list | Mapping):
        raise ConfigError(f"{key}: {value!r}", "must be a text", f"Write a word, or leave {key} out.")
    return value if isinstance(value, str) else json.dumps(value)


def _experiment(name: str, command: Any) -> tuple[str, tuple[str, ...]]:
    """Return recipe and settings of a command such as ``[python, -m, ray_jobs.train, RECIPE, key=value, ${args_no_hyphens}]``."""
    words = [str(word) for word in command] if isinstance(command, Sequence) and not isinstance(command, str) else []
    at = words.index(_MODULE) if _MODULE in words else len(words)
    rest = words[at + 1 :]
    example = f"command: [${{env}}, python, -m, {_MODULE}, varnet_mosaic_x8, {_ARGUMENTS}]"
    plain = [word for word in rest if word != _ARGUMENTS]
    if not plain or "=" in plain[0] or plain[0].startswith("${"):
        raise ConfigError(f"sweep {name}: command {words}", f"must run {_MODULE} with a recipe", f"Write {example}.")
    ignored = [word for word in words[:at] if word not in _STARTERS] + [word for word in plain[1:] if word.startswith(("${", "-"))]
    if ignored:
        raise ConfigError(f"sweep {name}: command {ignored[0]}", "is no part of a command that can be run here", f"Write {example}.")
    if _ARGUMENTS not in rest:
        raise ConfigError(f"sweep {name}: command {words}", f"takes no parameters without {_ARGUMENTS}", f"Write {example}.")
    return plain[0], tuple(plain[1:])


def _by_path(parameters: Iterable[tuple[str, Parameter]]) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for path, parameter in parameters:
        if path in found:
            raise ConfigError(f"parameter {path}", "is given twice", "Write it once, nested or with dots.")
        found[path] = parameter
    return found


def _parameters(values: Any, prefix: str) -> Iterator[tuple[str, Parameter]]:
    """Yield every parameter by its dotted path."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"parameters of {prefix or 'the sweep'}: {values!r}", "must be a mapping", _DOCUMENTATION)
    for key, entry in values.items():
        path = f"{prefix}{key}"
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{path}: {entry!r}", "must be a mapping", f"Write {path}: {{values: [{entry}]}}.")
        if "parameters" in entry:
            _refuse_others(f"{path}: ", entry, {"parameters"})
            yield from _parameters(entry["parameters"], f"{path}.")
        else:
            yield path, parse_parameter(path, entry)


def _metric(values: Any) -> Metric:
    if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
        raise ConfigError(f"metric: {values!r}", "must have a name", "Write metric: {name: epoch/ssim, goal: maximize}.")
    _refuse_others("", values, {"name", "goal"}, "metric: ")
    goal = values.get("goal", "minimize")
    if goal not in ("minimize", "maximize"):
        raise ConfigError(f"metric: goal {goal!r}", "must be minimize or maximize", "Set goal: maximize for SSIM and PSNR.")
    return Metric(name=values["name"], goal=goal)


def _hyperband(values: Any) -> Hyperband:
    where = "early_terminate: "
    if not isinstance(values, Mapping) or values.get("type") != "hyperband":
        raise ConfigError(f"{where}{values!r}", "must be of type hyperband", "Write early_terminate: {type: hyperband, min_iter: 2}.")
    _refuse_others("", values, {"type", "min_iter", "max_iter", "s", "eta"}, where)
    eta = _count(f"{where}eta", values.get("eta", 3), least=2)
    if "min_iter" in values:
        ignored = [key for key in ("max_iter", "s") if key in values]
        if ignored:
            raise ConfigError(f"{where}{ignored[0]}", "means nothing beside min_iter", "Give min_iter, or max_iter and s.")
        return Hyperband(min_iter=_count(f"{where}min_iter", values["min_iter"]), eta=eta)
    if not {"max_iter", "s"} <= set(values):
        raise ConfigError(f"{where}{dict(values)}", "has neither min_iter nor max_iter and s", "Set min_iter to an epoch.")
    most, brackets = (_count(f"{where}{key}", values[key]) for key in ("max_iter", "s"))
    if most % eta**brackets:
        limit = f"must be a multiple of eta**s = {eta**brackets}, so that its brackets are whole epochs"
        raise ConfigError(f"{where}max_iter={most}", limit, f"Set max_iter: {eta**brackets}, lower s, or set min_iter.")
    # W&B's first bracket of s of them, each eta times as long as the one before.
    return Hyperband(min_iter=most // eta**brackets, max_iter=most, eta=eta)


def _count(what: str, value: Any, *, least: int = 1) -> int:
    number = read_number(value, what) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise ConfigError(f"{what} {value!r}", f"must be a whole number of at least {least}", "Correct the file.")
    return number
