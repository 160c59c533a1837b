"""Sweeps through Ray Tune: trials are the runs they would be alone, failures stay their own, and a resume repeats nothing."""

import csv
import dataclasses
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from echotrain.config import override
from echotrain.errors import CatalogError, ConfigError, ResourceError
from echotrain.orchestration.jobs import tuning
from echotrain.orchestration.jobs.tuning import run_sweep
from echotrain.storage.open import open_store
from echotrain.sweeps.console import SweepConsole
from echotrain.sweeps.parameters import Choice, LogUniform
from echotrain.sweeps.spec import Hyperband, Metric, SweepSpec
from echotrain.sweeps.trial import SweepFolder
from ray_jobs.sweep import main
from tests.local_cluster import assert_same_run, run

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]


def grid(**parameters):
    return SweepSpec(
        name="grid", recipe="varnet_mosaic_x4_debug", method="grid", parameters={k: Choice(values=v) for k, v in parameters.items()}
    )


def sweep(spec, experiment, *settings, **options):
    return run_sweep(spec, override(experiment, settings), console=SweepConsole(Console(quiet=True)), **options)


def test_trials_are_the_runs_they_would_be_alone_and_one_that_fails_stops_no_other(local_ray, experiment):
    spec = grid(**{"optim.lr": (1e-3, 1e37), "seed": (1, 2)})
    result = sweep(spec, experiment, "epochs=1", concurrency=2)
    assert result.is_finished
    assert [trial.state for trial in result.trials] == ["finished", "finished", "failed", "failed"]
    assert "is not finite; samples: " in result.trials[2].reason
    assert "lower optim.lr" in result.trials[2].reason
    alone = run(experiment, "epochs=1", "seed=2", "optim.lr=1e-3", "name=alone")
    swept = run(experiment, "epochs=1", "seed=2", "optim.lr=1e-3", "name=grid/lr=0.001,seed=2")  # Finished: nothing is started.
    assert_same_run(alone, swept)
    described = json.loads(open_store(swept.run_uri).read("config.json"))["experiment"]["wandb"]
    assert (described["group"], described["name"]) == ("grid", "lr=0.001 seed=2")
    rows = list(csv.DictReader(io.StringIO(open_store(result.folder).read("table.csv").decode())))
    assert [row["name"] for row in rows] == [trial.name for trial in result.trials]
    assert float(rows[1]["ssim"]) == swept.scores["ssim"]
    with pytest.raises(ConfigError, match=r"holds a sweep of this name already.*--resume"):
        sweep(spec, experiment, "epochs=1")
    with pytest.raises(ConfigError, match=r"holds another sweep: optim.clip_norm was .*, now 0.5"):
        sweep(spec, experiment, "epochs=1", "optim.clip_norm=0.5", resume=True)
    with pytest.raises(ConfigError, match=r"parameters\.seed\.values was \[1, 2\], now \[1\]"):
        sweep(grid(**{"optim.lr": (1e-3, 1e37), "seed": (1,)}), experiment, "epochs=1", resume=True)
    assert sweep(spec, experiment, "epochs=1", resume=True).trials == result.trials  # Ended: nothing is started.


def test_a_search_ends_early_what_falls_behind_and_goes_on_as_if_nothing_had_happened(local_ray, experiment):
    spec = SweepSpec(
        name="search",
        recipe="varnet_mosaic_x4_debug",
        method="bayes",
        parameters={"optim.lr": LogUniform(min=1e-6, max=1e-2)},
        metric=Metric(name="epoch/ssim", goal="maximize"),
        early_terminate=Hyperband(min_iter=1, eta=2),
        run_cap=5,
    )
    whole = sweep(spec, experiment, concurrency=1)
    states = [trial.state for trial in whole.trials]
    assert states.count("stopped") >= 1
    assert states.count("finished") >= 2
    stopped = next(trial for trial in whole.trials if trial.state == "stopped")
    assert [epochs for epochs, _ in stopped.curve] == [1]

    # What a driver that died in the fourth trial has left.
    table = Path(whole.folder) / "table.csv"
    expected = table.read_bytes()
    SweepFolder(open_store(whole.folder)).save(dataclasses.replace(whole.trials[3], state="running"))
    (table.parent / "trials/00004.json").unlink()
    shutil.rmtree(whole.trials[4].run)
    table.unlink()
    resumed = sweep(spec, experiment, concurrency=1, resume=True)
    assert resumed.is_finished
    assert resumed.trials[:3] == whole.trials[:3]
    assert table.read_bytes() == expected


@pytest.fixture
def sweep_file(tmp_path):
    """Return a sweep of four short trials."""
    content = {
        "name": "killed",
        "method": "grid",
        "command": ["python", "-m", "ray_jobs.train", "varnet_mosaic_x4_debug", "epochs=3", "checkpoint_every=2", "${args_no_hyphens}"],
        "parameters": {"model.num_cascades": {"values": [1, 2]}, "seed": {"values": [1, 2]}},
    }
    path = tmp_path / "killed.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow
def test_a_sweep_killed_at_a_random_moment_and_resumed_gives_the_same_table(local_ray, sweep_file, catalog_uri, tmp_path, capsys):
    settings = [f"data.catalog={catalog_uri}", "--concurrency", "2"]
    assert main([str(sweep_file), *settings, f"storage={tmp_path / 'whole'}"]) == 0
    capsys.readouterr()
    command = [sys.executable, "-m", "ray_jobs.sweep", str(sweep_file), *settings, f"storage={tmp_path / 'killed'}"]
    environment = {**os.environ, "RAY_ADDRESS": "local", "PYTHONPATH": str(ROOT / "library")}
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        wait_for(lambda: "trial 1/4 started" in (tmp_path / "log").read_text(), driver)
        moment = random.SystemRandom().uniform(0, 20)
        with_moment = f"killed after {moment:.2f} s"
        time.sleep(moment)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    folder = SweepFolder(open_store(f"{tmp_path / 'killed'}/killed"))
    before = {trial.number: trial for trial in folder.trials() if trial.has_ended}
    assert main([*command[3:], "--resume"]) == 0, with_moment
    assert (tmp_path / "killed/killed/table.csv").read_bytes() == (tmp_path / "whole/killed/table.csv").read_bytes(), with_moment
    after = {trial.number: trial for trial in folder.trials()}
    assert all(after[number] == trial for number, trial in before.items()), with_moment


def wait_for(condition, process, *, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the sweep ended by itself"
        assert time.monotonic() < deadline, "the sweep did not begin in time"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("parameters", "settings", "options", "error", "message"),
    [
        ({"data.anatomies": ([], ["liver"])}, [], {}, CatalogError, "anatomy liver: is not in the catalog"),
        ({"data.datasets": (["none"],)}, [], {}, CatalogError, "dataset none: is not in the catalog"),
        ({"seed": (1, 2)}, ["data.catalog=/nowhere"], {}, CatalogError, "/nowhere"),
        ({"seed": (1, 2)}, [], {"resume": True}, ConfigError, "holds no sweep to resume"),
        ({"seed": (1, 2)}, [], {"concurrency": 99}, ResourceError, "99 trials at a time.*the cluster holds 4"),
        ({"seed": (1, 2)}, [], {"concurrency": -1}, ConfigError, "-1 trials at a time: must be at least 1"),
        ({"seed": (1, 2)}, ["workers=99", "batch_size=99"], {}, ResourceError, "workers=99"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    local_ray, experiment, parameters, settings, options, error, message, tmp_path
):
    with pytest.raises(error, match=message):
        sweep(grid(**parameters), experiment, *settings, **options)
    assert not list(tmp_path.iterdir())


def test_a_catalog_is_loaded_once_to_start_a_sweep(experiment, monkeypatch, caplog):
    # The check that follows is the first that needs a cluster; refused there, the sweep has looked at its catalog.
    monkeypatch.setattr(tuning, "connect", lambda: (_ for _ in ()).throw(ResourceError("the cluster", "is not there", "Start one.")))
    with caplog.at_level("INFO"), pytest.raises(ResourceError, match="is not there"):
        sweep(grid(seed=(1, 2), **{"data.fraction": (0.5, 1.0)}), experiment)
    assert sum("Loaded catalog" in record.message for record in caplog.records) == 1


def test_the_verb_shows_trials_and_refuses_with_2(sweep_file, capsys):
    assert main([str(sweep_file), "--show"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert shown[1] == {"model.num_cascades": 1, "seed": 2}
    assert main([str(sweep_file), "--show", "optim.rate=1"]) == 2
    assert "Did you mean" in capsys.readouterr().err
