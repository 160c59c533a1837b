"""Reconstruct undersampled scanner files with a trained model or published weights: fastMRI-layout HDF5 and a picture of each."""

import argparse
import sys
from collections.abc import Sequence
from typing import TextIO

from echotrain.data.formats.deidentify import compile_safe_names
from echotrain.errors import EchotrainError, printable
from echotrain.log import setup_logging
from echotrain.orchestration.jobs.inference import InferenceConfig
from echotrain.orchestration.jobs.reconstruct import Reconstruction, reconstruct
from ray_jobs.prepare import SAFE_NAMES_HELP

EXAMPLES = """examples:
  python -m ray_jobs.reconstruct runs/knee-x4 scans/ --to reconstructions
  python -m ray_jobs.reconstruct s3://lab/runs/x8 s3://lab/test --to s3://lab/submission --checkpoint latest
  python -m ray_jobs.reconstruct runs/knee-x4 full.h5 --to out --undersample data.mask.accelerations=[4]   undersample it first
  python -m ray_jobs.reconstruct runs/knee-x4 study/ --to out --safe-names 'study_[0-9]+'   names that name nobody stay

Other names than public data sets' become pseudonyms, as prepare makes them.
  python -m ray_jobs.reconstruct s3://lab/knee_leaderboard_state_dict.pt scans/ --to images      published weights: fastMRI's E2E-VarNet

Of a file of weights (state_dict or Lightning checkpoint) the names and shapes tell the network; nothing that is pickled in it is run.
"""
SOME_FAILED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Reconstruct every scan; return 1 where some had to be left out."""
    options = parser().parse_intermixed_args(argv)
    setup_logging()
    failed = 0
    try:
        how = {"undersample": options.undersample, "overwrite": options.overwrite, "safe_names": options.safe_names}
        for done in reconstruct(read(options), options.source, options.to, **how):
            if done.error:
                failed += 1
                print(f"left out {shown(done, sys.stderr)}: {done.error}", file=sys.stderr)
            else:
                what = f"{done.num_slices} slices, acquired 1 line in {done.acceleration:.2f}"
                print(f"{shown(done, sys.stdout)} -> {printable(done.output)}  {what}")
                for finding in done.findings:
                    print(f"  {finding}")
    except EchotrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return SOME_FAILED if failed else 0


def shown(done: Reconstruction, stream: TextIO) -> str:
    """Return what a file is called: its path on a person's terminal, which a log must not have."""
    return printable(done.source) if stream.isatty() else done.name


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; nothing is read yet."""
    verb = argparse.ArgumentParser(
        prog="python -m ray_jobs.reconstruct", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.add_argument("run", metavar="RUN", help="training run: folder or s3:// prefix; or a file of published weights")
    verb.add_argument("source", metavar="SOURCE", help="folder, s3:// prefix or file: fastMRI-layout HDF5, ISMRMRD, Siemens twix")
    verb.add_argument("settings", nargs="*", metavar="dotted.path=value", help="settings that differ from the run's")
    verb.add_argument("--to", required=True, metavar="URI", help="folder or s3:// prefix for the images")
    verb.add_argument("--checkpoint", default="best", choices=("best", "latest"), help="which weights (default: %(default)s)")
    verb.add_argument("--undersample", action="store_true", help="undersample fully sampled files by the run's mask")
    verb.add_argument("--safe-names", action="append", default=[], metavar="REGEX", help=SAFE_NAMES_HELP)
    verb.add_argument("--overwrite", action="store_true", help="reconstruct again what is there already")
    verb.add_argument("--workers", type=int, default=0, help="processes with a model each (default: as many as fit)")
    return verb


def read(options: argparse.Namespace) -> InferenceConfig:
    """Return the model that a command line names, and on what it runs."""
    compile_safe_names(options.safe_names)
    return InferenceConfig(run=options.run, checkpoint=options.checkpoint, overrides=options.settings, workers=options.workers)


if __name__ == "__main__":
    sys.exit(main())
