"""The configuration of a run: what is refused, and how it is overridden."""

import pytest

from echotrain.config import from_dict, override, to_dict
from echotrain.errors import ConfigError, LeakageError
from echotrain.training.experiment import Experiment


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
        (["data.fraction=0"], "fraction"),
        (["data.train_split=[trian]"], "must be some of"),
        (["data.train_split=[train,test]"], "holds the test split"),
        (["task.ssim_window=4"], "ssim_window"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(changes, message):
    with pytest.raises((ConfigError, LeakageError), match=message):
        override(Experiment(), changes)


def test_both_halves_are_overridden_by_the_same_paths():
    changed = override(
        Experiment(), ["workers=2", "storage=s3://bucket/runs", "optim.lr=1e-3", "model.num_cascades=3", "data.mask.accelerations=[8]"]
    )
    assert (changed.workers, changed.optim.lr, changed.model.num_cascades) == (2, 1e-3, 3)
    assert changed.run_uri == "s3://bucket/runs/run"


def test_a_configuration_survives_json():
    experiment = override(Experiment(), ["optim.schedule.kind=cosine", "model.chans=4"])
    assert from_dict(Experiment, to_dict(experiment)) == experiment
