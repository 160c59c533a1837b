"""Settings of a sweep that no trial would follow are refused or told, and those that all follow are not."""

import logging

import pytest

from echotrain.config import override
from echotrain.errors import ConfigError
from echotrain.recipes.varnet import varnet_mosaic_x4_debug
from echotrain.sweeps.parameters import Choice, LogUniform, Uniform
from echotrain.sweeps.spec import Hyperband, Metric, SweepSpec
from echotrain.training.swept import check_sweep
from echotrain.training.without_effect import check_given, warn_of_idle_rule
from ray_jobs.sweep import read_experiment

MASKS = ({"accelerations": [4], "center_fractions": [0.08]}, {"accelerations": [8], "center_fractions": [0.04]})
PARAMETERS = {"model.num_cascades": Choice(values=(2, 3)), "data.mask": Choice(values=MASKS)}


def sweep(parameters=PARAMETERS, **options):
    return SweepSpec(**{"name": "study", "recipe": "r", "method": "grid", "parameters": parameters, **options})


def check(spec, *given):
    check_given(spec, override(varnet_mosaic_x4_debug(), given), given)


@pytest.mark.parametrize(
    ("given", "parameter"),
    [
        ("model.num_cascades=4", "model.num_cascades"),
        ("model.num_cascades=2", "model.num_cascades"),
        ("model={num_cascades: 4, chans: 6}", "model.num_cascades"),
        ("data.mask.accelerations=[6]", "data.mask"),
        ("data.mask={kind: equispaced, center_fractions: [0.1]}", "data.mask"),
    ],
)
def test_a_setting_that_is_varied_as_well_is_refused_with_both_names(given, parameter):
    with pytest.raises(ConfigError) as refused:
        check(sweep(), "epochs=1", given, "seed=7")
    assert refused.value.value == given
    assert f"parameter {parameter} is varied" in str(refused.value)


@pytest.mark.parametrize("method", ["random", "bayes"])
@pytest.mark.parametrize("parameter", [LogUniform(min=1e-4, max=1e-3), Uniform(min=1e-4, max=1e-3)])
def test_a_search_is_no_different(method, parameter):
    spec = sweep({"optim.lr": parameter}, method=method, run_cap=4, metric=Metric(name="epoch/loss"))
    check(spec, "optim.weight_decay=0.1", "optim.schedule.warmup_steps=2")
    with pytest.raises(ConfigError, match=r"optim.lr=0.5: has no effect in trial lr=.*parameter optim.lr is varied"):
        check(spec, "optim.lr=0.5")


def test_what_all_trials_follow_is_taken():
    check(sweep(), "epochs=3", "data.mask.kind=equispaced", "name=mine", "storage=/data/runs", "wandb.group=mine", "epochs=1")
    check(sweep({"data.mask.kind": Choice(values=("random", "equispaced"))}), "data.mask={accelerations: [8], center_fractions: [0.04]}")
    check(sweep({"seed": Choice(values=(7,))}), "seed=7")


def test_what_the_sweep_says_itself_is_refused():
    with pytest.raises(ConfigError, match=r"wandb.project=mine: has no effect.*the sweep says another itself"):
        check(sweep(project="lab"), "wandb.project=mine")


def test_the_command_line_is_held_against_the_file(tmp_path):
    file = tmp_path / "s.yaml"
    command = 'command: [python, -m, ray_jobs.train, varnet_mosaic_x4_debug, epochs=3, seed=5, "${args_no_hyphens}"]'
    file.write_text(f"method: grid\nparameters: {{model.num_cascades: {{values: [2, 3]}}}}\n{command}\n")
    spec, base = read_experiment(file, ["epochs=1", "name=mine"])
    assert (spec.name, base.epochs, base.seed) == ("mine", 1, 5)
    with pytest.raises(ConfigError, match=r"model.num_cascades=4: has no effect"):
        read_experiment(file, ["model.num_cascades=4"])


@pytest.mark.parametrize(("least", "is_idle"), [(1, False), (2, False), (3, True), (9, True)])
def test_a_rule_that_ends_no_trial_is_told(caplog, least, is_idle):
    spec = sweep({"seed": Choice(values=(1, 2))}, early_terminate=Hyperband(min_iter=least), metric=Metric(name="epoch/loss"))
    with caplog.at_level(logging.WARNING):
        warn_of_idle_rule(spec, check_sweep(spec, override(varnet_mosaic_x4_debug(), ["epochs=3"])))
    assert bool(caplog.messages) == is_idle
    assert all(f"before epoch {least}, and none is longer than epochs=3" in message for message in caplog.messages)
