"""From a sweep to its trials: the points of a grid, draws of a random search, and the name of each trial."""

import itertools
import json
import math
import re
import shlex
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from echotrain.errors import ConfigError
from echotrain.seeding import numpy_generator
from echotrain.setting_text import as_typed
from echotrain.sweeps.spec import SweepSpec

__all__ = ["as_settings", "as_shell_words", "draws", "first_new", "point_key", "short_names", "trial_name", "trial_values"]

_MAX_GRID = 100_000
# Draws after which a point is sought in order instead.
_MOST_DRAWS = 100


def trial_values(spec: SweepSpec, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the values of every trial of a list, a grid or a random search, by dotted path; always the same ones in the same order.

    A grid runs through the last parameter first. A random search draws trial ``n`` from (seed, n), again where an earlier trial has the
    same values, so that raising ``run_cap`` adds trials and changes none.

    Args:
        spec: The sweep; a Bayesian one has no trials before results.
        seed: Of a random search.

    Raises:
        ConfigError: The method needs results, or the grid has more than 100,000 points.
    """
    if spec.method == "bayes":
        raise ConfigError(f"sweep {spec.name}: method bayes", "has no trials before results", "Run it.")
    if spec.method == "list":
        yield from map(dict, spec.points)
        return
    if spec.method == "random":
        taken: set[str] = set()
        for number in range(spec.run_cap):
            values = first_new(spec, draws(spec, seed, number), taken)
            taken.add(point_key(values))
            yield values
        return
    axes = [parameter.listed() or () for parameter in spec.parameters.values()]
    size = math.prod(len(axis) for axis in axes)
    if size > _MAX_GRID:
        raise ConfigError(f"sweep {spec.name}: {size} points", f"a grid has at most {_MAX_GRID}", "Use method: random with a run_cap.")
    for point in itertools.islice(itertools.product(*axes), spec.run_cap or None):
        yield dict(zip(spec.parameters, point, strict=True))


def draws(spec: SweepSpec, seed: int, number: int) -> Iterator[dict[str, Any]]:
    """Yield random points for one trial without end: the second is for where the first is another trial's, and so on."""
    rng = numpy_generator(seed, "sweep", spec.name, number)
    while True:
        yield {path: parameter.at(float(rng.random())) for path, parameter in spec.parameters.items()}


def first_new(spec: SweepSpec, proposed: Iterable[dict[str, Any]], taken: Container[str]) -> dict[str, Any]:
    """Return the first proposed point that no trial has: two of the same values would be one run, in one folder.

    Args:
        spec: What is searched.
        proposed: Points; after a hundred of them in vain, the first that is left in the order of the file is taken.
        taken: ``point_key`` of the trials that there are.

    Raises:
        ConfigError: Numbers without steps lie so close that the same come again and again.
    """
    for values in itertools.chain(itertools.islice(proposed, _MOST_DRAWS), _in_order(spec)):
        if point_key(values) not in taken:
            return values
    raise ConfigError(f"sweep {spec.name}", "draws the same values again and again", "Lower run_cap, or widen the bounds.")


def point_key(values: Mapping[str, Any]) -> str:
    """Return what two trials of the same values have in common, and no others: 1, 1.0 and true are three values."""
    return json.dumps(values, sort_keys=True)


def _in_order(spec: SweepSpec) -> Iterator[dict[str, Any]]:
    """Yield every point that a search may draw, the last parameter first; none where there is no end of them."""
    axes = [(path, parameter.drawn() or ()) for path, parameter in spec.parameters.items()]
    for number in range(math.prod(len(axis) for _, axis in axes)):
        rest, point = number, {}
        for path, axis in reversed(axes):
            rest, place = divmod(rest, len(axis))
            point[path] = axis[place]
        yield {path: point[path] for path, _ in axes}


def as_settings(values: Mapping[str, Any]) -> list[str]:
    """Return values as ``dotted.path=value``, the way a person, or W&B's agent, would give them to ``ray_jobs.train``.

    A text is given as it is, so that the setting's own type says what it means; all else as JSON, whose words and numbers nothing reads
    differently.
    """
    return [f"{path}={as_typed(value)}" for path, value in values.items()]


def as_shell_words(values: Mapping[str, Any]) -> list[str]:
    """Return values as ``as_settings`` does, quoted so that a shell gives them on as they are."""
    return [f"{path}={_quoted(value)}" for path, value in values.items()]


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Return what each parameter is called in trial names: as few last parts of its path as tell it from the others."""
    names = {}
    for path in paths:
        parts = path.split(".")
        tails = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        names[path] = next((tail for tail in tails if sum(f".{other}".endswith(f".{tail}") for other in paths) == 1), path)
    return names


def trial_name(values: Mapping[str, Any], names: Mapping[str, str], *, is_exact: bool = False) -> str:
    """Return a trial's name, ``num_cascades=8 fraction=0.5 seed=1``: numbers have six digits, or with ``is_exact`` all that they have."""
    return " ".join(_named(names[path], value, is_exact=is_exact) for path, value in values.items())


def _quoted(value: Any) -> str:
    is_plain_text = isinstance(value, str) and not re.search(r'["\\$`!]', value)
    return f'"{value}"' if is_plain_text else shlex.quote(as_typed(value))


def _named(name: str, value: Any, *, is_exact: bool) -> str:
    """Write a value for a person to read, several settings of one group by their own names."""
    if isinstance(value, Mapping):
        return " ".join(_named(str(key), part, is_exact=is_exact) for key, part in value.items())
    if isinstance(value, list) and len(value) == 1:
        return _named(name, value[0], is_exact=is_exact)
    if isinstance(value, str):
        return f"{name}={value}"
    is_short = isinstance(value, float) and not is_exact
    return f"{name}={value:.6g}" if is_short else f"{name}={json.dumps(value, separators=(',', ':'))}"
