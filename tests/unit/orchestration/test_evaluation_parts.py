"""What an evaluation is made of, without Ray: jobs of any methods, and parts that an interrupted job of commit 2d0091e has left.

Its ``_VolumeScorer`` made ``of_2d0091e/part`` of the second volume of the catalog below; ``part_identity.json`` is the text that its parts
were known by, the catalog's URI aside.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import ConfigError
from echotrain.orchestration.jobs.evaluate import EvaluationJob, _Gathered, _known, _VolumeScorer, _Work
from echotrain.orchestration.jobs.inference import WorkerSetup
from echotrain.orchestration.jobs.zero_filled import ZeroFilledMethod
from echotrain.orchestration.runtime.mapping import Result
from echotrain.orchestration.runtime.parts import Parts
from tests.simulated import write_simulated_catalog
from tests.unit.orchestration.test_volume_scorer import Blurred

BEFORE = Path(__file__).parent / "of_2d0091e"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return write_simulated_catalog(tmp_path_factory.mktemp("catalog"), num_train=1, num_val=2, num_slices=3)


def work_of(catalog, **options):
    return _Work.of(EvaluationJob(method=Blurred(LinesData(catalog=catalog)), split="val", num_examples=1, **options), {})


def results(work):
    scorer = _VolumeScorer(WorkerSetup(method=work.method), [work.told])
    return [scorer({"job": 0, **item}) for item in work.items]


def evaluation_of(work, found):
    gathered = _Gathered(work)
    *first, last = [gathered.add(result) for result in found]
    assert set(first) == {None}
    return last


def test_parts_of_an_interrupted_job_are_known_by_the_same_text(catalog):
    assert work_of(catalog).identity == (BEFORE / "part_identity.json").read_text().replace("CATALOG", catalog)


def test_an_interrupted_job_goes_on_with_the_parts_that_it_has(catalog, tmp_path):
    work = work_of(catalog, resume_in=str(tmp_path))
    identity = (BEFORE / "part_identity.json").read_text().replace("CATALOG", catalog)
    values, _, data = (BEFORE / "part").read_bytes().partition(b"\n")
    Parts(str(tmp_path), identity).save(1, Result(json.loads(values), data))
    known = _known(work)
    assert list(known) == [1]
    # The volume that it had not come to is done now, and the other one is as it was.
    evaluation = evaluation_of(work, [results(work)[0], known[1]])
    assert list(evaluation.methods) == ["zero_filled", "model"]
    told = json.loads(values)
    later = evaluation.volumes[1]
    for name in ("model", "zero_filled"):
        assert later.scores[name]["ssim"] == np.mean([score[3] for _, score in told[name]])
    (shown,) = evaluation.examples
    zero_filled, model, target = np.frombuffer(data, np.float32)[: 3 * np.prod(told["shape"])].reshape(3, *told["shape"])
    np.testing.assert_array_equal(shown.images["zero_filled"], zero_filled)
    np.testing.assert_array_equal(shown.images["model"], model)
    np.testing.assert_array_equal(shown.target, target)
    assert shown.masked_kspace.shape == tuple(told["kspace_shape"])


@pytest.mark.parametrize(
    "changes",
    [
        {"beside": {}, "baseline": ""},
        {"beside": {"zero_filled": ZeroFilledMethod(), "other": ZeroFilledMethod()}},
        {"beside": {"other": ZeroFilledMethod()}, "baseline": "other"},
    ],
)
def test_other_methods_beside_it_make_it_another_job(catalog, changes):
    assert work_of(catalog, **changes).identity != work_of(catalog).identity
    assert work_of(catalog, **changes).identity == work_of(catalog, **changes).identity


def test_the_baseline_and_the_title_change_no_result(catalog):
    assert work_of(catalog, baseline="", title="x").identity == work_of(catalog).identity


def test_methods_beside_each_other_see_the_same_and_one_of_any_is_the_baseline(catalog):
    data = LinesData(catalog=catalog)
    beside = {"sharp": ZeroFilledMethod(), "again": Blurred(data)}
    work = work_of(catalog, beside=beside, baseline="again")
    evaluation = evaluation_of(work, results(work))
    assert list(evaluation.methods) == ["sharp", "again", "model"]
    assert evaluation.baseline == "again"
    usual = evaluation_of(work_of(catalog), results(work_of(catalog)))
    for found, known in zip(evaluation.volumes, usual.volumes, strict=True):
        assert found.scores["again"] == found.scores["model"] == known.scores["model"]
        assert found.scores["sharp"] == known.scores["zero_filled"]
    (shown,) = evaluation.examples
    assert list(shown.images) == ["sharp", "again", "model"]


def test_what_is_given_to_a_method_beside_is_the_methods_own_data_whatever_it_says(catalog):
    other = Blurred(LinesData(catalog="/nowhere"))
    work = work_of(catalog, beside={"other": other}, baseline="other")
    assert {subject.data.catalog for subject in work.subjects.values()} == {catalog}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "nobody"}, "baseline 'nobody': is none of the methods zero_filled, model"),
        ({"beside": {"model": ZeroFilledMethod()}}, "method 'model': must not be called model"),
        ({"beside": {"volume": ZeroFilledMethod()}, "baseline": "volume"}, "method 'volume': must not be called"),
        ({"beside": {"Zero filled": ZeroFilledMethod()}, "baseline": "Zero filled"}, "must be a plain word"),
    ],
)
def test_methods_that_could_not_be_told_apart_are_refused_before_anything_is_read(options, message):
    with pytest.raises(ConfigError, match=message):
        EvaluationJob(method=dataclasses.replace(Blurred(LinesData())), **options)
