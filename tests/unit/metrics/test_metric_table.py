"""Every metric that anything reports is known: its digits, its title, and which way is better."""

import pytest

from echotrain.errors import ConfigError
from echotrain.metrics.table import METRICS, drawn, find_metric, in_order
from echotrain.recipes.registry import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_the_metrics_of_every_recipe_are_known_and_its_score_is_one_of_them(name):
    task = RECIPES[name]().task.build()
    assert set(in_order(task.metrics)) == set(task.metrics)
    assert task.score in task.metrics


@pytest.mark.parametrize(("name", "goal"), [("psnr", "maximize"), ("ssim", "maximize"), ("nmse", "minimize"), ("accuracy", "maximize")])
def test_a_search_goes_where_the_metric_is_better(name, goal):
    entry = find_metric(name)
    assert entry.goal == goal
    better, worse = (2.0, 1.0) if goal == "maximize" else (1.0, 2.0)
    assert entry.sign * better > entry.sign * worse


@pytest.mark.parametrize("ask", [find_metric, lambda name: in_order(["ssim", name])])
def test_a_metric_without_an_entry_is_refused_and_the_nearest_named(ask):
    with pytest.raises(ConfigError, match=r"metric 'ssmi': is none of psnr, ssim, nmse.*Did you mean 'ssim'"):
        ask("ssmi")


def test_metrics_are_shown_in_one_order_whatever_order_they_come_in():
    names = list(METRICS)
    assert in_order([*names[::-1], *names]) == tuple(names)


def test_charts_show_what_follows_from_nothing_else_and_never_nothing():
    assert drawn(("psnr", "ssim", "nmse")) == ("psnr", "ssim")
    assert drawn(("nmse",)) == ("nmse",)


def test_units_stand_in_headings_and_behind_numbers():
    assert (find_metric("psnr").heading, find_metric("psnr").with_unit("31.2")) == ("PSNR (dB)", "31.2 dB")
    assert (find_metric("nmse").heading, find_metric("nmse").with_unit("0.1")) == ("NMSE", "0.1")
