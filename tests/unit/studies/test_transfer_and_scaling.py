"""Transfer matrices and scaling curves: who is tested on what, what is outlined, and what repeats count."""

import dataclasses

import numpy as np
import pytest

from echotrain.errors import ConfigError
from echotrain.evaluation.results import Evaluation, EvaluationInfo, MethodInfo, VolumeAttributes, VolumeResult
from echotrain.evaluation.scaling import ScalingPoint, scaling_chart, scaling_table
from echotrain.evaluation.transfer import transfer_chart, transfer_matrix, transfer_table

METHODS = {"zero_filled": MethodInfo(), "model": MethodInfo()}
TESTS = {"spine": 3, "knee": 2, "hip": 1}


def evaluation(psnr_of):
    """Return the evaluation of a model whose PSNR on a group's n-th volume is ``psnr_of(group) + n``."""
    zero = {"nmse": 0.1, "psnr": 20.0, "ssim": 0.5}
    volumes = [
        VolumeResult(
            dataset="d",
            volume=f"{group}{number}",
            attributes=VolumeAttributes(group, "T1", 4.0),
            num_slices=2,
            scores={"zero_filled": zero, "model": {"nmse": 0.01, "psnr": psnr_of(group) + number, "ssim": 0.9}},
        )
        for group, count in TESTS.items()
        for number in range(count)
    ]
    return Evaluation(info=EvaluationInfo(name="m"), methods=METHODS, volumes=tuple(volumes))


def anatomy(attributes):
    return attributes.anatomy


GROUPS = {name: lambda v, name=name: v.attributes.anatomy == name for name in ("spine", "knee", "hip", "foot")}


@pytest.fixture
def matrix():
    models = {
        "knee": {"spine": 30.0, "knee": 38.0, "hip": 33.5},
        "all": {"spine": 41.0, "knee": 42.0, "hip": 40.0},
        "spine": {"spine": 40.0, "knee": 37.1, "hip": 34.6},
        "hip": {"spine": 39.1, "knee": 20.0, "hip": 34.0},
    }
    return transfer_matrix({name: evaluation(psnr.get) for name, psnr in models.items()}, GROUPS, metric="psnr")


def test_rows_and_columns_come_as_the_groups_and_the_model_of_everything_last(matrix):
    assert matrix.tests == ("spine", "knee", "hip")
    assert matrix.trainings == ("spine", "knee", "hip", "all")
    assert matrix.means[0] == pytest.approx([41.0, 31.0, 40.1, 42.0])


def test_what_is_within_one_decibel_of_the_best_single_is_outlined_and_everything_never_is(matrix):
    assert matrix.near_best().tolist() == [[True, False, True, False], [True, True, False, False], [True, False, True, False]]
    assert matrix.deficits[0] == pytest.approx([1.0, 11.0, 1.9, 0.0])


def test_the_table_stars_what_the_figure_outlines(matrix):
    table = transfer_table(matrix)
    assert table.columns == ("Tested on (n)", "trained on\nspine", "trained on\nknee", "trained on\nhip", "trained on\nall")
    assert table.sections[0].rows[1] == ("knee (2)", "37.60 ± 0.71*", "38.50 ± 0.71*", "20.50 ± 0.71", "42.50 ± 0.71")
    chart = transfer_chart(matrix, "PSNR (dB)")
    assert b"<!-- knee (2) -->" in chart.light
    assert b"<!-- 38.5 -->" in chart.light


def test_models_of_other_volumes_make_no_matrix():
    few = evaluation(lambda group: 30.0)
    few = dataclasses.replace(few, volumes=few.volumes[:2])
    with pytest.raises(ConfigError, match="models trained on a and on b: were evaluated on different volumes"):
        transfer_matrix({"a": evaluation(lambda group: 30.0), "b": few}, GROUPS, metric="psnr")
    with pytest.raises(ConfigError, match="a transfer matrix of no models"):
        transfer_matrix({}, GROUPS, metric="psnr")


def test_repeats_are_averaged_by_volume_before_their_spread_is_taken():
    points = [ScalingPoint(panel="8 cascades", x=0.5, evaluation=evaluation(lambda group, s=seed: 30.0 + 2 * s)) for seed in (0, 1)]
    points += [ScalingPoint(panel="8 cascades", x=1.0, evaluation=evaluation(lambda group: 40.0))]
    points += [ScalingPoint(panel="4 cascades", x=1.0, evaluation=evaluation(lambda group: 39.0))]
    table = scaling_table(points, metric="psnr")
    assert table.columns == ("Model", "PSNR (dB)\nfraction 0.5", "PSNR (dB)\nfraction 1")
    numbers = np.array([0, 1, 2, 0, 1, 0])
    spread = f"± {numbers.std(ddof=1):.2f}"
    assert table.sections[0].rows == (
        ("8 cascades", f"{31 + numbers.mean():.2f} {spread}", f"{40 + numbers.mean():.2f} {spread}"),
        ("4 cascades", "", f"{39 + numbers.mean():.2f} {spread}"),
    )
    chart = scaling_chart(points, anatomy, metric="psnr")
    for text in (b"8 cascades", b"4 cascades", b"spine (3)", b"hip (1)"):
        assert b"<!-- " + text + b" -->" in chart.light
