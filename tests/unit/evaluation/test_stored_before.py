"""Evaluations that commit 2d0091e stored, which knew a model beside the zero-filled image alone, are read and mean the same.

Its ``write_evaluation``, ``render_markdown``, ``render_csv`` and ``score_csv`` made the files in ``of_2d0091e``.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from echotrain.errors import PayloadError
from echotrain.evaluation.report import render_csv, render_markdown
from echotrain.evaluation.results import EvaluationInfo, MethodInfo
from echotrain.evaluation.stored import read_evaluation, score_csv, write_evaluation
from echotrain.storage.local import LocalStore

BEFORE = Path(__file__).parent / "of_2d0091e"


@pytest.fixture
def stored():
    return read_evaluation(LocalStore(BEFORE / "evaluation"))


def test_its_methods_and_data_are_those_that_its_summary_named(stored):
    model = MethodInfo(model="8 cascades", checkpoint="s3://lab/best", weights_sha256="ab" * 32)
    assert stored.methods == {"zero_filled": MethodInfo(), "model": model}
    assert (stored.baseline, stored.subject, list(stored.methods)) == ("zero_filled", "model", ["zero_filled", "model"])
    assert stored.info == EvaluationInfo(name="VarNet x4", catalog="s3://lab/mosaic@3", split="test", note="Simulated.")


def test_every_table_of_it_has_the_same_numbers_to_the_last_digit(stored):
    assert render_markdown([stored]) == (BEFORE / "report.md").read_text()
    assert render_csv([stored]) == (BEFORE / "report.csv").read_text()
    assert score_csv([stored]) == (BEFORE / "scores.csv").read_text()


def test_its_pictures_are_those_of_its_methods(stored):
    with np.load(BEFORE / "evaluation/examples.npz") as arrays:
        for index, example in enumerate(stored.examples):
            np.testing.assert_array_equal(example.images["zero_filled"], arrays[f"zero_filled_{index:03d}"])
            np.testing.assert_array_equal(example.images["model"], arrays[f"reconstruction_{index:03d}"])
            np.testing.assert_array_equal(example.target, arrays[f"target_{index:03d}"])
    assert [example.masked_kspace is None for example in stored.examples] == [False, True]


def test_written_anew_it_is_the_same_and_its_means_keep_their_names(stored, tmp_path):
    store = LocalStore(tmp_path)
    write_evaluation(store, stored)
    assert read_evaluation(store).volumes == stored.volumes
    assert store.read("metrics.csv") == (BEFORE / "evaluation/metrics.csv").read_bytes()
    now, before = json.loads(store.read("summary.json")), json.loads((BEFORE / "evaluation/summary.json").read_text())
    means = [name for name in before if name.startswith(("nmse", "psnr", "ssim", "num"))]
    assert {name: now[name] for name in means} == {name: before[name] for name in means}


def test_a_format_that_is_not_known_yet_is_refused(tmp_path):
    shutil.copytree(BEFORE / "evaluation", tmp_path / "e")
    summary = json.loads((tmp_path / "e/summary.json").read_text())
    (tmp_path / "e/summary.json").write_text(json.dumps({**summary, "format": 3}))
    with pytest.raises(PayloadError, match="of format 3, and formats up to 2 are known"):
        read_evaluation(LocalStore(tmp_path / "e"))
