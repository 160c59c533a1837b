"""The parameters of a sweep: one class per distribution of W&B's format, each a way from the unit interval to values.

Source: W&B, "Define a sweep configuration", distributions. ``log_uniform`` bounds are natural exponents there and
``log_uniform_values`` bounds the values themselves; both become ``LogUniform`` over values.
"""

import itertools
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from echotrain.errors import ConfigError
from echotrain.setting_text import read_number

__all__ = ["Choice", "IntUniform", "LogNormal", "LogUniform", "Normal", "Parameter", "Uniform", "parse_parameter"]

# How far into the tails of a normal distribution the unit interval reaches: 4.8 standard deviations.
_TAIL = 1e-6
# Of a step, by which division may miss a bound that is a multiple.
_DUST = 1e-9
# No sweep comes to the end of more values than these.
_MOST_VALUES = 1 << 31


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Some values, equally likely or with given probabilities; a constant is a choice of one."""

    values: tuple[Any, ...]
    probabilities: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.values:
            raise ConfigError("values=[]", "must name at least one", "List the values to try.")
        if self.probabilities is None:
            return
        total = math.fsum(self.probabilities)
        if len(self.probabilities) != len(self.values) or min(self.probabilities) < 0 or not math.isclose(total, 1, abs_tol=1e-6):
            limit = f"must be {len(self.values)} numbers of at least 0 with sum 1"
            raise ConfigError(f"probabilities={list(self.probabilities)}", limit, "Give one per value.")

    def at(self, quantile: float) -> Any:
        """Return the value below which this share of all draws lies."""
        shares = self.probabilities or (1 / len(self.values),) * len(self.values)
        reached = itertools.accumulate(shares)
        return next((value for value, share in zip(self.values, reached, strict=True) if quantile < share), self.values[-1])

    def listed(self) -> Sequence[Any] | None:
        """Return every value."""
        return self.values

    def drawn(self) -> Sequence[Any] | None:
        """Return every value that a draw may give, each once."""
        likely = zip(self.values, self.probabilities or itertools.repeat(1.0), strict=False)
        return tuple({json.dumps(value, sort_keys=True): value for value, share in likely if share > 0}.values())


@dataclass(frozen=True, kw_only=True)
class IntUniform:
    """Integers from ``min`` to ``max``, both included."""

    min: int
    max: int

    def __post_init__(self) -> None:
        _check_order(self.min, self.max)

    def at(self, quantile: float) -> int:
        """Return the value below which this share of all draws lies."""
        return min(self.max, self.min + math.floor(quantile * (self.max - self.min + 1)))

    def where(self, value: float) -> float:
        """Return the middle of the quantiles that give a value."""
        return (value - self.min + 0.5) / (self.max - self.min + 1)

    def listed(self) -> Sequence[int] | None:
        """Return every value; None where there is as good as no end of them."""
        values = range(self.min, self.max + 1)
        return values if _has_end(values) else None

    def drawn(self) -> Sequence[int] | None:
        """Return every value that a draw may give, each once; None where there is as good as no end of them."""
        return self.listed()


@dataclass(frozen=True)
class _Multiples(Sequence[float]):
    """Multiples of a step from one to another, both by their number and included; made when they are asked for, however many."""

    numbers: range
    step: float

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        chosen = self.numbers[index]
        return _Multiples(chosen, self.step) if isinstance(chosen, range) else _multiple(chosen, self.step)

    def nearest(self, value: float) -> float:
        """Return the multiple that a value is rounded to."""
        return _multiple(min(max(round(value / self.step), self.numbers[0]), self.numbers[-1]), self.step)


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Numbers from ``min`` to ``max``; with ``q`` above 0 rounded to those of its multiples that lie there.

    W&B rounds to any multiple, and may leave the bounds by half a step: a bound of ours is one.
    """

    min: float
    max: float
    q: float = 0.0

    def __post_init__(self) -> None:
        _check_order(self.min, self.max)
        _check_step(self.q)
        if self.q and not self._multiples().numbers:
            raise ConfigError(f"q={self.q:g}", f"has no multiple from {self.min:g} to {self.max:g}", "Lower q, or widen the bounds.")

    def at(self, quantile: float) -> float:
        """Return the value below which this share of all draws lies."""
        return self._rounded(self.min + quantile * (self.max - self.min))

    def where(self, value: float) -> float:
        """Return the quantile of a value."""
        return _within_unit((value - self.min) / (self.max - self.min))

    def listed(self) -> Sequence[float] | None:
        """Return every value where they are rounded, else None."""
        return self.drawn()

    def drawn(self) -> Sequence[float] | None:
        """Return every value that a draw may give, each once; None where there is no end of them."""
        return self._multiples() if self.q and _has_end(self._multiples().numbers) else None

    def _multiples(self) -> _Multiples:
        least, most = math.ceil(self.min / self.q - _DUST), math.floor(self.max / self.q + _DUST)
        return _Multiples(range(least, most + 1), self.q)

    def _rounded(self, value: float) -> float:
        return self._multiples().nearest(value) if self.q else value


@dataclass(frozen=True, kw_only=True)
class LogUniform(Uniform):
    """Numbers from ``min`` to ``max`` whose logarithm is uniform; with ``q`` above 0 rounded to its multiples."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min <= 0:
            raise ConfigError(f"min={self.min}", "must be above 0 on a logarithmic scale", "Give a positive lower bound.")

    def at(self, quantile: float) -> float:
        """Return the value below which this share of all draws lies."""
        exact = self.min * (self.max / self.min) ** quantile
        return self._rounded(min(max(exact, self.min), self.max))

    def where(self, value: float) -> float:
        """Return the quantile of a value."""
        return _within_unit(math.log(max(value, self.min) / self.min) / math.log(self.max / self.min))

    def listed(self) -> None:
        """Return None: there is no end of them."""


@dataclass(frozen=True, kw_only=True)
class Normal:
    """Numbers around ``mu`` with standard deviation ``sigma``; with ``q`` above 0 rounded to its multiples."""

    mu: float = 0.0
    sigma: float = 1.0
    q: float = 0.0

    def __post_init__(self) -> None:
        _check_step(self.q)
        if self.sigma <= 0:
            raise ConfigError(f"sigma={self.sigma}", "must be above 0", "Give a standard deviation.")

    def at(self, quantile: float) -> float:
        """Return the value below which this share of all draws lies."""
        return _rounded(self._distribution().inv_cdf(min(max(quantile, _TAIL), 1 - _TAIL)), self.q)

    def where(self, value: float) -> float:
        """Return the quantile of a value."""
        return self._distribution().cdf(value)

    def listed(self) -> None:
        """Return None: there is no end of them."""

    def drawn(self) -> Sequence[float] | None:
        """Return every value that a draw may give, each once; None where there is no end of them."""
        if not self.q:
            return None
        least, most = (round(self.at(quantile) / self.q) for quantile in (0.0, 1.0))
        numbers = range(least, most + 1)
        return _Multiples(numbers, self.q) if _has_end(numbers) else None

    def _distribution(self) -> statistics.NormalDist:
        return statistics.NormalDist(self.mu, self.sigma)


@dataclass(frozen=True, kw_only=True)
class LogNormal(Normal):
    """Numbers whose natural logarithm is ``Normal``."""

    def at(self, quantile: float) -> float:
        """Return the value below which this share of all draws lies."""
        return _rounded(math.exp(self._distribution().inv_cdf(min(max(quantile, _TAIL), 1 - _TAIL))), self.q)

    def where(self, value: float) -> float:
        """Return the quantile of a value."""
        return self._distribution().cdf(math.log(value)) if value > 0 else 0.0


Parameter = Choice | IntUniform | Uniform | LogUniform | Normal | LogNormal


def parse_parameter(name: str, values: Mapping[str, Any]) -> Parameter:
    """Read one parameter of a W&B sweep.

    Args:
        name: For messages.
        values: Its entry in the file.

    Raises:
        ConfigError: It is of no kind that can be run, or contradicts itself.
    """
    try:
        return _parsed(values)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error.value}", error.limit, error.remedy) from error


def _parsed(values: Mapping[str, Any]) -> Parameter:
    kind = values.get("distribution") or _implied(values)
    maker = _KINDS.get(kind) if isinstance(kind, str) else None
    if maker is None:
        raise ConfigError(f"distribution {kind!r}", "cannot be run here", f"Use one of {', '.join(sorted(_KINDS))}.")
    takes = _keys_of(kind)
    ignored = sorted(set(map(str, values)) - {"distribution", *takes})
    if ignored:
        raise ConfigError(ignored[0], f"means nothing to distribution {kind}", f"Take it out: {kind} takes {', '.join(takes)}.")
    try:
        return maker({key: _number(key, value) if key in _NUMBERS else value for key, value in values.items()})
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        said = f"{kind} of {dict(values)}"
        raise ConfigError(said, f"is incomplete or of a wrong type ({error})", "See W&B's sweep configuration.") from error


def _keys_of(kind: str) -> tuple[str, ...]:
    """Return what a distribution is made of, besides its name."""
    if kind in _LISTS:
        return _LISTS[kind]
    ends = ("mu", "sigma") if kind.endswith("normal") else ("min", "max")
    return (*ends, "q") if kind.startswith("q_") else ends


def _number(key: str, value: Any) -> int | float:
    """Return a number of the file, which is a text where a person and YAML do not write it alike: ``1e-3``."""
    number = read_number(value, key) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or (key == "q" and number <= 0):
        limit = "must be above 0" if key == "q" else "must be a number"
        raise ConfigError(f"{key}: {value!r}", limit, f"Write it as, say, {key}: 0.5.")
    return number


def _values(values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list | tuple):
        raise ConfigError(f"values: {values!r}", "must be a list", f"Write values: [{values}].")
    if None in values:
        raise ConfigError(
            f"values: {list(values)}", "has an empty one, which is no value of a setting", 'Write null or "" in quotes, or leave it out.'
        )
    return tuple(values)


def _implied(values: Mapping[str, Any]) -> str:
    """Return the distribution that W&B takes where none is named."""
    if "value" in values:
        return "constant"
    if "values" in values:
        return "categorical_w_probabilities" if "probabilities" in values else "categorical"
    if {"min", "max"} <= set(values):
        are_whole = all(type(_number(key, values[key])) is int for key in ("min", "max"))
        return "int_uniform" if are_whole else "uniform"
    return ""


def _whole(value: float) -> int:
    if int(value) != value:
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


def _bounds(values: Mapping[str, Any], *, step: float = 0.0) -> dict[str, float]:
    return {"min": float(values["min"]), "max": float(values["max"]), "q": float(values.get("q", step))}


def _exponents(values: Mapping[str, Any], *, step: float = 0.0) -> dict[str, float]:
    bounds = _bounds(values, step=step)
    return {**bounds, "min": math.exp(bounds["min"]), "max": math.exp(bounds["max"])}


def _moments(values: Mapping[str, Any], *, step: float = 0.0) -> dict[str, float]:
    return {"mu": float(values.get("mu", 0.0)), "sigma": float(values.get("sigma", 1.0)), "q": float(values.get("q", step))}


_NUMBERS = ("min", "max", "q", "mu", "sigma")
_LISTS = {"constant": ("value",), "categorical": ("values",), "categorical_w_probabilities": ("values", "probabilities")}
_KINDS: dict[str, Callable[[Mapping[str, Any]], Parameter]] = {
    "constant": lambda values: Choice(values=_values([values["value"]])),
    "categorical": lambda values: Choice(values=_values(values["values"])),
    "categorical_w_probabilities": lambda values: Choice(
        values=_values(values["values"]), probabilities=tuple(float(_number("probabilities", part)) for part in values["probabilities"])
    ),
    "int_uniform": lambda values: IntUniform(min=_whole(values["min"]), max=_whole(values["max"])),
    "uniform": lambda values: Uniform(**_bounds(values)),
    "q_uniform": lambda values: Uniform(**_bounds(values, step=1.0)),
    "log_uniform": lambda values: LogUniform(**_exponents(values)),
    "q_log_uniform": lambda values: LogUniform(**_exponents(values, step=1.0)),
    "log_uniform_values": lambda values: LogUniform(**_bounds(values)),
    "q_log_uniform_values": lambda values: LogUniform(**_bounds(values, step=1.0)),
    "normal": lambda values: Normal(**_moments(values)),
    "q_normal": lambda values: Normal(**_moments(values, step=1.0)),
    "log_normal": lambda values: LogNormal(**_moments(values)),
    "q_log_normal": lambda values: LogNormal(**_moments(values, step=1.0)),
}


def _rounded(value: float, step: float) -> float:
    """Round to a multiple of ``step``, where there is one."""
    return _multiple(round(value / step), step) if step else value


def _multiple(number: int, step: float) -> float:
    """Return a multiple without the dust that multiplication leaves."""
    return round(number * step, 12)


def _has_end(numbers: range) -> bool:
    return numbers[-1] - numbers[0] < _MOST_VALUES


def _within_unit(quantile: float) -> float:
    """Rounding to multiples may have led just outside."""
    return min(max(quantile, 0.0), 1.0)


def _check_order(least: float, most: float) -> None:
    if not least < most or not math.isfinite(least) or not math.isfinite(most):
        raise ConfigError(f"min={least}, max={most}", "must be finite, the first below the second", "Swap or widen the bounds.")


def _check_step(step: float) -> None:
    if step < 0:
        raise ConfigError(f"q={step}", "must be above 0", "Give the step to round to.")
