"""Sweep files: read as W&B reads them, refused with the key, the limit and the remedy."""

import pytest
import yaml

from echotrain.errors import ConfigError
from echotrain.sweeps.parameters import Choice, IntUniform, LogUniform, Uniform, parse_parameter
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
        ({"scheduler": {"engine": "ax"}}, "scheduler: is no key that can be run here. Use method: bayes"),
        ({"parameters": {"seed": {"distribution": ["beta"]}}}, "seed: distribution .*: cannot be run here"),
        ({"parameters": {"seed": {"values": "abc"}}}, r"seed: values: 'abc': must be a list.*Write values: \[abc\]"),
        ({"parameters": {"seed": {"values": {"a": 1}}}}, "seed: values: .*: must be a list"),
        ({"parameters": {"seed": {"values": [1, None]}}}, "seed: values: .* has an empty one"),
        ({"parameters": {"seed": {"value": None}}}, "seed: values: .* has an empty one"),
        ({"parameters": {"seed": {"value": 1, "values": [1, 2]}}}, "seed: values: means nothing to distribution constant"),
        ({"parameters": {"seed": {"values": [1, 2], "q": 1}}}, "seed: q: means nothing to distribution categorical"),
        ({"parameters": {"seed": {"min": 0, "max": 9, "q": 2}}}, "seed: q: means nothing to distribution int_uniform"),
        (
            {"parameters": {"seed": {"distribution": "categorical", "values": [1], "probabilities": [1]}}},
            "seed: probabilities: means nothing to distribution categorical",
        ),
        ({"parameters": {"seed": {"distribution": "q_uniform", "min": 0, "max": 9, "q": 0}}}, "seed: q: 0: must be above 0"),
        ({"parameters": {"seed": {"distribution": "q_uniform", "min": 5, "max": 6, "q": 4}}}, "seed: q=4: has no multiple from 5 to 6"),
        (
            {"method": "random", "run_cap": 7, "parameters": {"seed": {"min": 1, "max": 3}, "a": {"values": [1, 2, 2]}}},
            "run_cap 7: is more than the 6 different points.*Set run_cap: 6",
        ),
        ({"parameters": {"seed": {"min": "010", "max": 90}}}, "seed: min=010: has a leading zero"),
        ({"parameters": {"seed": {"min": True, "max": 90}}}, "seed: min: True: must be a number"),
        ({"parameters": {"seed": {"min": "nan", "max": 1.0}}}, "seed: min='nan': is not a finite number"),
        ({"parameters": {"seed": {"values": [1, 2], "probabilities": [0.5, 0.5]}}}, "seed: probabilities: mean nothing to method grid"),
        ({"parameters": {"data": {"parameters": {"fraction": {"value": 1}}, "value": 2}}}, "data: value: is no key that can be run"),
        (
            {"parameters": {"data.fraction": {"value": 1}, "data": {"parameters": {"fraction": {"value": 2}}}}},
            "parameter data.fraction: is given twice",
        ),
        ({"name": None}, "name: None: must be a text"),
        ({"project": ["a"]}, r"project: \['a'\]: must be a text"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 2, "s": 2}}, "early_terminate: s: means nothing beside min_iter"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 2, "max_iter": 9}}, "max_iter: means nothing beside min_iter"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 1}}, "eta 1: must be a whole number of at least 2"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 2.5}}, "eta 2.5: must be a whole number"),
        ({"early_terminate": {"type": "hyperband", "max_iter": 10, "s": 2}}, r"max_iter=10: must be a multiple of eta\*\*s = 9"),
    ],
)
def test_what_cannot_be_run_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse(GRID, **changes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["${env}", "python", "-m", "ray_jobs.train", "r"], r"takes no parameters without \$\{args_no_hyphens\}"),
        (["python", "-m", "ray_jobs.train", "r", "${args}"], r"command \$\{args\}: is no part of a command"),
        (["python", "-m", "ray_jobs.train", "r", "--show", "${args_no_hyphens}"], "command --show: is no part of a command"),
        (["SEED=1", "python", "-m", "ray_jobs.train", "r", "${args_no_hyphens}"], "command SEED=1: is no part of a command"),
        (["python", "-m", "ray_jobs.train", "${args_no_hyphens}"], "must run ray_jobs.train with a recipe"),
    ],
)
def test_a_command_of_which_a_part_would_be_ignored_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        parse(GRID, command=words)


# What each key of W&B's format is to us, by its place in the schema.
HONOURED = {
    "": {"name", "description", "method", "command", "parameters", "metric", "early_terminate", "run_cap", "project", "entity"},
    "metric": {"name", "goal"},
    "early_terminate": {"type", "min_iter", "max_iter", "s", "eta"},
}
REFUSED = {
    "": {"apiVersion", "kind", "controller", "program", "job", "image_uri", "metrics", "scheduler"},
    "metric": {"target", "impute", "impute_while_running"},
    "early_terminate": {"strict"},
}
BASES = {"": {}, "metric": {"name": "epoch/ssim"}, "early_terminate": {"type": "hyperband", "min_iter": 2}}


def test_every_key_of_wandbs_schema_is_honoured_or_refused(wandb_schema):
    definitions = wandb_schema["definitions"]
    places = {"": wandb_schema, "metric": definitions["metric"], "early_terminate": definitions["hyperband_stopping"]}
    assert {place: set(schema["properties"]) for place, schema in places.items()} == {
        place: HONOURED[place] | REFUSED[place] for place in places
    }


@pytest.mark.parametrize(("place", "key"), [(place, key) for place, keys in REFUSED.items() for key in sorted(keys)])
def test_a_key_that_is_not_honoured_is_refused_with_what_to_do_instead(place, key):
    changes = {place: {**BASES[place], key: True}} if place else {key: True}
    with pytest.raises(ConfigError) as caught:
        parse(GRID, **changes)
    assert caught.value.value.endswith(f"{place}: {key}" if place else f"sweep file: {key}")
    assert not caught.value.remedy.startswith("Use some of")


def test_every_distribution_of_wandbs_schema_is_read_with_all_its_keys_or_refused(wandb_schema):
    kinds = {}
    for schema in wandb_schema["definitions"]["parameter"]["anyOf"]:
        definition = wandb_schema["definitions"][schema["$ref"].rpartition("/")[2]]
        properties = definition.get("anyOf", [definition])[0]["properties"]
        if "distribution" in properties:
            kinds[properties["distribution"]["enum"][0]] = set(properties) - {"distribution"}
    refused = {"beta", "q_beta", "inv_log_uniform", "inv_log_uniform_values"}
    values = {"min": 1, "max": 2, "q": 1, "mu": 0, "sigma": 1, "value": 1, "values": [1], "probabilities": [1.0]}
    assert refused < set(kinds)
    for kind, keys in kinds.items():
        given = {"distribution": kind, **{key: values[key] for key in keys - {"a", "b"}}}
        if kind in refused:
            with pytest.raises(ConfigError, match="cannot be run here"):
                parse_parameter("x", given)
        else:
            parse_parameter("x", given)
            for key in set(values) - keys:
                with pytest.raises(ConfigError, match=f"x: {key}: means nothing to distribution {kind}"):
                    parse_parameter("x", {**given, key: values[key]})


def test_numbers_of_a_file_are_those_that_a_person_sees(tmp_path):
    text = GRID.replace("seed: {min: 0, max: 2}", "seed: {min: 1_0, max: 20}").replace("[0.1, 1.0]", "[.1, 1e-1, 1.0]")
    (tmp_path / "sweep.yaml").write_text(text + "  optim.lr: {distribution: q_uniform, min: 1e-3, max: 2e-3, q: 1e-3}\nrun_cap: 1_0\n")
    spec = read_sweep(tmp_path / "sweep.yaml")
    assert spec.parameters["seed"] == IntUniform(min=10, max=20)
    assert spec.parameters["optim.lr"] == Uniform(min=1e-3, max=2e-3, q=1e-3)
    assert spec.parameters["data.fraction"] == Choice(values=(".1", "1e-1", 1.0))
    assert spec.run_cap == 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "is not YAML"),
        (b"name: a\nmethod: grid\nname: b", "is not YAML .*'name' is named twice"),
        (b"name: !!int 010", "is not YAML .*the tag .* is unknown"),
        (b"[a]: 1", "is not YAML .*a key is no word"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"- 1", "must be a mapping"),
    ],
)
def test_a_file_that_is_no_sweep_is_refused(tmp_path, content, message):
    (tmp_path / "sweep.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_sweep(tmp_path / "sweep.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_sweep(tmp_path / "none.yaml")
