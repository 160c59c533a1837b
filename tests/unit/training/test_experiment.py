"""The configuration of a run: what is refused, and how it is overridden."""

import shlex

import pytest

from echotrain.config import from_dict, override, to_dict
from echotrain.errors import ConfigError, LeakageError
from echotrain.models.bridge.network import BridgeNetworkConfig
from echotrain.recipes.registry import RECIPES, find_recipe
from echotrain.tasks.bridge import BridgeConfig
from echotrain.training.experiment import Experiment, changed_keys, science
from ray_jobs import train

LBM = Experiment(
    task=BridgeConfig(noise=0.1),
    model=BridgeNetworkConfig(widths=(32,), transformers=(0,), space="latent", autoencoder="s3://lab/vae"),
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["workers=0"], "workers=0.*at least 1"),
        (["workers=8", "batch_size=4"], "batch_size=4.*workers=8"),
        (["epochs=0"], "epochs=0"),
        (["ema_decay=1"], "ema_decay"),
        (["optim.lr=0"], "optim.lr"),
        (["optim.schedule.gamma=0"], "gamma"),
        (["name=../elsewhere"], "name='../elsewhere'"),
        (["storage="], "storage"),
        (["precision=fp8"], "precision"),
        (["workers=two"], "workers"),
        (["optim.learning_rate=1"], "Did you mean 'optim.lr'"),
        (["cpus_per_worker=0"], "cpus_per_worker"),
        (["max_failures=-2"], "max_failures"),
        (["lease_s=0.5"], r"lease_s=0.5.*\[1, 3600\]"),
        (["lease_s=1e9"], "lease_s"),
        (["data.fraction=0"], "fraction"),
        (["data.train_split=[trian]"], "must be some of"),
        (["data.train_split=[train,test]"], "holds the test split"),
        (["task.ssim_window=4"], "ssim_window"),
        (["model.kind=bridge"], "task.kind=reconstruction: does not train model.kind=bridge. Set task.kind=bridge"),
        (["task.kind=bridge"], "task.kind=bridge: does not train model.kind=varnet. Set task.kind=reconstruction"),
        (["micro_batch=-1"], "micro_batch=-1"),
        (["model.kind=varnett"], "Did you mean 'varnet'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(changes, message):
    with pytest.raises((ConfigError, LeakageError), match=message):
        override(Experiment(), changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.kind=image"], "task.kind=reconstruction: does not train data.kind=image. Set task.kind=mae"),
        (["task.kind=mae", "model.kind=mae"], "task.kind=mae: does not train data.kind=kspace_lines. Set task.kind=reconstruction"),
    ],
)
def test_a_task_refuses_samples_that_it_does_not_take(changes, message):
    with pytest.raises(ConfigError, match=message):
        override(Experiment(), changes)


def test_a_task_takes_all_samples_that_come_as_what_it_takes():
    for kind in ("kspace_lines", "kspace_kt"):
        assert override(Experiment(), [f"data.kind={kind}"]).data.kind == kind


def test_samples_run_at_once_are_no_science():
    assert science(Experiment(micro_batch=3)) == science(Experiment())


def test_both_halves_are_overridden_by_the_same_paths():
    changed = override(
        Experiment(), ["workers=2", "storage=s3://bucket/runs", "optim.lr=1e-3", "model.num_cascades=3", "data.mask.accelerations=[8]"]
    )
    assert (changed.workers, changed.optim.lr, changed.model.num_cascades) == (2, 1e-3, 3)
    assert changed.run_uri == "s3://bucket/runs/run"


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_shown_of_a_recipe_is_what_one_types_for_it(recipe, capsys):
    settings = ["name=12:30", "storage=/data/runs #2", "wandb.group=a$b `c` !d", "data.trusted=[s3://a, on, '/b, #c']", "optim.lr=1e-5"]
    assert train.main([recipe, *settings, "--show"]) == 0
    assert override(Experiment(), shlex.split(capsys.readouterr().out)) == override(find_recipe(recipe)(), settings)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize(
    "setting", ["optim.lr={}", "optim.clip_norm={}", "ema_decay={}", "data.mask.accelerations=[{}]", "optim.betas=[0.9, {}]"]
)
def test_no_number_of_an_experiment_is_without_an_end(setting, value):
    with pytest.raises(ConfigError, match=r"is not a finite number|is beyond the numbers"):
        override(Experiment(), [setting.format(value)])


def test_a_configuration_survives_json():
    experiment = override(Experiment(), ["optim.schedule.kind=cosine", "model.chans=4"])
    assert from_dict(Experiment, to_dict(experiment)) == experiment


@pytest.mark.parametrize("path", ["model.num_cascades", "task.smoothness"])
def test_a_setting_of_another_method_is_unknown(path):
    with pytest.raises(ConfigError, match=f"unknown key '{path}'.*Did you mean '{path.split('.')[0]}."):
        override(LBM, [f"{path}=3"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["task.times=[0,1]"], r"task.times=\[0.0, 1.0\]: must lie in \(0, 1\]"),
        (["task.probabilities=[1]"], "one per time"),
        (["task.probabilities=[0.5,0.5,0.5,0.5]"], "sum to 1"),
        (["task.noise=-1"], "task.noise=-1"),
        (["task.sampling_steps=0"], "sampling_steps=0"),
        (["task.ssim_window=2"], "ssim_window"),
        (["model.transformers=[0,0]"], "1 model.widths and 2 model.transformers"),
        (["model.widths=[33]"], "width of 33: must be a multiple of model.groups=32"),
        (["model.transformers=[1]"], "model.head_channels=64"),
        (["model.blocks=0"], "below 1"),
        (["model.space=wavelet"], "model.space='wavelet'"),
        (["model.space=pixel"], "model.autoencoder=s3://lab/vae: is not used by a bridge on pixels"),
    ],
)
def test_a_setting_of_a_bridge_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        override(LBM, changes)


def test_either_method_survives_json_and_its_weights_are_science():
    assert from_dict(Experiment, to_dict(LBM)) == LBM
    assert science(LBM)["model.autoencoder"] == "s3://lab/vae"
    assert override(Experiment(), ["model.kind=bridge", "task.kind=bridge"]) == Experiment(model=BridgeNetworkConfig(), task=BridgeConfig())


def test_a_configuration_from_before_there_were_several_methods_is_of_varnet():
    values = to_dict(Experiment())
    del values["model"]["kind"], values["task"]["kind"]
    assert from_dict(Experiment, values) == Experiment()
    before = {path: value for path, value in science(Experiment()).items() if path not in ("model.kind", "task.kind")}
    assert changed_keys(before, science(Experiment())) == {}
    assert changed_keys(before, science(LBM))["model.kind"] == ("varnet", "bridge")


def test_a_setting_that_came_after_a_checkpoint_had_the_default_of_its_own_method():
    before = science(LBM)
    del before["task.ssim_weight"], before["model.init"]
    assert changed_keys(before, science(LBM)) == {}
    assert changed_keys(before, science(override(LBM, ["task.ssim_weight=2"]))) == {"task.ssim_weight": (0.0, 2.0)}
