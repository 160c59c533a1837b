"""Run a sweep file, which is also one of W&B's, on Ray Tune: every trial a whole experiment."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from echotrain.config import override
from echotrain.errors import EchotrainError
from echotrain.log import console, setup_logging
from echotrain.orchestration.jobs.tuning import SweepResult, run_sweep
from echotrain.recipes.debug_catalogs import ensure_data
from echotrain.recipes.registry import find_recipe
from echotrain.sweeps.space import trial_values
from echotrain.sweeps.spec import EPOCH, SweepSpec, read_sweep
from echotrain.sweeps.table import ranked
from echotrain.training.experiment import Experiment
from echotrain.training.swept import check_sweep
from echotrain.training.without_effect import check_given, warn_of_idle_rule

EXAMPLES = """examples:
  python -m ray_jobs.sweep sweeps/mosaic_scaling_debug.yaml              minutes on two cores, on scans simulated on the spot
  python -m ray_jobs.sweep sweeps/mosaic_scaling.yaml data.catalog=s3://lab/mosaic storage=s3://lab/runs
  python -m ray_jobs.sweep sweeps/mosaic_scaling.yaml --resume           after the driver, a worker or a node has died
  python -m ray_jobs.sweep sweeps/learning_rate.yaml --concurrency 4 name=lr-spine data.where.anatomy=[spine]
  python -m ray_jobs.sweep sweeps/mask.yaml --show                       what would run
  wandb sweep sweeps/mosaic_scaling.yaml                                 the same file, run by W&B's agents instead

Settings are given to every trial; name= is the sweep's own, and that of the W&B group of its runs. Runs, trials and table.csv are kept in
STORAGE/NAME. SIGTERM or Ctrl-C saves a checkpoint of every running trial first; the command exits with 3 then.
"""
STOPPED = 3
FAILED = 1
_WIDTH = 120


def main(argv: Sequence[str] | None = None) -> int:
    """Sweep; return 0 when every trial has ended well, 1 where some failed, 2 for an error that a user can act on, 3 when stopped."""
    options = parser().parse_intermixed_args(argv)
    setup_logging()
    try:
        spec, base = read_experiment(options.file, options.settings, seed=options.seed)
        if options.show:
            show(spec, base, options.seed)
            return 0
        ensure_data(base.data.catalog)
        result = run_sweep(
            spec,
            base,
            resume=options.resume,
            retry_failed=options.retry_failed,
            concurrency=options.concurrency,
            seed=options.seed,
        )
    except EchotrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(as_table(result))
    print(result.folder)
    if not result.is_finished:
        return STOPPED
    return FAILED if any(trial.state == "failed" for trial in result.trials) else 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; nothing is read yet."""
    verb = argparse.ArgumentParser(
        prog="python -m ray_jobs.sweep", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.add_argument("file", metavar="FILE", type=Path, help="a sweep in W&B's format, say sweeps/mosaic_scaling.yaml")
    verb.add_argument("settings", nargs="*", metavar="dotted.path=value", help="settings of every trial")
    verb.add_argument("--resume", action="store_true", help="go on with the sweep of this name; what has ended is not run again")
    verb.add_argument("--retry-failed", action="store_true", help="with --resume: run trials that failed again")
    verb.add_argument("--concurrency", type=int, default=0, metavar="N", help="trials at a time (default: as many as the cluster holds)")
    verb.add_argument("--seed", type=int, default=0, help="of a random or Bayesian search")
    verb.add_argument("--show", action="store_true", help="print the trials that would run, and leave")
    return verb


def read_experiment(file: Path, settings: Sequence[str], *, seed: int = 0) -> tuple[SweepSpec, Experiment]:
    """Return what a file sweeps, and the experiment that it varies; a ``name=`` among the settings renames the sweep.

    Raises:
        ConfigError: The file or a setting cannot be read, or a setting would have no effect.
    """
    spec = read_sweep(file)
    names = [setting.removeprefix("name=") for setting in settings if setting.startswith("name=")]
    if names:
        spec = dataclasses.replace(spec, name=names[-1])
    given = [*spec.settings, *settings]
    base = override(find_recipe(spec.recipe)(), given)
    check_given(spec, base, given, seed=seed)
    return spec, base


def show(spec: SweepSpec, base: Experiment, seed: int) -> None:
    """Print every trial's values, a line of JSON each; of a Bayesian search, how many there would be."""
    warn_of_idle_rule(spec, check_sweep(spec, base, seed=seed))
    if spec.method == "bayes":
        print(f"{spec.run_cap} trials, each proposed when those before it are known")
        return
    for values in trial_values(spec, seed=seed):
        print(json.dumps(values))


def as_table(result: SweepResult) -> str:
    """Return the trials as a table, best first."""
    metric = result.metric
    names = sorted(
        {name for trial in result.trials for name in trial.scores}, key=lambda name: (name != metric.name.removeprefix(EPOCH), name)
    )
    table = Table(Column("trial", no_wrap=True), "state", "epoch", *names, "s", title=f"by {metric.name}, {metric.goal}d")
    for trial in ranked(result.trials, metric):
        scores = (f"{trial.scores[name]:.4g}" if name in trial.scores else "" for name in names)
        state = "interrupted" if trial.state == "running" else trial.state
        table.add_row(trial.name, state, str(trial.epoch or ""), *scores, f"{trial.wall_s:.0f}")
    wide = Console(width=max(console.width, _WIDTH))
    with wide.capture() as capture:
        wide.print(table)
    return capture.get().rstrip()


if __name__ == "__main__":
    sys.exit(main())
