"""The experiments of a sweep: one per trial, and everything that cannot work refused before one starts."""

import dataclasses

import pytest

from echotrain.errors import ConfigError
from echotrain.recipes.varnet import varnet_mosaic_x4_debug
from echotrain.sweeps.parameters import Choice, LogUniform
from echotrain.sweeps.spec import Metric, SweepSpec
from echotrain.sweeps.trial import new_trial
from echotrain.tasks.reconstruction import ReconstructionTask
from echotrain.training.swept import check_sweep, swept_experiment, swept_metric

BASE = dataclasses.replace(varnet_mosaic_x4_debug(), storage="s3://b/runs/")


def sweep(parameters, **options):
    return SweepSpec(**{"name": "study", "recipe": "r", "method": "grid", "parameters": parameters, **options})


def test_each_trial_has_its_values_a_folder_and_a_name_in_one_group():
    spec = sweep({"model.num_cascades": Choice(values=(2, 3)), "data.fraction": Choice(values=(0.5,))}, project="lab")
    first, second = check_sweep(spec, BASE)
    assert (first.model.num_cascades, second.model.num_cascades, second.data.fraction) == (2, 3, 0.5)
    assert second.run_uri == "s3://b/runs/study/num_cascades=3,fraction=0.5"
    assert (second.wandb.name, second.wandb.group, second.wandb.project) == ("num_cascades=3 fraction=0.5", "study", "lab")
    assert dataclasses.replace(second, model=first.model, name=first.name, wandb=first.wandb) == first


def test_a_group_that_was_given_stays():
    base = dataclasses.replace(BASE, wandb=dataclasses.replace(BASE.wandb, group="mine"))
    (only,) = check_sweep(sweep({"seed": Choice(values=(1,))}), base)
    assert only.wandb.group == "mine"


def test_values_of_one_group_come_together():
    masks = [{"accelerations": [4], "center_fractions": [0.08]}, {"accelerations": [8, 4], "center_fractions": [0.04, 0.08]}]
    spec = sweep({"data.mask.kind": Choice(values=("magic",)), "data.mask": Choice(values=tuple(masks))})
    _, second = check_sweep(spec, BASE)
    assert (second.data.mask.kind, second.data.mask.accelerations) == ("magic", (8, 4))


def test_the_corners_of_a_search_are_checked():
    spec = sweep(
        {"optim.lr": LogUniform(min=1e-4, max=1e-2), "seed": Choice(values=(1, 2, 3))},
        method="bayes",
        run_cap=9,
        metric=Metric(name="epoch/loss"),
    )
    assert [(e.optim.lr, e.seed) for e in check_sweep(spec, BASE)] == [(1e-4, 1), (1e-2, 1), (1e-4, 2), (1e-4, 3)]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"model.cascades": Choice(values=(2,))}, r"trial cascades=2: unknown key 'model.cascades'.*Did you mean 'model.num_cascades'"),
        ({"model.num_cascades": Choice(values=(2, "many"))}, r"trial num_cascades=many: model.num_cascades='many'"),
        ({"model.num_cascades": Choice(values=(2.5,))}, r"trial num_cascades=2.5: model.num_cascades=2.5"),
        ({"data.fraction": Choice(values=(0.5, 1.5))}, r"trial fraction=1.5: data.fraction=1.5: must lie in"),
        ({"workers": Choice(values=(1, 2))}, r"parameter workers: says where.*ray_jobs.sweep FILE workers=VALUE"),
        ({"stream.threads": Choice(values=(1, 2))}, r"parameter stream.threads: says where"),
        ({"model.activation_checkpointing": Choice(values=(True,))}, r"parameter model.activation_checkpointing: says where or how"),
        ({"seed": Choice(values=(1, 2, 1))}, r"trial seed=1: comes twice in the grid"),
        ({"optim.lr": Choice(values=(0.001, "1e-3"))}, r"trial lr=1e-3: is lr=0.001 again in the grid"),
    ],
)
def test_what_no_trial_could_run_is_refused_by_name(parameters, message):
    with pytest.raises(ConfigError, match=message):
        check_sweep(sweep(parameters), BASE)


def test_a_metric_that_no_run_reports_is_refused_with_those_that_are():
    spec = sweep({"seed": Choice(values=(1,))}, metric=Metric(name="val_ssim", goal="maximize"))
    with pytest.raises(ConfigError, match=r"'val_ssim': is reported by no run.*epoch/loss, epoch/nmse, epoch/psnr, epoch/ssim"):
        check_sweep(spec, BASE)
    assert swept_metric(dataclasses.replace(spec, metric=None), BASE) == Metric(name="epoch/ssim", goal="maximize")


def test_a_task_whose_score_is_better_lower_is_searched_downwards(monkeypatch):
    monkeypatch.setattr(ReconstructionTask, "score", "nmse")
    spec = sweep({"seed": Choice(values=(1,))})
    assert swept_metric(dataclasses.replace(spec, metric=None), BASE) == Metric(name="epoch/nmse", goal="minimize")


@pytest.mark.parametrize(
    ("name", "goal", "message"),
    [
        ("ssim", "minimize", r"would look for the worst: higher is better. Write goal: maximize"),
        ("psnr", "minimize", r"higher is better"),
        ("nmse", "maximize", r"lower is better. Write goal: minimize"),
        ("loss", "maximize", r"lower is better"),
    ],
)
def test_a_sweep_for_the_worst_is_refused(name, goal, message):
    spec = sweep({"seed": Choice(values=(1,))}, metric=Metric(name=f"epoch/{name}", goal=goal))
    with pytest.raises(ConfigError, match=message):
        check_sweep(spec, BASE)
    other = {"minimize": "maximize", "maximize": "minimize"}[goal]
    check_sweep(dataclasses.replace(spec, metric=Metric(name=f"epoch/{name}", goal=other)), BASE)


def test_a_trial_of_the_same_values_is_the_same_run():
    spec = sweep({"seed": Choice(values=(1, 2))})
    first, again = (swept_experiment(spec, BASE, new_trial(spec, BASE.storage, number, {"seed": 1})) for number in (0, 5))
    assert first == again
