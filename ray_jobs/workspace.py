"""Give a W&B project the workspace that shows what our runs log: validation, pictures, anatomies, speed, a sweep's parameters."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from echotrain.errors import ConfigError, EchotrainError
from echotrain.log import setup_logging
from echotrain.metrics.table import find_metric
from echotrain.recipes.registry import find_recipe
from echotrain.sweeps.spec import EPOCH, Metric, read_sweep
from echotrain.sweeps.workspace import make_workspace
from echotrain.training.swept import swept_metric

EXAMPLES = """examples:
  python -m ray_jobs.workspace lab/echotrain                                       the views of every run
  python -m ray_jobs.workspace lab/echotrain --sweep sweeps/mosaic_scaling.yaml    those of a sweep as well
  python -m ray_jobs.workspace lab/echotrain --show > workspace.json               its definition, without W&B

Needs WANDB_API_KEY, but for --show.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Apply the workspace and print its address, or print its definition."""
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.workspace", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("where", metavar="ENTITY/PROJECT", help="as in the address of the project at W&B")
    parser.add_argument("--sweep", type=Path, metavar="FILE", help="show this sweep's parameters against its metric")
    parser.add_argument("--recipe", default="varnet_mosaic_x4", help="whose metrics are shown (default: varnet_mosaic_x4)")
    parser.add_argument("--name", default="echotrain", help="of the view (default: echotrain)")
    parser.add_argument("--show", action="store_true", help="print the definition as JSON, and leave")
    options = parser.parse_args(argv)
    setup_logging()
    try:
        sweep = read_sweep(options.sweep) if options.sweep else None
        experiment = find_recipe(sweep.recipe if sweep else options.recipe)()
        task = experiment.task.build()
        own = Metric(name=f"{EPOCH}{task.score}", goal=find_metric(task.score).goal)
        score = swept_metric(sweep, experiment) if sweep else own
        workspace = make_workspace(options.where, task.metrics, score=score, sweep=sweep, name=options.name)
        if options.show:
            print(json.dumps(workspace._to_model().model_dump(mode="json", by_alias=True), indent=1))
            return 0
        print(apply(workspace))
    except EchotrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def apply(workspace: Any) -> str:
    """Save the workspace at W&B and return its address."""
    import wandb

    try:
        return str(workspace.save().url)
    except (wandb.errors.Error, ValueError, OSError) as error:
        remedy = "Check WANDB_API_KEY and the names of entity and project, or use --show."
        raise ConfigError("the workspace", f"was not accepted by W&B ({error})", remedy) from error


if __name__ == "__main__":
    sys.exit(main())
