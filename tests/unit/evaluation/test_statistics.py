import math

import numpy as np
import pytest

from echotrain.evaluation.statistics import bootstrap_interval, describe, group_statistics


def test_the_interval_agrees_with_the_normal_theory_on_many_values():
    values = np.random.default_rng(0).normal(30, 2, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    intervals = [bootstrap_interval(rng.normal(0, 1, 40), num_resamples=500) for _ in range(300)]
    assert 0.90 <= np.mean([low <= 0 <= high for low, high in intervals]) <= 0.98


def test_the_interval_is_the_same_at_every_call_and_wider_at_a_higher_level():
    values = [1.0, 2.0, 4.0, 8.0]
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values, level=0.99)[1] > bootstrap_interval(values, level=0.5)[1]


def test_one_volume_has_a_mean_and_no_spread():
    statistic = describe([3.0])
    assert (statistic.mean, statistic.n) == (3.0, 1)
    assert all(math.isnan(number) for number in (statistic.sd, statistic.low, statistic.high))


def test_the_spread_is_the_sample_standard_deviation():
    assert describe([1.0, 2.0, 3.0]).sd == pytest.approx(1.0)


def test_groups_are_all_volumes_then_each_anatomy_and_contrast(evaluation):
    groups = group_statistics(evaluation)
    assert [(g.kind, g.name, g.n) for g in groups] == [
        ("all", "All volumes", 8),
        ("anatomy", "brain", 2),
        ("anatomy", "knee", 6),
        ("contrast", "PD", 3),
        ("contrast", "PD_FS", 3),
        ("contrast", "T2", 2),
    ]
    brain = groups[1]
    assert (brain.of["model"]["psnr"].mean, brain.of["zero_filled"]["psnr"].mean, brain.gain["model"]["psnr"].mean) == (36, 30.5, 5.5)


def test_accelerations_are_listed_in_order_where_they_differ_and_nameless_groups_as_unknown(volume_result, evaluation_of):
    volumes = [volume_result(str(r), 30, acceleration=r, anatomy="", contrast=contrast) for r, contrast in ((16, "T1"), (4, ""), (8, "T1"))]
    names = [(g.kind, g.name) for g in group_statistics(evaluation_of(volumes))[1:]]
    assert names == [("contrast", "T1"), ("contrast", "unknown"), ("acceleration", "4×"), ("acceleration", "8×"), ("acceleration", "16×")]


def test_the_gain_is_paired_so_that_its_interval_ignores_how_volumes_differ(volume_result, evaluation_of):
    volumes = [volume_result(str(i), 20 + 2 * i, 5 + 0.01 * i) for i in range(10)]
    (overall, *_) = group_statistics(evaluation_of(volumes))
    assert overall.gain["model"]["psnr"].high - overall.gain["model"]["psnr"].low < 0.1
    assert overall.of["model"]["psnr"].high - overall.of["model"]["psnr"].low > 3


def test_perfect_images_on_both_sides_gain_nothing(volume_result, evaluation_of):
    (overall, *_) = group_statistics(evaluation_of([volume_result("a", float("inf")), volume_result("b", 30)]))
    assert overall.gain["model"]["psnr"].mean == pytest.approx(2.5)
    assert overall.of["model"]["psnr"].mean == float("inf")
