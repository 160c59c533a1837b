"""Which run stands for a sweep."""

import pytest

from echotrain.errors import ConfigError
from echotrain.storage.local import LocalStore
from echotrain.sweeps.best import best_run
from echotrain.sweeps.trial import SweepFolder, Trial


def write_sweep(path, metric, *trials):
    folder = SweepFolder(LocalStore(path))
    folder.describe({"name": "s", "searched": {"metric": metric}})
    for number, (state, curve) in enumerate(trials):
        folder.save(
            Trial(number=number, name=str(number), values={}, run=f"s3://b/runs/s/{number}", state=state, curve=tuple(enumerate(curve)))
        )
    return str(path)


@pytest.mark.parametrize(
    ("metric", "best"),
    [(None, 1), ({"name": "epoch/psnr", "goal": "maximize"}, 1), ({"name": "epoch/loss", "goal": "minimize"}, 0)],
)
def test_a_sweep_is_its_best_trial_that_did_not_fail(tmp_path, metric, best):
    trials = ("finished", [0.2, 0.1]), ("stopped", [0.9, 0.4]), ("failed", [99.0, 0.0]), ("waiting", [])
    assert best_run(write_sweep(tmp_path, metric, *trials)) == f"s3://b/runs/s/{best}"


@pytest.mark.parametrize(("goal", "best"), [("minimize", 0), ("maximize", 1)])
def test_a_sweep_without_a_metric_of_its_own_goes_the_way_of_its_tasks_score(tmp_path, goal, best):
    uri = write_sweep(tmp_path, None, ("finished", [0.2, 0.1]), ("finished", [0.9, 0.4]))
    folder = SweepFolder(LocalStore(tmp_path))
    folder.describe({**folder.description(), "compared_by": {"name": "epoch/nmse", "goal": goal}})
    assert best_run(uri) == f"s3://b/runs/s/{best}"


def test_a_run_stands_for_itself(tmp_path):
    assert best_run(str(tmp_path)) == str(tmp_path)


def test_a_sweep_without_a_score_has_none_yet(tmp_path):
    with pytest.raises(ConfigError, match=r"no trial has a score.*Wait for its first validation"):
        best_run(write_sweep(tmp_path, None, ("running", []), ("failed", [1.0])))
