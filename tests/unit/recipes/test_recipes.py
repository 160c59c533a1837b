"""Recipes: every one builds, has a sibling that is small, and says what it reproduces."""

import os
import shlex
import subprocess
import sys

import pytest

from echotrain.config import from_dict, override, to_dict
from echotrain.errors import ConfigError
from echotrain.recipes.registry import RECIPES, find_recipe
from echotrain.training.experiment import Experiment
from ray_jobs.train import main

FULL = sorted(name for name in RECIPES if not name.endswith("_debug"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_valid_experiment_of_its_own_name(name):
    experiment = RECIPES[name]()
    assert experiment.name == name
    assert from_dict(Experiment, to_dict(experiment)) == experiment


@pytest.mark.parametrize("name", FULL)
def test_a_recipe_has_a_small_sibling_with_the_same_mask(name):
    full, small = RECIPES[name](), RECIPES[f"{name}_debug"]()
    assert (small.data.kind, getattr(small.data, "mask", None)) == (full.data.kind, getattr(full.data, "mask", None))
    assert sum(parameter.numel() for parameter in small.model.build().parameters()) < 20_000


@pytest.mark.parametrize("name", FULL)
def test_a_recipe_says_what_it_reproduces_what_to_expect_and_on_what(name):
    text = RECIPES[name].__doc__
    assert all(word in text for word in ("Reproduces:", "Expected:", "Hardware:"))
    assert name.endswith("_demo") or "never run here" in text


def test_the_paper_size_has_the_papers_parameter_count():
    import torch

    with torch.device("meta"):
        model = find_recipe("varnet_mosaic_x8")().model.build()
    assert sum(parameter.numel() for parameter in model.parameters()) == 29_936_966


def test_the_latent_recipe_has_the_size_of_stable_diffusion_xl_without_its_text_and_sizes():
    import torch

    with torch.device("meta"):
        model = find_recipe("lbm_mosaic_x4")().model.build()
    published = 2_567_463_684
    sizes = (2816 + 1) * 1280 + (1280 + 1) * 1280  # The embedding of the image's size and of the pooled text.
    shorter = 2 * (2048 - 640) * 640 * 10 + 2 * (2048 - 1280) * 1280 * 60  # Keys and values of 70 blocks, from image instead of text.
    assert sum(parameter.numel() for parameter in model.parameters()) == published - sizes - shorter == 2_426_231_044


def test_the_masked_autoencoder_has_the_papers_size_for_one_channel():
    import torch

    with torch.device("meta"):
        model = find_recipe("mae")().model.build()
    assert sum(parameter.numel() for parameter in model.parameters()) == 111_251_968


@pytest.mark.parametrize("module", ["echotrain.recipes.registry", "ray_jobs.train"])
def test_nobody_waits_for_libraries_that_only_others_need(module):
    code = f"import sys, {module}; found = set(sys.argv[1:]) & set(sys.modules); assert not found, found"
    heavy = ["diffusers", "safetensors", "huggingface_hub", "transformers", "pydicom", "nibabel"]
    slow = ["torch._dynamo", "matplotlib", "scipy", "skimage", "wandb"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, *heavy, *slow], check=True, env=environment)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match=r"varnet_mosaic_x6.*Did you mean 'varnet_mosaic_x[48]'"):
        find_recipe("varnet_mosaic_x6")


def test_every_setting_can_be_shown_and_given_back(capsys):
    assert main(["varnet_mosaic_x8", "--show", "optim.lr=2e-4", "data.where.anatomy=[knee]"]) == 0
    shown = capsys.readouterr().out
    assert "data.where.anatomy='[\"knee\"]'" in shown.splitlines()
    assert override(RECIPES["varnet_fastmri_knee_x4"](), shlex.split(shown)) == override(
        RECIPES["varnet_mosaic_x8"](), ["optim.lr=2e-4", "data.where.anatomy=[knee]"]
    )


@pytest.mark.parametrize("name", ["varnet_cmrxrecon", "varnet_cmrxrecon_debug"])
def test_frames_alone_become_windows_of_five_by_two_settings(name):
    import torch

    alone = find_recipe(name)()
    windows = override(alone, ["data.num_adjacent=5", "model.num_adjacent=5"])
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in experiment.model.build().parameters()) for experiment in (alone, windows)]
    # Of each cascade, the first convolution and the last: 8 more channels in, and 8 more out with their biases.
    chans, cascades = alone.model.chans, alone.model.num_cascades
    assert sizes[1] - sizes[0] == cascades * (8 * 9 * chans + 8 * chans + 8)
