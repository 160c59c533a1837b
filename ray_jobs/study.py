"""Run a study: train every model that a paper's sections compare, test each of them, and end with the page."""

import argparse
import datetime as dt
import sys
from collections.abc import Sequence

from echotrain.errors import EchotrainError
from echotrain.log import setup_logging
from echotrain.orchestration.jobs.study import PAGE, run_study
from echotrain.recipes.debug_catalogs import STUDY_CATALOG
from echotrain.recipes.debug_data import ensure_study_data
from echotrain.recipes.studies import STUDIES, find_study
from echotrain.studies.settings import override_study, study_settings
from echotrain.studies.study import Study
from echotrain.sweeps.space import as_shell_words

EXAMPLES = """examples:
  python -m ray_jobs.study --list
  python -m ray_jobs.study mosaic_simulated                      minutes on two cores, on scans simulated on the spot
  python -m ray_jobs.study mosaic data.catalog=s3://lab/mosaic storage=s3://lab/studies
  python -m ray_jobs.study mosaic data.catalog=s3://lab/mosaic storage=s3://lab/studies sections=[anatomies] seeds=[1,2,3]
  python -m ray_jobs.study mosaic_shift data.catalog=s3://lab/fastmri-and-mosaic storage=s3://lab/studies --show

Settings are the study's own (--show prints them) or those of the experiment that it varies. The same command goes on with a study that
was interrupted, and adds sections to one that has ended; no model is trained or tested twice. STORAGE/NAME keeps the models, study.html,
figures/ (SVG, PDF, PNG) and tables/ (CSV, Markdown, LaTeX). SIGTERM or Ctrl-C saves every model in training first; the command exits
with 3 then.
"""
STOPPED = 3
FAILED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run; return 0 when the page is there, 1 where models failed, 2 for an error that a user can act on, 3 when stopped."""
    options = parser().parse_intermixed_args(argv)
    setup_logging()
    if options.list or options.study is None:
        for name, make in STUDIES.items():
            print(f"{name:20} {(make.__doc__ or '').splitlines()[0]}")
        return 0
    try:
        study = read(options)
        if options.show:
            print(shown(study))
            return 0
        if study.base.data.catalog == STUDY_CATALOG:
            ensure_study_data()
        today = dt.datetime.now(tz=dt.UTC)
        made = f"Made by echotrain on {today.day} {today:%B %Y}."
        result = run_study(study, concurrency=options.concurrency, retry_failed=options.retry_failed, generated=made)
    except EchotrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not result.is_finished:
        print(f"stopped; the same command goes on: {result.folder}")
        return STOPPED
    print(f"{result.folder}/{PAGE}")
    failed = [trial for trial in result.trials if trial.state == "failed"]
    for trial in failed:
        print(f"failed: {trial.name}: {trial.reason}", file=sys.stderr)
    return FAILED if failed else 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; nothing is read yet."""
    verb = argparse.ArgumentParser(
        prog="python -m ray_jobs.study", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.add_argument("study", nargs="?", help="name of a study; --list shows all")
    verb.add_argument("settings", nargs="*", metavar="dotted.path=value", help="settings that differ from the study's")
    verb.add_argument("--list", action="store_true", help="list the studies and leave")
    verb.add_argument("--show", action="store_true", help="print every setting, and leave")
    verb.add_argument("--retry-failed", action="store_true", help="train models that failed again")
    verb.add_argument("--concurrency", type=int, default=0, metavar="N", help="models trained at a time (default: as many as fit)")
    return verb


def read(options: argparse.Namespace) -> Study:
    """Return the study that a command line names."""
    return override_study(find_study(options.study)(), options.settings)


def shown(study: Study) -> str:
    """Return every setting as one would type it, the study's own first."""
    return "\n".join(as_shell_words(study_settings(study)))


if __name__ == "__main__":
    sys.exit(main())
