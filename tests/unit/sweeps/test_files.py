"""Every file in ``sweeps/``: W&B takes it, and so do we; its trials are valid experiments."""

import itertools
from pathlib import Path

import jsonschema
import pytest
import yaml

from echotrain.config import override
from echotrain.recipes.registry import find_recipe
from echotrain.sweeps.parameters import Choice
from echotrain.sweeps.space import as_settings, short_names, trial_name
from echotrain.sweeps.spec import read_sweep

FILES = sorted((Path(__file__).resolve().parents[3] / "sweeps").glob("*.yaml"))


def test_there_are_files_and_each_has_a_small_sibling():
    names = {path.stem for path in FILES}
    assert {"mosaic_scaling", "learning_rate", "mask"} <= names
    assert {f"{name}_debug" for name in names if not name.endswith("_debug")} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_wandb_takes_the_file(path, wandb_schema):
    jsonschema.validate(yaml.safe_load(path.read_text()), wandb_schema)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_corner_of_the_space_is_a_valid_experiment_of_a_name_of_its_own(path):
    spec = read_sweep(path)
    assert spec.name == path.stem
    base = override(find_recipe(spec.recipe)(), spec.settings)
    corners = [
        parameter.values if isinstance(parameter, Choice) else (parameter.min, parameter.max) for parameter in spec.parameters.values()
    ]
    names = short_names(list(spec.parameters))
    points = [dict(zip(spec.parameters, point, strict=True)) for point in itertools.product(*corners)]
    experiments = [override(base, as_settings(point)) for point in points]
    assert len({trial_name(point, names) for point in points}) == len(points)
    assert all(one != other for one, other in itertools.combinations(experiments, 2))
