"""Trials of a sweep: each point once, draws that a larger budget does not change, names that tell them apart."""

import itertools
import math
import shlex
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from echotrain.config import override
from echotrain.errors import ConfigError
from echotrain.seeding import numpy_generator
from echotrain.sweeps.parameters import Choice, IntUniform, LogNormal, LogUniform, Normal, Uniform
from echotrain.sweeps.space import as_settings, as_shell_words, short_names, trial_name, trial_values
from echotrain.sweeps.spec import Metric, SweepSpec

PARAMETERS = {
    "model.num_cascades": Choice(values=(4, 8)),
    "data.fraction": Choice(values=(0.1, 0.5, 1.0)),
    "seed": IntUniform(min=1, max=2),
}


def sweep(method="grid", **options):
    return SweepSpec(**{"name": "s", "recipe": "r", "method": method, "parameters": PARAMETERS, **options})


def test_a_grid_has_every_point_once_in_the_order_of_the_file():
    points = [tuple(point.values()) for point in trial_values(sweep())]
    assert points == list(itertools.product((4, 8), (0.1, 0.5, 1.0), (1, 2)))
    assert list(trial_values(sweep(run_cap=5))) == list(trial_values(sweep()))[:5]


def test_a_larger_budget_adds_random_trials_and_changes_none():
    few, many = (list(trial_values(sweep("random", run_cap=count), seed=3)) for count in (4, 9))
    assert many[:4] == few
    assert list(trial_values(sweep("random", run_cap=4), seed=4)) != few


def test_a_random_search_draws_every_point_of_a_small_space_and_none_twice():
    points = list(trial_values(sweep("random", run_cap=12), seed=5))
    assert sorted(tuple(point.values()) for point in points) == sorted(itertools.product((4, 8), (0.1, 0.5, 1.0), (1, 2)))
    rare = {"n": Normal(q=1.0, sigma=0.5), "kind": Choice(values=("a", "b", "c"), probabilities=(0.999999, 0.000001, 0.0))}
    assert len({tuple(point.values()) for point in trial_values(sweep("random", run_cap=10, parameters=rare))}) == 10


def test_a_draw_that_comes_once_is_what_it_always_was():
    rates = {"optim.lr": LogUniform(min=1e-5, max=1e-2), "seed": IntUniform(min=1, max=3)}
    before = [
        [parameter.at(rng.random()) for parameter in rates.values()] for rng in (numpy_generator(7, "sweep", "s", n) for n in range(9))
    ]
    assert [list(point.values()) for point in trial_values(sweep("random", run_cap=9, parameters=rates), seed=7)] == before


def test_values_that_only_python_takes_for_equal_are_several():
    parameters = {"flag": Choice(values=(1, True, 1.0, "1"))}
    points = trial_values(sweep("random", run_cap=4, parameters=parameters))
    assert {repr(point["flag"]) for point in points} == {"1", "True", "1.0", "'1'"}


@given(st.integers(-99, 99), st.integers(1, 99), st.integers(1, 40), st.floats(0, 1), st.booleans())
def test_a_rounded_number_never_leaves_its_bounds(least, width, step, quantile, is_logarithmic):
    least, width, step = (abs(least) + 1 if is_logarithmic else least) / 8, width / 8, step / 8
    kind = LogUniform if is_logarithmic else Uniform
    if math.floor((least + width) / step) < math.ceil(least / step):
        with pytest.raises(ConfigError, match="has no multiple"):
            kind(min=least, max=least + width, q=step)
        return
    parameter = kind(min=least, max=least + width, q=step)
    value = parameter.at(quantile)
    assert least <= value <= least + width
    assert value / step == round(value / step)
    assert value in list(parameter.drawn())


def test_a_space_beyond_any_memory_is_not_written_down():
    wide = {"seed": IntUniform(min=0, max=2**62), "rate": Uniform(min=0, max=1e9, q=1e-6), "count": IntUniform(min=0, max=2**30)}
    assert len(list(trial_values(sweep("random", run_cap=3, parameters=wide)))) == 3
    with pytest.raises(ConfigError, match="a grid has at most 100000"):
        next(trial_values(sweep(parameters={"count": wide["count"]})))


@pytest.mark.parametrize(
    "parameter",
    [
        Choice(values=("a", "b"), probabilities=(0.25, 0.75)),
        IntUniform(min=-1, max=1),
        Uniform(min=0, max=1, q=0.25),
        LogUniform(min=1e-4, max=1e-2),
        Normal(mu=3, sigma=0.5),
        LogNormal(mu=0, sigma=0.1, q=0.1),
    ],
    ids=lambda parameter: type(parameter).__name__,
)
def test_draws_follow_their_distribution(parameter):
    rng = np.random.default_rng(0)
    draws = [parameter.at(rng.random()) for _ in range(4000)]
    if isinstance(parameter, Choice):
        assert draws.count("b") / 4000 == pytest.approx(0.75, abs=0.03)
    elif parameter.listed() is not None:
        assert set(draws) == set(parameter.listed())
    elif isinstance(parameter, LogUniform):
        assert np.log10(draws).mean() == pytest.approx(-3, abs=0.05)
        assert min(draws) >= 1e-4
        assert max(draws) <= 1e-2
    elif isinstance(parameter, LogNormal):
        assert np.median(draws) == pytest.approx(1, abs=0.05)
        assert all(draw == round(draw, 1) for draw in draws)
    else:
        assert (np.mean(draws), np.std(draws)) == pytest.approx((3, 0.5), abs=0.05)


def test_names_are_short_and_tell_trials_apart():
    names = short_names(["model.num_cascades", "data.mask.seed", "seed", "optim.lr"])
    assert names == {"model.num_cascades": "num_cascades", "data.mask.seed": "mask.seed", "seed": "seed", "optim.lr": "lr"}
    points = list(trial_values(sweep()))
    found = [trial_name(point, short_names(list(point))) for point in points]
    assert found[0] == "num_cascades=4 fraction=0.1 seed=1"
    assert len(set(found)) == len(points)


def test_several_settings_of_one_group_are_named_by_themselves():
    values = {"data.mask.kind": "magic", "data.mask": {"accelerations": [8], "center_fractions": [0.04]}, "data.anatomies": ["knee", "hip"]}
    assert trial_name(values, short_names(list(values))) == 'kind=magic accelerations=8 center_fractions=0.04 anatomies=["knee","hip"]'


@dataclass(frozen=True, kw_only=True)
class Settings:
    text: str = "x"
    rate: float = 1.0
    count: int = 1
    flag: bool = False
    names: tuple[str, ...] = ()
    rates: tuple[float, ...] = ()


texts = st.one_of(st.sampled_from(["true", "1e3", "no", "null", "12:30", "/data #2", "[a]", "'a'", "", 'a"b']), st.text())
points = st.fixed_dictionaries(
    {},
    optional={
        "text": texts,
        "rate": st.floats(1e-3, 1e3),
        "count": st.integers(-(2**31), 2**31),
        "flag": st.booleans(),
        "names": st.lists(texts, max_size=3),
        "rates": st.lists(st.floats(1e-3, 1e3), max_size=3),
    },
)


@given(points)
def test_settings_give_back_the_very_values_to_us_and_through_a_shell(point):
    expected = Settings(**{path: tuple(value) if isinstance(value, list) else value for path, value in point.items()})
    assert override(Settings(), as_settings(point)) == expected
    assert override(Settings(), shlex.split(" ".join(as_shell_words(point)))) == expected


@given(points)
def test_wandbs_agent_gives_a_trial_the_values_that_we_do(point):
    point = {path: value for path, value in point.items() if path != "names" or "\\" not in repr(value)}
    command = {"args": {path: {"value": value} for path, value in point.items()}}
    words = create_sweep_command_args(command)["args_no_hyphens"]
    assert override(Settings(), words) == override(Settings(), as_settings(point))


def test_what_has_no_trials_to_list_is_refused():
    with pytest.raises(ConfigError, match="no trials before results"):
        next(trial_values(sweep("bayes", run_cap=3, metric=Metric(name="epoch/ssim", goal="maximize"))))
    large = {f"p{index}": IntUniform(min=1, max=10) for index in range(6)}
    with pytest.raises(ConfigError, match="1000000 points: a grid has at most 100000"):
        next(trial_values(sweep(parameters=large)))
