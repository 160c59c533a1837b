"""The page of a study, and the files of its exhibits."""

import csv
import io

import pytest

from echotrain.evaluation.results import Evaluation, EvaluationInfo, MethodInfo, VolumeAttributes, VolumeResult
from echotrain.evaluation.scaling import ScalingPoint
from echotrain.evaluation.study_page import exhibit_files, render_study
from echotrain.evaluation.training_sets import TrainingSet, composition_table, training_set_table
from echotrain.studies.models import models_section
from echotrain.studies.mosaic.benchmark import benchmark_section
from echotrain.studies.mosaic.filtering import filtering_section
from echotrain.studies.mosaic.scaling import scaling_section
from echotrain.studies.mosaic.transfer import transfer_section
from echotrain.sweeps.trial import Trial
from tests.unit.evaluation.test_report import Page

ANATOMIES = ("knee", "spine")


def evaluation(name, psnr, model="VarNet", count=7):
    """Return an evaluation whose volumes differ a little."""
    volumes = [
        VolumeResult(
            dataset="d",
            volume=f"{anatomy}{n}",
            attributes=VolumeAttributes(anatomy, "T1", 4.0),
            num_slices=2,
            scores={
                "zero_filled": {"nmse": 0.1, "psnr": 20.0 + n, "ssim": 0.5},
                "model": {"nmse": 0.01, "psnr": psnr + n + n**2 / 100, "ssim": 0.9 - n / 100},
            },
        )
        for anatomy in ANATOMIES
        for n in range(count)
    ]
    methods = {"zero_filled": MethodInfo(), "model": MethodInfo(model=model, checkpoint=name)}
    return Evaluation(info=EvaluationInfo(name=name), methods=methods, volumes=tuple(volumes))


def is_knee(v):
    return v.attributes.anatomy == "knee"


@pytest.fixture
def sections():
    everything, few = evaluation("everything", 32.0), evaluation("few", 30.0)
    points = [ScalingPoint(panel="8 cascades", x=x, evaluation=e) for x, e in ((0.1, few), (1.0, everything))]
    points.append(ScalingPoint(panel="4 cascades", x=1.0, evaluation=evaluation("small", 31.0, "VarNet 4")))
    groups = {name: lambda v, name=name: v.attributes.anatomy == name for name in ANATOMIES}
    trials = (
        Trial(number=0, name="cascades=8", values={}, run="r", state="finished", epoch=3, scores={"ssim": 0.91}, wall_s=12.2),
        Trial(number=1, name="cascades=12", values={}, run="r", state="failed", reason="loss is not finite"),
    )
    sets = [TrainingSet(name="everything", num_slices=200, evaluation=everything), TrainingSet(name="few", num_slices=20, evaluation=few)]
    composition = ({"knee": 5, "spine": 15}, {"knee": 50, "spine": 150})
    return [
        benchmark_section([everything, evaluation("espirit", 29.0, "ESPIRiT (BART)")]),
        scaling_section(points),
        transfer_section("anatomies", "Transfer", "Text.", {"knee": few, "all": everything}, groups, missing=("spine has no result: x",)),
        filtering_section(sets, is_knee, queries="knee", composition=composition, text="Text."),
        models_section(trials, [everything, few]),
    ]


def test_the_page_takes_nothing_from_elsewhere_and_gives_every_exhibit_as_files(sections):
    page = Page(render_study(sections, title="A study", note="Simulated.", facts={"Data": "s3://x@1"}, generated="Today."))
    for words in (
        "A study",
        "Simulated.",
        "s3://x@1",
        "ESPIRiT’s image is zero",
        "spine has no result: x",
        "loss is not finite",
        "Network sizes",
    ):
        assert words in page.text, words
    outside = [value for _, name, value in page.attributes if name in ("src", "href", "srcset") and not value.startswith(("data:", "#"))]
    assert outside == []
    names = [value for _, name, value in page.attributes if name == "download"]
    files = dict(exhibit_files(sections))
    assert sorted(names) == sorted(key.rpartition("/")[2] for key in files)
    assert len(set(names)) == len(names)
    for name in (
        "tables/benchmark.tex",
        "tables/benchmark-pairs.md",
        "figures/scaling-psnr.pdf",
        "figures/anatomies.png",
        "tables/filtering.csv",
    ):
        assert files[name], name
    assert files["figures/scaling-ssim.svg"].startswith(b"<?xml")


def test_every_score_is_there_in_full_precision(sections):
    (scores,) = [data for key, data in exhibit_files(sections) if key == "tables/scores.csv"]
    rows = list(csv.DictReader(io.StringIO(scores.decode())))
    assert len(rows) == 2 * 14
    assert float(next(row for row in rows if row["evaluation"] == "few" and row["volume"] == "knee3")["psnr_model"]) == 33.09


def test_training_sets_are_compared_with_the_first_on_the_volumes_that_count(sections):
    sets = [
        TrainingSet(name=name, num_slices=n, evaluation=evaluation(name, psnr)) for name, n, psnr in (("all", 200, 32.0), ("few", 20, 30.5))
    ]
    table = training_set_table(sets, is_knee, 400)
    assert table.columns[3:6] == ("PSNR (dB)\nn = 7", "PSNR (dB)\ndifference", "PSNR (dB)\np")
    first, second = table.sections[0].rows
    assert first[:3] == ("all", "200", "50%")
    assert first[4:6] == ("", "")
    assert second[:3] == ("few", "20", "5%")
    assert second[4:6] == ("−1.50\n[−1.50, −1.50]", "0.016")
    assert second[7] == "+0.0000\n[+0.0000, +0.0000]"
    assert second[8] == "–"


def test_the_composition_names_what_was_not_chosen_too():
    rows = composition_table({"knee": 5, "spine": 15}, {"knee": 50, "hip": 10, "spine": 150}).sections[0].rows
    assert rows == (("spine", "15", "75%", "150", "10%"), ("knee", "5", "25%", "50", "10%"), ("hip", "0", "0%", "10", "0%"))


def test_sections_without_one_model_still_make_a_page():
    sections = [
        benchmark_section([], missing=("a has no result: x",)),
        scaling_section([]),
        transfer_section("anatomies", "Transfer", "Text.", {}, {}),
        filtering_section([], is_knee, queries="knee", composition=({"knee": 1}, {"knee": 2}), text="Text."),
        models_section([], []),
    ]
    assert "a has no result: x" in Page(render_study(sections, title="Nothing")).text
