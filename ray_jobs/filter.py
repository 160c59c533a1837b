"""Choose the training slices that look most like some queries, and keep them as a subset that any recipe can train on.

Without --patches, whole slices are compared, each by one vector. With --patches, as Lin et al. (arXiv:2508.13822) and MosaicMRI do:
slices are divided by their volume's maximum and cut into patches, framed by zeros where their sides are no multiples of a patch's; patches
that look like an all-zero one, and near-duplicates within a volume to choose from, do not count; a slice is chosen when one of its patches
is among the nearest of a query's patch.
"""

import argparse
import sys
from collections.abc import Sequence

from echotrain.config import override
from echotrain.data.catalog.selection import Where
from echotrain.errors import ConfigError, EchotrainError
from echotrain.log import setup_logging
from echotrain.orchestration.jobs.filtering import FilterConfig, Filtered, filter_catalog
from echotrain.similarity.embedders import EMBEDDERS
from echotrain.similarity.patches import PatchConfig

EXAMPLES = """examples:
  python -m ray_jobs.filter s3://lab/mosaic --name knee-like --anatomies knee     4 neighbours of every knee slice to validate on
  python -m ray_jobs.filter s3://lab/mosaic --name knee-patches --anatomies knee --patches --embedder dreamsim --weights s3://lab/dreamsim
                                                                                  as MosaicMRI does, 5.6
  python -m ray_jobs.filter s3://lab/mosaic --name fat-sat-like --contrasts PD_FS T2_FS --k 8
  python -m ray_jobs.filter s3://lab/mosaic --name knee-like --anatomies knee --embedder dreamsim --weights s3://lab/dreamsim
  python -m ray_jobs.filter s3://lab/cmr --name lax-like --where modality=[cine_lax] field_strength=[1.5]
  python -m ray_jobs.filter s3://lab/mosaic --name knee-like --anatomies knee --embedder vit --weights s3://lab/encoder.pt      of export
  python -m ray_jobs.filter s3://lab/knee --name pd-like --contrasts PD --trusted s3://lab/raw      scans left there by --payload raw
  python -m ray_jobs.train varnet_mosaic_x8 data.catalog=s3://lab/mosaic data.subset=knee-like      trains on what was chosen

A subset is never changed: another choice needs another name. A killed job goes on where it was.
"""
# Options that were there before every column could be chosen by, and their columns.
COLUMNS = {"datasets": "dataset", "anatomies": "anatomy", "contrasts": "contrast"}
# Option, setting of a ``PatchConfig``, and what it is.
PATCH_OPTIONS = (
    ("--patch-side", "side", "pixels of a patch's side, a multiple of 16"),
    ("--blank-cosine", "blank_cosine", "a patch is blank from this cosine to an all-zero patch on"),
    ("--duplicate-cosine", "duplicate_cosine", "a patch does not count above this cosine to an earlier one of its volume"),
)


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
    for option, column in COLUMNS.items():
        verb.add_argument(f"--{option}", dest=column, nargs="*", default=(), help=f"{column} of the queries (default: all)")
    verb.add_argument("--where", nargs="*", default=(), metavar="COLUMN=[...]", help="another column of the queries, as in data.where")
    verb.add_argument("--k", type=int, default=4, help="neighbours of each query, or of each of its patches (default: %(default)s)")
    verb.add_argument("--patches", action="store_true", help="compare patches instead of whole slices")
    for option, name, words in PATCH_OPTIONS:
        usual = getattr(PatchConfig(), name)
        verb.add_argument(option, dest=name, type=type(usual), help=f"with --patches: {words} (default: {usual})")
    verb.add_argument("--embedder", default="gradients", help=f"one of {', '.join(EMBEDDERS)} (default: %(default)s)")
    verb.add_argument("--weights", default="", metavar="URI", help="what the embedder needs; never downloaded from elsewhere")
    verb.add_argument("--trusted", nargs="*", default=(), metavar="URI", help="places outside of the catalog that its rows may point to")
    verb.add_argument("--workers", type=int, default=0, help="processes (default: every CPU)")
    return verb


def read(options: argparse.Namespace) -> FilterConfig:
    """Return what a command line chooses, and how."""
    values = dict(vars(options))
    where = override(Where(**{column: tuple(values.pop(column)) for column in COLUMNS.values()}), values.pop("where"))
    cut = {name: value for _, name, _ in PATCH_OPTIONS if (value := values.pop(name)) is not None}
    if cut and not options.patches:
        given = " ".join(f"{option} {cut[name]}" for option, name, _ in PATCH_OPTIONS if name in cut)
        raise ConfigError(given, "has no effect on whole slices", "Add --patches, or leave it out.")
    patches = PatchConfig(**cut) if options.patches else None
    return FilterConfig(**{**values, "trusted": tuple(options.trusted), "where": where, "patches": patches})


def described(found: Filtered) -> str:
    """Return what was chosen, in words."""
    count = found.subset.slices.num_rows
    shares = ", ".join(f"{anatomy} {number / count:.0%}" for anatomy, number in found.by_anatomy.items())
    chosen = f"{count} of {found.num_pool} training slices ({count / found.num_pool:.0%}) for {found.num_queries} queries: {shares}"
    counts = found.patches
    compared = "by whole slices"
    if counts is not None:
        left_out = f"{counts.num_blank} blank and {counts.num_duplicates} near-duplicate ones left out"
        compared = f"by {counts.num_queries} patches of the queries, from {counts.num_pool} patches, {left_out}"
    return f"{chosen}\n{compared}\ndata.subset={found.subset.name}"


if __name__ == "__main__":
    sys.exit(main())
