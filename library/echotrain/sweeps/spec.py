"""A sweep file, read: W&B's own format, so that ``wandb sweep`` takes the very same file.

The experiment stands in ``command``, as ``wandb agent`` would run it: ``… -m ray_jobs.train RECIPE key=value … ${args_no_hyphens}``.
Parameters are settings by their dotted paths; nested ``parameters`` are joined by dots.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic_core import to_jsonable_python

from echotrain.errors import ConfigError
from echotrain.sweeps.parameters import Choice, Parameter, parse_parameter

__all__ = ["EPOCH", "Hyperband", "Metric", "SweepSpec", "parse_sweep", "read_sweep"]

# What the metrics of a validation are called in W&B begin with.
EPOCH = "epoch/"
_MODULE = "ray_jobs.train"
_METHODS = ("grid", "random", "bayes")
_MAX_BYTES = 1 << 20
_KEYS = {"name", "description", "method", "command", "program", "parameters", "metric", "early_terminate", "run_cap", "project", "entity"}
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
        max_iter: The last one; 0 leaves it to the length of a run.
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
        if self.metric is None and (self.method == "bayes" or self.early_terminate is not None):
            raise ConfigError(
                f"sweep {self.name}", "compares trials but names no metric", "Set metric: {name: epoch/ssim, goal: maximize}."
            )

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
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
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
    unknown = sorted(set(map(str, values)) - _KEYS)
    if unknown:
        raise ConfigError(f"sweep {name}: {unknown[0]}", "is no key that can be run here", f"Use some of {', '.join(sorted(_KEYS))}.")
    method = values.get("method")
    if method not in _METHODS:
        raise ConfigError(f"sweep {name}: method {method!r}", f"must be one of {', '.join(_METHODS)}", "Set method: grid.")
    recipe, settings = _experiment(name, values.get("command", ()))
    return SweepSpec(
        name=str(values.get("name", name)),
        recipe=recipe,
        settings=settings,
        method=method,
        parameters=dict(_parameters(values.get("parameters", {}), "")),
        metric=_metric(values["metric"]) if "metric" in values else None,
        early_terminate=_hyperband(values["early_terminate"]) if "early_terminate" in values else None,
        run_cap=_count("run_cap", values["run_cap"]) if "run_cap" in values else 0,
        project=str(values.get("project", "")),
        entity=str(values.get("entity", "")),
    )


def _experiment(name: str, command: Any) -> tuple[str, tuple[str, ...]]:
    """Return recipe and settings of a command such as ``[python, -m, ray_jobs.train, RECIPE, key=value, ${args_no_hyphens}]``."""
    words = [str(word) for word in command] if isinstance(command, Sequence) and not isinstance(command, str) else []
    rest = words[words.index(_MODULE) + 1 :] if _MODULE in words else []
    plain = [word for word in rest if not word.startswith("${")]
    if not plain or "=" in plain[0]:
        example = "command: [${env}, python, -m, ray_jobs.train, varnet_mosaic_x8, ${args_no_hyphens}]"
        raise ConfigError(f"sweep {name}: command {words}", f"must run {_MODULE} with a recipe", f"Write {example}.")
    return plain[0], tuple(plain[1:])


def _parameters(values: Any, prefix: str) -> Iterator[tuple[str, Parameter]]:
    """Yield every parameter by its dotted path."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"parameters of {prefix or 'the sweep'}: {values!r}", "must be a mapping", _DOCUMENTATION)
    for key, entry in values.items():
        path = f"{prefix}{key}"
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{path}: {entry!r}", "must be a mapping", f"Write {path}: {{values: [{entry}]}}.")
        if "parameters" in entry:
            yield from _parameters(entry["parameters"], f"{path}.")
        else:
            yield path, parse_parameter(path, entry)


def _metric(values: Any) -> Metric:
    if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
        raise ConfigError(f"metric: {values!r}", "must have a name", "Write metric: {name: epoch/ssim, goal: maximize}.")
    goal = values.get("goal", "minimize")
    if goal not in ("minimize", "maximize"):
        raise ConfigError(f"metric: goal {goal!r}", "must be minimize or maximize", "Set goal: maximize for SSIM and PSNR.")
    return Metric(name=values["name"], goal=goal)


def _hyperband(values: Any) -> Hyperband:
    if not isinstance(values, Mapping) or values.get("type") != "hyperband":
        raise ConfigError(
            f"early_terminate: {values!r}", "must be of type hyperband", "Write early_terminate: {type: hyperband, min_iter: 2}."
        )
    eta = _count("early_terminate: eta", values.get("eta", 3))
    if "min_iter" in values:
        return Hyperband(min_iter=_count("early_terminate: min_iter", values["min_iter"]), eta=eta)
    if not {"max_iter", "s"} <= set(values):
        raise ConfigError(f"early_terminate: {dict(values)}", "has neither min_iter nor max_iter and s", "Set min_iter to an epoch.")
    most, brackets = (_count(f"early_terminate: {key}", values[key]) for key in ("max_iter", "s"))
    # W&B's first bracket of s of them, each eta times as long as the one before.
    return Hyperband(min_iter=max(1, most // eta**brackets), max_iter=most, eta=eta)


def _count(what: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{what} {value!r}", "must be a whole number of at least 1", "Correct the file.")
    return value
