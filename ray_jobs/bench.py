"""Measure echotrain against named baselines on your own machine or cluster."""

import argparse
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence

from rich.table import Table

from echotrain.benchmarks.missing import missing_package
from echotrain.benchmarks.result import BenchResult
from echotrain.config import parse_arguments
from echotrain.errors import EchotrainError, ResourceError
from echotrain.log import console, setup_logging

# Modules whose ``run`` it is, imported when it is called: half of them need no Ray, and run where there is none.
BENCHMARKS = {
    "stream": "echotrain.benchmarks.stream",
    "cluster": "echotrain.benchmarks.cluster",
    "own_loop": "echotrain.benchmarks.own_loop",
    "step": "echotrain.benchmarks.step",
    "tricks": "echotrain.benchmarks.tricks",
    "mae_step": "echotrain.benchmarks.mae_step",
    "prepare": "echotrain.benchmarks.prepare",
    "evaluate": "echotrain.benchmarks.evaluate",
    "resume": "echotrain.benchmarks.resume",
    "sweep": "echotrain.benchmarks.sweep",
}

EXAMPLES = """examples:
  python -m ray_jobs.bench stream                      does S3 feed the trainer? share of the NIC, ratio to a DataLoader
  python -m ray_jobs.bench stream gigabytes=8 --json   the same on more data, one JSON line
  python -m ray_jobs.bench cluster                     samples made on other CPUs, against bare processes on as many
  python -m ray_jobs.bench own_loop                    samples/s of a CatalogDataset from S3, against fastMRI's DataLoader on files
  python -m ray_jobs.bench step device=cuda            training step against the public fastMRI VarNet
  python -m ray_jobs.bench tricks                      what each of the U-Net's own kernels brings to a step
  python -m ray_jobs.bench mae_step device=cuda        images/s of a masked autoencoder's step, against the bare network
  python -m ray_jobs.bench prepare                     MB/s per core of preparing, against a bare read and hash
  python -m ray_jobs.bench evaluate                    slices/s of an evaluation, against the network alone
  python -m ray_jobs.bench resume                      seconds from a killed worker to the next step
  python -m ray_jobs.bench sweep                       a grid of trials against the same trials one by one
  python -m ray_jobs.bench all --quick                 all of them, small

settings:
"""


class _Settings(argparse.Action):
    """Prints the settings of every benchmark below the rest of the help, or what it needs; only then are all of them imported."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.epilog = EXAMPLES + "\n".join(f"  {name}: {settings_or_need(name)}" for name in BENCHMARKS)
        parser.print_help()
        parser.exit()


def find(name: str) -> Callable[..., BenchResult]:
    """Return a benchmark.

    Raises:
        ResourceError: A package that it needs is not installed.
    """
    try:
        run: Callable[..., BenchResult] = importlib.import_module(BENCHMARKS[name]).run
    except ImportError as error:
        package = missing_package(error)
        if package is None:
            raise
        needed = "Ray" if package == "ray" else package
        raise ResourceError(name, f"needs {needed}, which is not installed", "make install brings all that benchmarks need.") from error
    return run


def settings_or_need(name: str) -> str:
    """Return the settings of a benchmark, or what it cannot be had without here."""
    try:
        return settings_of(find(name))
    except ResourceError as error:
        return error.limit


def settings_of(benchmark: Callable[..., BenchResult]) -> str:
    """Return the settings of a benchmark as ``name=default``."""
    return " ".join(f"{name}={parameter.default}" for name, parameter in inspect.signature(benchmark).parameters.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark, or all, and print a table or JSON lines."""
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False
    )
    parser.add_argument("-h", "--help", action=_Settings, nargs=0, help="show this, with the settings of every benchmark")
    parser.add_argument("name", choices=[*BENCHMARKS, "all"])
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the benchmark")
    parser.add_argument("--quick", action="store_true", help="small sizes: a check that it runs, not a measurement")
    parser.add_argument("--json", action="store_true", help="end in one JSON line per benchmark")
    options = parser.parse_intermixed_args(argv)
    setup_logging()
    names = list(BENCHMARKS) if options.name == "all" else [options.name]
    quick = ["quick=true"] if options.quick else []
    status = 0
    for name in names:
        try:
            run = find(name)
            result = run(**parse_arguments(run, [*quick, *options.settings]))
        except EchotrainError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2
        else:
            print(result.to_json() if options.json else as_table(result), flush=True)
    return status


def as_table(result: BenchResult) -> str:
    """Return a result as a table: the comparison first, then every detail."""
    table = Table("", "figure", title=f"{result.name}: ratio {result.ratio:.3g}", title_justify="left")
    table.add_row("ours", f"{result.ours:.4g} {result.unit}")
    table.add_row("baseline", f"{result.baseline:.4g} {result.unit}")
    for key, value in result.detail.items():
        table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value))
    with console.capture() as capture:
        console.print(table)
    return capture.get()


if __name__ == "__main__":
    sys.exit(main())
