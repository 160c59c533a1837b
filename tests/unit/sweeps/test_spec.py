"""Sweep files: read as W&B reads them, refused with the key, the limit and the remedy."""

import pytest
import yaml

from echotrain.errors import ConfigError
from echotrain.sweeps.parameters import Choice, IntUniform, LogUniform, Uniform
from echotrain.sweeps.spec import Hyperband, Metric, parse_sweep, read_sweep

GRID = """
name: scaling
method: grid
command: ["${env}", python, -m, ray_jobs.train, varnet_mosaic_x8, workers=2, "${args_no_hyphens}"]
metric: {name: epoch/psnr, goal: maximize}
parameters:
  model.num_cascades: {values: [4, 8, 12]}
  data: {parameters: {fraction: {values: [0.1, 1.0]}}}
  seed: {min: 0, max: 2}
"""


def parse(text, **changes):
    return parse_sweep({**yaml.safe_load(text), **changes}, name="file")


def test_a_grid_is_read_with_its_experiment_and_nested_parameters():
    spec = parse(GRID)
    assert (spec.name, spec.recipe, spec.settings, spec.method) == ("scaling", "varnet_mosaic_x8", ("workers=2",), "grid")
    assert spec.metric == Metric(name="epoch/psnr", goal="maximize")
    assert dict(spec.parameters) == {
        "model.num_cascades": Choice(values=(4, 8, 12)),
        "data.fraction": Choice(values=(0.1, 1.0)),
        "seed": IntUniform(min=0, max=2),
    }


def test_a_search_with_early_termination_is_read():
    parameters = {"optim.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}, "batch_size": {"min": 1.0, "max": 8.0}}
    stop = {"type": "hyperband", "max_iter": 27, "s": 2}
    spec = parse(GRID, method="bayes", run_cap=20, parameters=parameters, early_terminate=stop)
    assert spec.parameters["optim.lr"] == LogUniform(min=1e-4, max=1e-2)
    assert spec.parameters["batch_size"] == Uniform(min=1, max=8)
    assert spec.early_terminate == Hyperband(min_iter=3, max_iter=27, eta=3)
    assert parse(GRID, early_terminate={"type": "hyperband", "min_iter": 2, "eta": 4}).early_terminate == Hyperband(min_iter=2, eta=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "annealing"}, "method 'annealing': must be one of grid, random, bayes"),
        ({"method": "random"}, "method random: would never end. Set run_cap"),
        ({"parameters": {}}, "parameters={}: must name at least one"),
        ({"parameters": {"optim.lr": 0.1}}, r"optim\.lr: 0\.1: must be a mapping.*values: \[0\.1\]"),
        ({"parameters": {"optim.lr": {"min": 0.1, "max": 1.0}}}, r"optim\.lr.*has no end of values for a grid"),
        ({"parameters": {"seed": {"values": []}}}, r"seed: values=\[\]: must name at least one"),
        ({"parameters": {"seed": {"min": 3, "max": 3}}}, "seed: min=3, max=3: must be finite, the first below"),
        ({"parameters": {"seed": {"distribution": "beta"}}}, "seed: distribution 'beta': cannot be run here"),
        ({"parameters": {"seed": {"distribution": "q_uniform", "min": 0}}}, "seed: q_uniform.*incomplete"),
        ({"parameters": {"seed": {"values": [1, 2], "probabilities": [0.5, 0.6]}}}, r"seed: probabilities=\[0\.5, 0\.6\].*sum 1"),
        ({"command": ["python", "train.py"]}, r"command .*must run ray_jobs\.train with a recipe"),
        ({"command": ["python", "-m", "ray_jobs.train", "lr=1"]}, "with a recipe"),
        ({"metric": {"goal": "maximize"}}, "metric: .*must have a name"),
        ({"metric": {"name": "epoch/ssim", "goal": "up"}}, "goal 'up': must be minimize or maximize"),
        ({"early_terminate": {"type": "median"}}, "must be of type hyperband"),
        ({"early_terminate": {"type": "hyperband", "max_iter": 9}}, "neither min_iter nor max_iter and s"),
        ({"run_cap": 0}, "run_cap 0: must be a whole number of at least 1"),
        ({"scheduler": {"engine": "ax"}}, "scheduler: is no key that can be run here"),
    ],
)
def test_what_cannot_be_run_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse(GRID, **changes)


@pytest.mark.parametrize(
    ("content", "message"), [(b"a: [1", "is not YAML"), (b"\xff\xfe\x00", "is not YAML"), (b"- 1", "must be a mapping")]
)
def test_a_file_that_is_no_sweep_is_refused(tmp_path, content, message):
    (tmp_path / "sweep.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_sweep(tmp_path / "sweep.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_sweep(tmp_path / "none.yaml")
