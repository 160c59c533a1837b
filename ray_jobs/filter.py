"""Choose the training slices that look most like some queries, and keep them as a subset that any recipe can train on."""

import argparse
import sys
from collections.abc import Sequence

from echotrain.errors import EchotrainError
from echotrain.log import setup_logging
from echotrain.orchestration.filtering import FilterConfig, Filtered, filter_catalog
from echotrain.similarity.embedders import EMBEDDERS

EXAMPLES = """examples:
  python -m ray_jobs.filter s3://lab/mosaic --name knee-like --anatomies knee     4 neighbours of every knee slice to validate on
  python -m ray_jobs.filter s3://lab/mosaic --name fat-sat-like --contrasts PD_FS T2_FS --k 8
  python -m ray_jobs.filter s3://lab/mosaic --name knee-like --anatomies knee --embedder dreamsim --weights s3://lab/dreamsim
  python -m ray_jobs.filter s3://lab/knee --name pd-like --contrasts PD --trusted s3://lab/raw      scans left there by --payload raw
  python -m ray_jobs.train varnet_mosaic_x8 data.catalog=s3://lab/mosaic data.subset=knee-like      trains on what was chosen

A subset is never changed: another choice needs another name. A killed job goes on where it was.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Choose, store, and say what was chosen."""
    options = parser().parse_intermixed_args(argv)
    setup_logging()
    try:
        print(described(filter_catalog(read(options))))
    except EchotrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; nothing is read yet."""
    verb = argparse.ArgumentParser(
        prog="python -m ray_jobs.filter", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.add_argument("catalog", metavar="CATALOG", help="folder or s3:// prefix that prepare wrote to")
    verb.add_argument("--name", required=True, help="of the subset")
    verb.add_argument("--query-split", default="val", help="where the queries come from (default: %(default)s; test is refused)")
    verb.add_argument("--datasets", nargs="*", default=(), help="what the queries are of (default: all)")
    verb.add_argument("--anatomies", nargs="*", default=(), help="what the queries show (default: all)")
    verb.add_argument("--contrasts", nargs="*", default=(), help="likewise")
    verb.add_argument("--k", type=int, default=4, help="neighbours of each query (default: %(default)s)")
    verb.add_argument("--embedder", default="gradients", help=f"one of {', '.join(EMBEDDERS)} (default: %(default)s)")
    verb.add_argument("--weights", default="", metavar="URI", help="what the embedder needs; never downloaded from elsewhere")
    verb.add_argument("--trusted", nargs="*", default=(), metavar="URI", help="places outside of the catalog that its rows may point to")
    verb.add_argument("--workers", type=int, default=0, help="processes (default: every CPU)")
    return verb


def read(options: argparse.Namespace) -> FilterConfig:
    """Return what a command line chooses, and how."""
    values = vars(options)
    lists = {name: tuple(values[name]) for name in ("datasets", "anatomies", "contrasts", "trusted")}
    return FilterConfig(**{**values, **lists})


def described(found: Filtered) -> str:
    """Return what was chosen, in words."""
    count = found.subset.slices.num_rows
    shares = ", ".join(f"{anatomy} {number / count:.0%}" for anatomy, number in found.by_anatomy.items())
    chosen = f"{count} of {found.num_pool} training slices ({count / found.num_pool:.0%}) for {found.num_queries} queries: {shares}"
    return f"{chosen}\ndata.subset={found.subset.name}"


if __name__ == "__main__":
    sys.exit(main())
