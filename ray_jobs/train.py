"""Train a recipe, or go on with a run: the same command resumes."""

import argparse
import os
import sys
from collections.abc import Sequence

from echotrain.config import override, to_dict
from echotrain.errors import EchotrainError
from echotrain.log import setup_logging
from echotrain.orchestration.runtime.driver import fit
from echotrain.recipes.debug_catalogs import ensure_data
from echotrain.recipes.registry import RECIPES, find_recipe
from echotrain.redaction import redacted
from echotrain.sweeps.space import as_shell_words
from echotrain.training.experiment import Experiment, flatten

EXAMPLES = """examples:
  python -m ray_jobs.train --list
  python -m ray_jobs.train varnet_mosaic_x8 --show           all its settings, as they would be given
  python -m ray_jobs.train varnet_mosaic_x8_debug            a recipe cut to seconds, on scans simulated on the spot
  python -m ray_jobs.train varnet_demo data.catalog=s3://bucket/prepared storage=s3://bucket/runs
  python -m ray_jobs.train varnet_mosaic_x8 data.catalog=s3://bucket/mosaic model.num_cascades=8 workers=4 name=mosaic-8
  ray job submit --working-dir . -- python -m ray_jobs.train varnet_mosaic_x4 data.catalog=s3://bucket/mosaic storage=s3://bucket/runs

Any setting of the experiment can be given as dotted.path=value; --show prints all of them.
SIGTERM or Ctrl-C saves a checkpoint first; the command exits with 3 then, and goes on when it is given again.
"""
STOPPED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Train; return 0 when the last epoch is done, 2 for an error that a user can act on, 3 when stopped before the end."""
    options = parser().parse_intermixed_args(argv)
    setup_logging()
    if options.list or options.recipe is None:
        for name, recipe in RECIPES.items():
            print(f"{name:32} {(recipe.__doc__ or '').splitlines()[0]}")
        return 0
    try:
        experiment = read(options)
        if options.show:
            print("\n".join(as_shell_words(redacted(flatten(to_dict(experiment))))))
            return 0
        ensure_data(experiment.data.catalog)
        result = fit(experiment)
    except EchotrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    scores = "  ".join(f"{name} {value:.4g}" for name, value in result.scores.items())
    print(f"{'finished' if result.is_finished else 'stopped'} at step {result.global_step}: {scores or 'not validated yet'}")
    print(result.run_uri)
    return 0 if result.is_finished else STOPPED


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; nothing is read yet."""
    verb = argparse.ArgumentParser(
        prog="python -m ray_jobs.train", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.add_argument("recipe", nargs="?", help="name of an experiment; --list shows all")
    verb.add_argument("settings", nargs="*", metavar="dotted.path=value", help="settings that differ from the recipe's")
    verb.add_argument("--list", action="store_true", help="list the recipes and leave")
    verb.add_argument("--show", action="store_true", help="print every setting that the run would have, and leave")
    return verb


def read(options: argparse.Namespace) -> Experiment:
    """Return the experiment that a command line names."""
    return override(find_recipe(options.recipe)(), [*agent_settings(options.recipe), *options.settings])


def agent_settings(recipe: str) -> list[str]:
    """Return settings that keep the runs of a ``wandb agent`` apart, which gives all of them the same command but for what it sweeps."""
    sweep, run = os.environ.get("WANDB_SWEEP_ID"), os.environ.get("WANDB_RUN_ID")
    return [f"name={recipe}-{sweep}/{run}"] if sweep and run else []


if __name__ == "__main__":
    sys.exit(main())
