"""Which models a study trains: each once, and only where there is something to train, to validate and to test on."""

import dataclasses
import itertools
import shlex
from pathlib import Path

import pyarrow as pa
import pytest

from echotrain.config import override
from echotrain.data.catalog.selection import Where
from echotrain.errors import CatalogError, ConfigError
from echotrain.recipes.registry import find_recipe
from echotrain.recipes.studies import STUDIES, find_study
from echotrain.studies.settings import override_study
from echotrain.studies.study import plan_study, study_points
from echotrain.sweeps.space import as_settings
from echotrain.sweeps.spec import SweepSpec, read_sweep
from echotrain.training.swept import check_sweep
from ray_jobs.study import shown

SWEEP = Path(__file__).resolve().parents[3] / "sweeps" / "mosaic_scaling.yaml"


def catalog(**volumes):
    """Return catalog rows from ``anatomy_contrast=(train, val, test)`` volumes, a slice each."""
    rows = []
    for name, counts in volumes.items():
        anatomy, _, contrast = name.partition("_")
        for split, count in zip(("train", "val", "test"), counts, strict=True):
            rows += [
                {"dataset": "mosaic", "volume": f"{name}{split}{n}", "anatomy": anatomy, "contrast": contrast, "split": split}
                for n in range(count)
            ]
    return pa.Table.from_pylist(rows)


TABLE = catalog(knee_PD=(3, 1, 1), spine_T1=(6, 2, 2), spine_T1_POST=(1, 1, 0), foot_T2=(4, 1, 0), hip_T2=(1, 1, 1))


def study(*settings):
    return override_study(find_study("mosaic")(), settings)


def section(chosen, name):
    return next(each for each in chosen.sections if each.name == name)


def planned(chosen, table=TABLE):
    """Return the models of every section; the subset of the filtering is called s."""
    return plan_study(chosen, table, {"filtering": "s"})


def parts(chosen, name, table=TABLE):
    return section(chosen, name).parts(chosen, table)


def test_a_model_that_several_sections_share_is_trained_once():
    plan = planned(study())
    baseline = {"model.num_cascades": 8, "data.fraction": 1.0}
    at_4, at_8 = plan["benchmark"].values()
    assert plan["scaling"][8, 1.0] == at_8 == plan["anatomies"]["all"] == plan["filtering"]["everything"] == baseline
    assert at_4 == {**baseline, "data.mask": {"accelerations": [4], "center_fractions": [0.08]}}
    assert plan["filtering"]["knee only"] == plan["anatomies"]["knee"]
    assert plan["filtering"]["a random 10%"] == plan["scaling"][8, 0.1]
    points = study_points(plan, (1, 2))
    # The grid, 4x, three anatomies, three contrasts, the filtered set.
    assert len(points) == 2 * (16 + 1 + 3 + 3 + 1)
    assert len({str(point) for point in points}) == len(points)
    assert [point["seed"] for point in points] == [1] * 24 + [2] * 24


def test_the_study_and_the_scaling_sweep_are_of_the_same_experiments():
    """Sizes, fractions, masks and what is validated on agree, by what the paper's text and its repository's scripts say."""
    chosen = study("sections=[scaling]")
    plan = planned(chosen)
    models = {tuple(point.values()): override(chosen.base, as_settings(point)) for point in plan["scaling"].values()}
    spec = read_sweep(SWEEP)
    base = override(find_recipe(spec.recipe)(), spec.settings)
    names = [parameter.values for parameter in spec.parameters.values()]
    assert list(spec.parameters) == ["model.num_cascades", "data.fraction"]
    trials = {point: override(base, as_settings(dict(zip(spec.parameters, point, strict=True)))) for point in itertools.product(*names)}
    assert list(models) == list(trials) == list(itertools.product((4, 8, 12, 16), (0.1, 0.2, 0.5, 1.0)))
    for point, model in models.items():
        theirs = trials[point]
        data = dataclasses.replace(theirs.data, catalog=model.data.catalog)
        assert (model.data, model.model, model.optim, model.task) == (data, theirs.model, theirs.optim, theirs.task)
        assert (model.data.mask.kind, model.data.mask.accelerations, model.data.mask.center_fractions) == ("random", (8,), (0.04,))
        assert model.data.val_follows_fraction


def test_the_hours_that_the_study_tells_are_of_as_many_models_as_it_trains():
    """The docstring counts 35 models for the anatomies and contrasts of MosaicMRI."""
    anatomies = ("spine", "knee", "shoulder", "hip", "ankle", "foot", "wrist", "elbow", "pelvis", "leg")
    contrasts = ("T1", "T1_FS", "T2", "T2_FS", "PD", "PD_FS", "STIR")
    table = catalog(**{f"{anatomy}_{contrasts[number % 7]}": (2, 1, 1) for number, anatomy in enumerate(anatomies)})
    assert len(study_points(planned(study(), table), (42,))) == 35
    assert "35 models" in " ".join(find_study("mosaic").__doc__.split())


def test_a_rival_is_the_base_but_for_its_settings_and_joins_at_the_first_acceleration():
    chosen = study("sections=[benchmark]", "rivals=[{task.kind: bridge, model.kind: bridge}]")
    plan = planned(chosen)
    assert list(plan["benchmark"].values())[2] == {
        "data.fraction": 1.0,
        "data.mask": {"accelerations": [4], "center_fractions": [0.08]},
        "task.kind": "bridge",
        "model.kind": "bridge",
    }
    spec = SweepSpec.listed("mosaic", "mosaic", study_points(plan, chosen.seeds))
    networks = [experiment.model.kind for experiment in check_sweep(spec, chosen.base)]
    assert networks == ["varnet", "varnet", "bridge"]


def test_parts_come_by_their_training_volumes_and_only_where_every_split_has_some():
    plan = planned(study())
    assert list(plan["anatomies"]) == ["spine", "knee", "hip", "all"]
    assert parts(study(), "contrasts")["T1"] == Where(contrast=("T1", "T1_POST"))
    assert list(parts(study("min_volumes=3"), "anatomies")) == ["spine", "knee"]


def test_a_section_that_is_left_out_costs_nothing():
    plan = planned(study("sections=[anatomies]"))
    assert len(study_points(plan, (42,))) == 4
    assert study_points(planned(study("sections=[dataset]")), (42,)) == []


def test_the_shift_compares_parts_that_may_overlap():
    both = pa.concat_tables([TABLE, TABLE.set_column(0, "dataset", pa.array(["fastmri"] * len(TABLE)))])
    plan = planned(find_study("mosaic_shift")(), both)
    assert list(plan["shift"]) == ["fastmri", "mosaic", "mosaic knee", "all"]
    assert plan["shift"]["mosaic knee"]["data.where.dataset"] == ["mosaic"]
    with pytest.raises(CatalogError, match="fastmri: has no volume in the split train"):
        planned(find_study("mosaic_shift")())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("min_volumes=7",), r"anatomies with at least 7 volume\(s\) .*: spine: must be two or more"),
        (("queries=[foot]", "sections=[filtering]"), "foot: has no volume in the split test"),
    ],
)
def test_a_part_that_the_catalog_lacks_is_refused(settings, message):
    with pytest.raises(CatalogError, match=message):
        planned(study(*settings))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seeds=[1,1]", "must name at least one, and each once"),
        ("sections=[scalling]", "sections"),
        ("fractions=[0.5,2]", "must lie in"),
        ("accelerations=[[8,0.2]]", "center_fraction=0.2 at acceleration=8"),
        ("size=model.cascades", "is no setting of the experiment"),
        ("espirit_volumes=-1", "must be at least 0"),
        ("data.anatomies=[knee]", "is what the sections of a study vary themselves"),
        ("data.fraction=0.5", "is what the sections of a study vary themselves"),
        ("seed=3", "Give seeds="),
        ("optim.learning_rate=1", "Did you mean 'optim.lr'"),
    ],
)
def test_settings_that_make_no_study_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        study(setting)


def test_settings_are_the_studys_or_the_experiments():
    changed = study("seeds=[1,2]", "optim.lr=2e-4", "name=mine", "data.catalog=s3://lab/mosaic")
    assert (changed.seeds, changed.name, changed.base.optim.lr, changed.base.data.catalog) == ((1, 2), "mine", 2e-4, "s3://lab/mosaic")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("shift=[{dataset: [a]}, {data: [fastmri]}]", r"unknown key 'shift\.1\.data'.*Did you mean 'shift\.1\.dataset'"),
        ("shift.dataset=[fastmri]", r"unknown key 'shift\.dataset'"),
        ("shift=[fastmri]", r"shift\.0=fastmri: is a group of settings"),
    ],
)
def test_a_part_of_the_data_that_says_something_else_is_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        study(setting)


def test_texts_of_a_study_are_as_typed():
    changed = study(
        "sections=[benchmark,shift]",
        "shift=[{dataset: [/a #2, on]}, {anatomies: [12:30]}]",
        "note=a #1",
        "rivals=[{model.norm: on, data.subset: 010}]",
    )
    assert section(changed, "shift").shift == (Where(dataset=("/a #2", "on")), Where(anatomy=("12:30",)))
    assert (changed.note, dict(section(changed, "benchmark").rivals[0])) == ("a #1", {"model.norm": "on", "data.subset": "010"})


@pytest.mark.parametrize("name", STUDIES)
def test_what_is_shown_of_a_study_is_what_one_types_for_it(name):
    made = override_study(find_study(name)(), ["note=5 $ #1", "data.catalog=/data/it's #2", "queries=[knee, 'a, \"b\"']"])
    found = override_study(find_study("mosaic")(), shlex.split(shown(made)))
    assert found == dataclasses.replace(made, base=dataclasses.replace(made.base, name=found.base.name))


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_says_what_it_reproduces_and_where_it_ran(name):
    text = STUDIES[name].__doc__
    assert "Reproduces:" in text
    assert "Hardware:" in text
    assert STUDIES[name]().name == name
    assert dataclasses.replace(STUDIES[name]()) == STUDIES[name]()
