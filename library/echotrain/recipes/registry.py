"""Every recipe by its name."""

import difflib
from collections.abc import Callable

from echotrain.errors import ConfigError
from echotrain.recipes import lbm, varnet
from echotrain.training.experiment import Experiment

__all__ = ["RECIPES", "find_recipe"]

RECIPES: dict[str, Callable[[], Experiment]] = {
    "lbm_mosaic_x4": lbm.lbm_mosaic_x4,
    "lbm_mosaic_x4_debug": lbm.lbm_mosaic_x4_debug,
    "varnet_demo": varnet.varnet_demo,
    "varnet_demo_debug": varnet.varnet_demo_debug,
    "varnet_fastmri_knee_x4": varnet.varnet_fastmri_knee_x4,
    "varnet_fastmri_knee_x4_debug": varnet.varnet_fastmri_knee_x4_debug,
    "varnet_fastmri_knee_x8": varnet.varnet_fastmri_knee_x8,
    "varnet_fastmri_knee_x8_debug": varnet.varnet_fastmri_knee_x8_debug,
    "varnet_mosaic_x4": varnet.varnet_mosaic_x4,
    "varnet_mosaic_x4_debug": varnet.varnet_mosaic_x4_debug,
    "varnet_mosaic_x8": varnet.varnet_mosaic_x8,
    "varnet_mosaic_x8_debug": varnet.varnet_mosaic_x8_debug,
}


def find_recipe(name: str) -> Callable[[], Experiment]:
    """Return a recipe.

    Raises:
        ConfigError: There is none of this name; the nearest is named.
    """
    if name not in RECIPES:
        nearest = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.0)[0]
        raise ConfigError(f"unknown recipe {name!r}", "is not one of those that --list shows", f"Did you mean {nearest!r}?")
    return RECIPES[name]
