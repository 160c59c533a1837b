"""Make one self-contained HTML page from evaluations and training runs, or their tables as Markdown or CSV."""

import argparse
import datetime as dt
import sys
from collections.abc import Callable, Sequence

from echotrain.errors import ConfigError, EchotrainError
from echotrain.evaluation.finding import find_results
from echotrain.evaluation.history import History
from echotrain.evaluation.report import render_csv, render_markdown, render_report
from echotrain.evaluation.results import Evaluation
from echotrain.log import setup_logging
from echotrain.storage.open import store_of

EXAMPLES = """examples:
  python -m ray_jobs.report runs/knee-x4                                       curves of a run and the evaluations below it
  python -m ray_jobs.report s3://lab/runs/x4 s3://lab/runs/x8 --out report.html   two runs beside each other
  python -m ray_jobs.report runs/knee-x4/evaluation --title "Knee, 4x" --out s3://lab/pages/knee.html
  python -m ray_jobs.report runs/knee-x4/evaluation --out quality.csv          the numbers alone (or quality.md)
"""


def as_page(evaluations: Sequence[Evaluation], runs: Sequence[History], title: str) -> str:
    """Return the HTML page, dated today."""
    today = dt.datetime.now(tz=dt.UTC)
    return render_report(evaluations, runs, title=title, generated=f"Made by echotrain on {today.day} {today:%B %Y}.")


FORMATS: dict[str, Callable[[Sequence[Evaluation], Sequence[History], str], str]] = {
    "html": as_page,
    "md": lambda evaluations, runs, title: render_markdown(evaluations),
    "csv": lambda evaluations, runs, title: render_csv(evaluations),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Read what the URIs hold, and write the page."""
    options = parser().parse_intermixed_args(argv)
    setup_logging()
    try:
        form = read(options)
        evaluations, runs = find_results(options.uris)
        page = FORMATS[form](evaluations, runs, options.title)
        store, key = store_of(options.out)
        store.write(key, page.encode())
    except EchotrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(options.out)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; nothing is read yet."""
    verb = argparse.ArgumentParser(
        prog="python -m ray_jobs.report", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.add_argument("uris", nargs="+", metavar="URI", help="folder or s3:// prefix of a training run or of an evaluation")
    verb.add_argument("--out", default="report.html", help="a file or s3:// object ending in .html, .md or .csv (default: %(default)s)")
    verb.add_argument("--title", default="Reconstruction report", help="heading of the page")
    return verb


def read(options: argparse.Namespace) -> str:
    """Return the form of the page, one of ``FORMATS``."""
    form = str(options.out).rpartition(".")[2]
    if form not in FORMATS:
        raise ConfigError(f"--out {options.out}", f"must end in one of {', '.join(FORMATS)}", "Use report.html for the page.")
    return form


if __name__ == "__main__":
    sys.exit(main())
