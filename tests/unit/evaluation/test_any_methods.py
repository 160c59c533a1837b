"""Any methods beside each other, by any metrics: nothing here is a model beside a zero-filled image, or knows PSNR."""

import dataclasses
import re

import numpy as np
import pytest

from echotrain.errors import ConfigError, PayloadError
from echotrain.evaluation.comparison import compare
from echotrain.evaluation.figures import learning_curves, quality_distribution
from echotrain.evaluation.history import History
from echotrain.evaluation.report import render_csv, render_markdown, render_report
from echotrain.evaluation.results import Evaluation, EvaluationInfo, Example, MethodInfo, VolumeAttributes, VolumeResult
from echotrain.evaluation.scaling import ScalingPoint, scaling_table
from echotrain.evaluation.statistics import Statistic, group_statistics, mean_of_repeats
from echotrain.evaluation.stored import read_evaluation, score_csv, write_evaluation
from echotrain.evaluation.tables import best_of, quality_table, volume_table
from echotrain.evaluation.training_sets import TrainingSet, training_set_table
from echotrain.evaluation.transfer import transfer_matrix, transfer_table
from echotrain.metrics.table import METRICS, MetricEntry
from echotrain.storage.local import LocalStore

DISTANCE = MetricEntry(title="HD95", unit="mm", is_higher_better=False, digits=1, headline_digits=1, note_digits=0, near=0.5)
OVERLAP = MetricEntry(title="DSC", is_higher_better=True, digits=3, headline_digits=2, note_digits=2)


@pytest.fixture(autouse=True)
def further_metrics(monkeypatch):
    """Enter two metrics that no file but this one has heard of."""
    monkeypatch.setitem(METRICS, "hd95", DISTANCE)
    monkeypatch.setitem(METRICS, "dsc", OVERLAP)


def volume(number, distances, anatomy="liver"):
    """Return a volume with a distance for each method, and the overlap that goes with it."""
    scores = {name: {"dsc": 1 - distance / 20, "hd95": distance} for name, distance in distances.items()}
    attributes = VolumeAttributes(anatomy, "CT", 1.0)
    return VolumeResult(dataset="d", volume=f"v{number}", attributes=attributes, num_slices=5, scores=scores)


def evaluation(distances, baseline="", *, name="e", count=3, examples=(), **methods):
    """Return an evaluation of methods by their distance on the first volume; the n-th has n mm more."""
    volumes = tuple(volume(n, {method: distance + n for method, distance in distances.items()}) for n in range(count))
    known = {method: methods.get(method, MethodInfo()) for method in distances}
    return Evaluation(info=EvaluationInfo(name=name), methods=known, baseline=baseline, volumes=volumes, examples=tuple(examples))


@pytest.fixture
def segmentation():
    image = np.random.default_rng(0).random((9, 7), dtype=np.float32)
    images = {"atlas": image, "unet": 0.9 * image, "probe": 0.8 * image}
    shown = Example(
        dataset="d", volume="v0", slice=2, attributes=VolumeAttributes("liver", "CT", 1.0), max_value=1.0, target=image, images=images
    )
    return evaluation({"atlas": 9.0, "unet": 4.0, "probe": 10.0}, "atlas", examples=[shown])


def test_three_methods_by_two_further_metrics_are_stored_and_read_back(segmentation, tmp_path):
    write_evaluation(LocalStore(tmp_path), segmentation)
    again = read_evaluation(LocalStore(tmp_path))
    assert dataclasses.replace(again, examples=()) == dataclasses.replace(segmentation, examples=())
    for name, image in segmentation.examples[0].images.items():
        np.testing.assert_array_equal(again.examples[0].images[name], image)
    columns = LocalStore(tmp_path).read("metrics.csv").decode().splitlines()[0].split(",")[6:]
    assert columns == ["dsc_unet", "hd95_unet", "dsc_probe", "hd95_probe", "dsc_atlas", "hd95_atlas"]


def test_gains_are_from_the_baseline_that_was_named_and_better_is_what_the_metric_says(segmentation):
    (overall, *_) = group_statistics(segmentation)
    assert {name: gain["hd95"].mean for name, gain in overall.gain.items()} == {"unet": -5.0, "probe": 1.0}
    page = render_report([segmentation])
    tones = re.findall(r'<div class="label">([^<]*)</div>.*?<span class="(better|worse)">([^<]*)<', page, re.DOTALL)
    assert tones == [
        ("HD95 · unet", "better", "−5.0 mm"),
        ("DSC · unet", "better", "+0.25"),
        ("HD95 · probe", "worse", "+1.0 mm"),
        ("DSC · probe", "worse", "−0.05"),
    ]
    for words in ("atlas 10.0 mm", "HD95 (mm)", "All volumes, highest HD95 first", "Atlas", "Unet", "probe − target"):
        assert words in page, words


def test_without_a_baseline_nothing_is_a_gain(segmentation):
    alone = dataclasses.replace(segmentation, baseline="")
    assert group_statistics(alone)[0].gain == {}
    assert "gain" not in ",".join(quality_table(alone, group_statistics(alone)).columns)
    assert "gain" not in render_csv([alone])
    page = render_report([alone])
    assert 'class="better"' not in page
    assert "Gain:" not in page


def test_the_table_of_volumes_begins_with_the_worst_by_the_metrics_direction(segmentation):
    assert [row[1] for row in volume_table(segmentation).sections[0].rows] == ["v2", "v1", "v0"]


def test_every_page_table_and_chart_shows_the_metrics_that_there_are(segmentation):
    assert "HD95 (mm)" in render_markdown([segmentation])
    assert "dsc_probe" in score_csv([segmentation])
    chart = quality_distribution(segmentation).light
    for words in (b"HD95 (mm)", b"DSC", b"probe"):
        assert b"<!-- " + words + b" -->" in chart
    run = History(name="run", train=(), epochs=({"epoch": 0, "global_step": 1, "dsc": 0.5, "hd95": 7.0, "is_best": True},))
    assert b"Validation HD95" in learning_curves([run]).light
    assert "best validation HD95 7.0 mm, DSC 0.500 after epoch 1" in render_report(runs=[run])


def test_of_a_distance_the_smallest_of_a_row_is_outlined():
    models = {name: evaluation({"base": 9.0, "model": distance}, "base") for name, distance in (("a", 4.0), ("b", 4.4), ("c", 5.0))}
    matrix = transfer_matrix(models, {"a": lambda v: True}, metric="hd95")
    assert matrix.near_best().tolist() == [[True, True, False]]
    assert matrix.deficits[0] == pytest.approx([0.0, 0.4, 1.0])
    assert [cell.endswith("*") for cell in transfer_table(matrix).sections[0].rows[0][1:]] == [True, True, False]
    assert not transfer_matrix(models, {"a": lambda v: True}, metric="dsc").near_best().any()


def test_scaling_and_training_sets_and_repeats_are_of_the_method_beside_the_baseline():
    few, many = evaluation({"base": 9.0, "model": 6.0}, "base"), evaluation({"base": 9.0, "model": 4.0}, "base")
    points = [ScalingPoint(panel="p", x=x, evaluation=each) for x, each in ((0.1, few), (1.0, many))]
    assert scaling_table(points, metric="hd95").sections[0].rows[0][1:] == ("7.0 ± 1.0", "5.0 ± 1.0")
    sets = [TrainingSet(name=name, num_slices=10, evaluation=each) for name, each in (("few", few), ("many", many))]
    table = training_set_table(sets, lambda v: True, 10)
    assert table.columns[3:5] == ("HD95 (mm)\nn = 3", "HD95 (mm)\ndifference")
    assert table.sections[0].rows[1][4].startswith("−2.0")
    mean = mean_of_repeats([few, many])
    assert [v.scores["model"]["hd95"] for v in mean.volumes] == [5.0, 6.0, 7.0]
    assert [v.scores["base"]["hd95"] for v in mean.volumes] == [9.0, 10.0, 11.0]


def test_which_of_several_methods_is_meant_is_never_guessed(segmentation):
    with pytest.raises(ConfigError, match="e: has 2 methods beside its baseline"):
        mean_of_repeats([segmentation, segmentation])


def test_methods_of_one_evaluation_saw_the_same_and_are_pairs(segmentation):
    pairs = compare([segmentation]).pairs
    assert [row[0] for row in pairs.sections[0].rows] == ["Unet\nagainst Atlas", "Probe\nagainst Atlas", "Probe\nagainst Unet"]
    (shown,) = compare([segmentation]).examples
    assert list(shown.images) == ["Atlas", "Unet", "Probe"]


def test_the_best_of_each_column_is_bold_by_the_metrics_direction(segmentation):
    table = compare([segmentation]).quality
    assert table.sections[0].best == {(1, 1), (1, 2)}
    assert "| Unet | **5.0 ± 1.0** | **0.750 ± 0.050** |" in table.to_markdown()
    assert "Unet & \\textbf{5.0 $\\pm$ 1.0}" in table.to_latex()
    assert "*" not in table.to_csv()
    assert render_report([segmentation, dataclasses.replace(segmentation)]).count('class="num best"') == 2


def test_means_that_a_table_shows_alike_are_equally_good_and_what_is_no_number_is_never_best():
    means = {"a": 4.04, "b": 3.96, "c": 4.06, "d": float("nan")}
    found = {name: Statistic(mean=mean, sd=0.0, low=0.0, high=0.0, n=1) for name, mean in means.items()}
    assert best_of(found, "hd95") == ["a", "b"]
    assert best_of({"d": found["d"]}, "hd95") == []


def test_evaluations_that_share_no_baseline_cannot_be_seen_to_have_seen_the_same():
    first = evaluation({"atlas": 9.0, "model": 4.0}, "atlas", name="x", model=MethodInfo(model="x"))
    for other in ({"zeros": 9.0, "model": 5.0}, {"model": 5.0}):
        second = evaluation(other, next(iter(other)) if len(other) > 1 else "", name="y", model=MethodInfo(model="y"))
        assert compare([first, second]).pairs is None
    same = evaluation({"atlas": 9.0, "model": 5.0}, "atlas", name="y", model=MethodInfo(model="y"))
    assert compare([first, same]).pairs is not None


def test_a_baseline_that_differs_by_any_shared_metric_makes_no_pairs():
    first = evaluation({"atlas": 9.0, "model": 4.0}, "atlas", name="x", model=MethodInfo(model="x"))
    second = evaluation({"atlas": 9.0, "model": 5.0}, "atlas", name="y", model=MethodInfo(model="y"))
    moved = tuple(dataclasses.replace(v, scores={**v.scores, "atlas": {**v.scores["atlas"], "dsc": 0.9}}) for v in second.volumes)
    assert compare([first, dataclasses.replace(second, volumes=moved)]).pairs is None


def without(evaluation, metric):
    volumes = [
        dataclasses.replace(v, scores={name: {m: s for m, s in quality.items() if m != metric} for name, quality in v.scores.items()})
        for v in evaluation.volumes
    ]
    return dataclasses.replace(evaluation, volumes=tuple(volumes))


def test_a_metric_that_not_all_evaluations_have_is_left_out_and_said_to_be(segmentation):
    first = evaluation({"atlas": 9.0, "model": 4.0}, "atlas", name="x", model=MethodInfo(model="x"))
    second = without(evaluation({"atlas": 9.0, "model": 5.0}, "atlas", name="y", model=MethodInfo(model="y")), "dsc")
    found = compare([first, second])
    assert found.quality.columns == ("Method", "HD95 (mm)\nR = 1, n = 3")
    assert found.notes == ("Not all methods have DSC.",)
    assert [set(quality) for v in mean_of_repeats([first, second]).volumes for quality in v.scores.values()] == [{"hd95"}] * 6
    lines = score_csv([first, second]).splitlines()
    assert lines[-1].split(",")[7] == ""


def test_evaluations_of_quite_different_kinds_stand_on_one_page_and_are_not_compared(segmentation, evaluation_of, volume_result):
    images = evaluation_of([volume_result("a", 30.0)])
    assert "Side by side" not in render_report([segmentation, images])
    with pytest.raises(ConfigError, match="share no metric"):
        compare([segmentation, images])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: {"baseline": "nobody"}, "baseline 'nobody': is none of the methods atlas, unet, probe"),
        (lambda e: {"methods": {**e.methods, "A b": MethodInfo()}}, "method 'A b': must be a plain word"),
        (lambda e: {"methods": {**e.methods, "target": MethodInfo()}}, "method 'target'"),
        (lambda e: {"methods": {**e.methods, "further": MethodInfo()}}, "d/v0: scores .*: must be those of all volumes"),
        (lambda e: {"volumes": (*e.volumes, without(e, "dsc").volumes[0])}, "d/v0: scores"),
        (lambda e: {"volumes": without(without(e, "dsc"), "hd95").volumes}, "has volumes without a metric"),
        (lambda e: {"examples": (dataclasses.replace(e.examples[0], images={}),)}, "must be of all methods"),
    ],
)
def test_an_evaluation_that_does_not_hold_together_cannot_be_made(segmentation, change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(segmentation, **change(segmentation))


def test_columns_that_would_be_called_the_same_are_refused(monkeypatch):
    monkeypatch.setitem(METRICS, "dsc_a", OVERLAP)
    quality = {"dsc": 1.0, "dsc_a": 1.0}
    attributes = VolumeAttributes("", "", 1.0)
    result = VolumeResult(dataset="d", volume="v", attributes=attributes, num_slices=1, scores={"b": quality, "a_b": quality})
    with pytest.raises(ConfigError, match="must each have a name of its own"):
        Evaluation(info=EvaluationInfo(name="e"), methods={"b": MethodInfo(), "a_b": MethodInfo()}, baseline="", volumes=(result,))


def test_a_stored_metric_that_nobody_knows_here_is_a_damaged_evaluation(segmentation, tmp_path, monkeypatch):
    write_evaluation(LocalStore(tmp_path), segmentation)
    monkeypatch.delitem(METRICS, "hd95")
    with pytest.raises(PayloadError, match="metric 'hd95': is none of"):
        read_evaluation(LocalStore(tmp_path))
