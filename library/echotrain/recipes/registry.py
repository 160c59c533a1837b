"""Every recipe by its name."""

import difflib
from collections.abc import Callable, Mapping
from typing import TypeVar

from echotrain.errors import ConfigError
from echotrain.recipes import cmrxrecon, lbm, mae, varnet
from echotrain.training.experiment import Experiment

__all__ = ["RECIPES", "find_named", "find_recipe"]

T = TypeVar("T")

RECIPES: dict[str, Callable[[], Experiment]] = {
    "lbm_mosaic_x4": lbm.lbm_mosaic_x4,
    "lbm_mosaic_x4_debug": lbm.lbm_mosaic_x4_debug,
    "mae": mae.mae,
    "mae_debug": mae.mae_debug,
    "varnet_cine_demo": cmrxrecon.varnet_cine_demo,
    "varnet_cine_demo_debug": cmrxrecon.varnet_cine_demo_debug,
    "varnet_cmrxrecon": cmrxrecon.varnet_cmrxrecon,
    "varnet_cmrxrecon_debug": cmrxrecon.varnet_cmrxrecon_debug,
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
    return find_named("recipe", name, RECIPES)


def find_named(kind: str, name: str, known: Mapping[str, T]) -> T:
    """Return what has this name among all that are ``kind``; errors are those of ``find_recipe``."""
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ConfigError(f"unknown {kind} {name!r}", "is not one of those that --list shows", f"Did you mean {nearest!r}?")
    return known[name]
