"""Score a trained model, published weights or ESPIRiT beside the zero-filled image, volume by volume, by the public fastMRI definitions."""

import argparse
import sys
from collections.abc import Sequence

from echotrain.errors import ConfigError, EchotrainError
from echotrain.evaluation.report import render_markdown
from echotrain.evaluation.stored import write_evaluation
from echotrain.log import setup_logging
from echotrain.orchestration.jobs.espirit import EspiritMethod
from echotrain.orchestration.jobs.evaluate import evaluate
from echotrain.orchestration.jobs.inference import InferenceConfig, Method
from echotrain.orchestration.runtime.parts import Parts
from echotrain.storage.open import open_store
from echotrain.training.published import WEIGHTS_ENDINGS

EXAMPLES = """examples:
  python -m ray_jobs.evaluate runs/knee-x4                                     the test split of the run's own catalog
  python -m ray_jobs.evaluate s3://lab/runs/x4 data.mask.accelerations=[8] data.mask.center_fractions=[0.04] --to s3://lab/x4-at-8
  python -m ray_jobs.evaluate runs/knee-x4 data.catalog=s3://lab/brain --split all --title "Knee model on brains"
  python -m ray_jobs.evaluate espirit data.catalog=s3://lab/knee data.mask.accelerations=[4] --to s3://lab/espirit-x4    a core per slice
  python -m ray_jobs.evaluate s3://lab/knee_leaderboard_state_dict.pt data.catalog=s3://lab/knee data.mask.kind=equispaced_fraction \\
      data.mask.accelerations=[4] data.mask.center_fractions=[0.08] --to s3://lab/fastmri-x4            fastMRI's own weights

Of a file of weights (a fastMRI E2E-VarNet: state_dict or Lightning checkpoint) the names and shapes tell the network; nothing that is
pickled in it is run. It tells neither data nor masks: give data.catalog= and data.mask...= (else 4x random with an 8% centre).
A killed evaluation goes on where it was when the same command is given again.
"""
ESPIRIT = "espirit"


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, write the result, print its table."""
    options = parser().parse_intermixed_args(argv)
    setup_logging()
    try:
        method, to = read(options)
        store = open_store(to)
        evaluation = evaluate(
            method,
            split=options.split,
            num_volumes=options.volumes,
            num_examples=options.examples,
            title=options.title,
            note=options.note,
            resume_in=store.uri,
        )
        write_evaluation(store, evaluation)
        Parts(store.uri).clear()
    except EchotrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(render_markdown([evaluation]))
    print(store.uri)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; nothing is read yet."""
    verb = argparse.ArgumentParser(
        prog="python -m ray_jobs.evaluate", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.add_argument(
        "run",
        metavar="RUN",
        help=f"training run or sweep (its best trial): folder or s3:// prefix; or a file of published weights; or {ESPIRIT}",
    )
    verb.add_argument("settings", nargs="*", metavar="dotted.path=value", help="settings that differ from the run's: a catalog, a mask")
    verb.add_argument("--split", default="test", help="train, val, test or all (default: %(default)s)")
    verb.add_argument("--checkpoint", default="best", choices=("best", "latest"), help="which weights (default: %(default)s)")
    verb.add_argument("--to", metavar="URI", help="where the result goes (default: RUN/evaluation; needed where RUN is no folder)")
    verb.add_argument("--title", default="", help="name of the evaluation in reports")
    verb.add_argument("--note", default="", help="what a reader must know, such as that the data is simulated")
    verb.add_argument("--volumes", type=int, default=0, help="at most so many, of all anatomies and contrasts (default: all)")
    verb.add_argument("--examples", type=int, default=6, help="slices kept as pictures (default: %(default)s)")
    verb.add_argument("--workers", type=int, default=0, help="processes with a model each (default: as many as fit)")
    return verb


def read(options: argparse.Namespace) -> tuple[Method, str]:
    """Return the method to evaluate, and where its result goes."""
    if options.run.endswith(WEIGHTS_ENDINGS) and not options.to:
        raise ConfigError(f"{options.run} without --to", "is a file, and no folder to write into", "Give --to URI.")
    if options.run != ESPIRIT:
        run = InferenceConfig(run=options.run, checkpoint=options.checkpoint, overrides=options.settings, workers=options.workers)
        return run, options.to or f"{options.run.rstrip('/')}/evaluation"
    if not options.to:
        raise ConfigError(f"{ESPIRIT} without --to", "has no run's folder to write into", "Give --to URI.")
    return EspiritMethod(overrides=options.settings, workers=options.workers), options.to


if __name__ == "__main__":
    sys.exit(main())
