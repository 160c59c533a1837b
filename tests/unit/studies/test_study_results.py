"""A study's sections out of its models: repeats are averaged, what failed is named, and the rest stands."""

import dataclasses

import pytest

from echotrain.data.catalog.identity import SampleId
from echotrain.data.catalog.subsets import save_subset
from echotrain.evaluation.results import Evaluation, EvaluationInfo, MethodInfo, VolumeAttributes, VolumeResult
from echotrain.orchestration.jobs.filtering import Filtered, PatchCounts
from echotrain.recipes.studies import find_study
from echotrain.studies.page import study_facts, study_sections
from echotrain.studies.results import StudyResults
from echotrain.studies.settings import override_study
from echotrain.studies.study import plan_study, study_points
from echotrain.sweeps.trial import Trial
from tests.catalogs import write_catalog


def evaluation(psnr, model="VarNet"):
    """Return an evaluation of one knee and one brain, which ``catalog`` has to test on."""
    volumes = tuple(
        VolumeResult(
            dataset="test",
            volume=volume,
            attributes=VolumeAttributes(anatomy, "PD", 4.0),
            num_slices=3,
            scores={"zero_filled": {"nmse": 0.1, "psnr": 20.0, "ssim": 0.5}, "model": {"nmse": 0.01, "psnr": psnr, "ssim": 0.9}},
        )
        for anatomy, volume in (("brain", "file005"), ("knee", "file004"))
    )
    methods = {"zero_filled": MethodInfo(), "model": MethodInfo(model=model, checkpoint=str(psnr))}
    return Evaluation(info=EvaluationInfo(name=str(psnr)), methods=methods, volumes=volumes)


@pytest.fixture
def catalog(tmp_path):
    return write_catalog(tmp_path, volumes=12, splits=("train", "train", "val", "val", "test", "test")).catalog


@pytest.fixture
def study():
    return override_study(find_study("mosaic")(), ["sections=[scaling,anatomies]", "sizes=[4,8]", "fractions=[0.5,1.0]", "seeds=[1,2]"])


def shown(study, plan, results, catalog, filtered=None):
    return study_sections(
        study, catalog, models=plan, results=results, tests={}, chosen={} if filtered is None else {"filtering": filtered}
    )


def trials_of(plan, study, failed=()):
    """Return a trial for each model and seed; those whose number is in ``failed`` have failed."""
    return [
        Trial(
            number=number,
            name=f"trial {number}",
            values=values,
            run="r",
            state="failed" if number in failed else "finished",
            reason="loss is not finite" if number in failed else "",
        )
        for number, values in enumerate(study_points(plan, study.seeds))
    ]


def test_repeats_are_averaged_and_what_failed_is_named_while_the_rest_stands(study, catalog):
    plan = plan_study(study, catalog.table)
    trials = trials_of(plan, study, failed=(0, 4, 10))
    tested = {trial.number: evaluation(30.0 + trial.number) for trial in trials if trial.state == "finished"}
    assert len(trials) == 2 * 6
    results = StudyResults(study.seeds, trials, tested, [])
    # Model 1 is trial 1 and, by its second seed, trial 7; of model 4 both repeats failed; of model 0 one did.
    models = [{path: value for path, value in trial.values.items() if path != "seed"} for trial in trials[:6]]
    assert {v.scores["model"]["psnr"] for v in results.of(models[1]).volumes} == {(31.0 + 37.0) / 2}
    assert {v.scores["model"]["psnr"] for v in results.of(models[0]).volumes} == {36.0}
    assert results.of(models[4]) is None
    scaling, anatomies, listed = shown(study, plan, results, catalog)
    assert scaling.missing == ("trial 0 has no result: loss is not finite",)
    assert anatomies.missing == ("trial 4 has no result: loss is not finite", "trial 10 has no result: loss is not finite")
    matrix = next(exhibit.content for exhibit in anatomies.exhibits if exhibit.name == "anatomies-psnr")
    assert matrix.columns == ("Tested on (n)", "trained on\nknee", "trained on\nall")
    assert len(listed.exhibits[0].content.sections[0].rows) == 12
    facts = study_facts(study, study.base, catalog, trials)
    assert facts["Models"] == "3 failed, 9 finished"


@pytest.mark.parametrize(
    ("follows", "words"), [("true", "the same fraction of the validation volumes"), ("false", "all validation volumes")]
)
def test_the_scaling_section_says_what_its_models_validated_on(study, catalog, follows, words):
    study = override_study(study, ["sections=[scaling]", f"data.val_follows_fraction={follows}"])
    plan = plan_study(study, catalog.table)
    section, _ = shown(study, plan, StudyResults((1,), trials_of(plan, study), {}, []), catalog)
    assert f"were chosen on {words}, and all are tested on the same volumes" in section.text


COUNTS = PatchCounts(num_queries=30, num_pool=90, num_blank=12, num_duplicates=5)
BY_PATCHES = (
    "each of the 30 patches that are not blank (among 90 patches, 12 blank and 5 near-duplicate ones left out) of the 7 knee slices"
)


@pytest.mark.parametrize(("counts", "words"), [(None, "each of the 7 knee slices"), (COUNTS, BY_PATCHES)])
def test_the_filtering_section_says_in_which_form_neighbours_were_found(study, catalog, counts, words):
    study = override_study(study, ["sections=[filtering]"])
    chosen = save_subset(catalog.root, "s", [SampleId("test", "file000", 0)], {})
    plan = plan_study(study, catalog.table, {"filtering": "s"})
    filtered = Filtered(subset=chosen, num_queries=7, num_pool=12, by_anatomy={"knee": 1}, patches=counts)
    section, _ = shown(study, plan, StudyResults((1,), trials_of(plan, study), {}, []), catalog, filtered)
    assert words in section.text


def test_the_data_are_shown_with_examples_of_them(study, catalog):
    study = override_study(study, ["sections=[dataset]"])
    section, _ = shown(study, plan_study(study, catalog.table), StudyResults((1,), [], {}, []), catalog)
    assert "montage" in [exhibit.name for exhibit in section.exhibits]


def test_networks_of_several_accelerations_are_one_method(study, catalog):
    study = override_study(study, ["sections=[benchmark]", "seeds=[1]"])
    plan = plan_study(study, catalog.table)
    trials = trials_of(plan, study)
    faster = evaluation(28.0)
    faster = dataclasses.replace(
        faster, volumes=tuple(dataclasses.replace(v, attributes=v.attributes._replace(acceleration=8.0)) for v in faster.volumes)
    )
    section, _ = shown(study, plan, StudyResults((1,), trials, {0: evaluation(30.0), 1: faster}, []), catalog)
    rows = section.exhibits[0].content.sections[0].rows
    assert [row[0] for row in rows] == ["Zero-filled", "VarNet"]
    assert rows[1][1].startswith("30.00")
    assert rows[1][4].startswith("28.00")
