"""The W&B workspace shows what runs log, and a sweep's parameters."""

import json
import re
from pathlib import Path

import pytest

from echotrain.sweeps.spec import read_sweep
from echotrain.tasks.reconstruction import ReconstructionTask
from ray_jobs import train, workspace

SWEEP = Path(__file__).resolve().parents[3] / "sweeps" / "mosaic_scaling.yaml"
# What the trainer logs of every step and epoch; tests/unit/training/test_loop.py holds it to that.
LOGGED = {f"train/{name}" for name in ("loss", "lr", "grad_norm", "samples_per_s", "bytes_per_s", "data_wait_s", "step_s")}


def shown(capsys, *arguments):
    assert workspace.main(["lab/echotrain", "--show", *arguments]) == 0
    definition = json.loads(capsys.readouterr().out)
    return [
        (section["name"], panel) for section in definition["spec"]["section"]["panelBankConfig"]["sections"] for panel in section["panels"]
    ]


def test_every_curve_is_one_that_runs_log(capsys):
    panels = [panel for _, panel in shown(capsys)]
    curves = {metric for panel in panels for metric in panel["config"].get("metrics") or ()}
    assert curves == LOGGED | {f"epoch/{name}" for name in ("loss", *ReconstructionTask.metrics)}
    patterns = [panel["config"]["metricRegex"] for panel in panels if panel["config"].get("metricRegex")]
    assert [bool(re.search(pattern, "anatomy/knee/ssim")) for pattern in patterns].count(True) == 1
    assert [panel["config"]["mediaKeys"] for panel in panels if panel["config"].get("mediaKeys")] == [["validation"]]


def test_a_sweep_shows_its_parameters_against_its_metric(capsys):
    first, *_ = [panel for name, panel in shown(capsys, "--sweep", str(SWEEP)) if name == "Sweep"]
    accessors = [column["accessor"] for column in first["config"]["columns"]]
    assert accessors == ["config:model.value.num_cascades", "config:data.value.fraction", "summary:epoch/psnr"]
    assert list(read_sweep(SWEEP).parameters) == ["model.num_cascades", "data.fraction"]


@pytest.mark.parametrize("where", ["echotrain", "/echotrain", "lab/", "a/b/c"])
def test_a_place_that_is_none_is_refused(where, capsys):
    assert workspace.main([where, "--show"]) == 2
    assert "must be ENTITY/PROJECT" in capsys.readouterr().err


def test_a_key_that_wandb_refuses_is_told(monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert workspace.main(["lab/echotrain"]) == 2
    assert "was not accepted by W&B" in capsys.readouterr().err


def test_runs_of_a_wandb_agent_are_kept_apart(monkeypatch, capsys):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s9")
    for run in ("r1", "r2"):
        monkeypatch.setenv("WANDB_RUN_ID", run)
        assert train.main(["varnet_mosaic_x4_debug", "--show"]) == 0
        assert f'name="varnet_mosaic_x4_debug-s9/{run}"' in capsys.readouterr().out
