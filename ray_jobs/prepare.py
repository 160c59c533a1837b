"""Turn scanner files into a catalog that training streams from: curate, de-identify, split by patient, write shards."""

import argparse
import os
import sys
from collections.abc import Sequence

import pyarrow.compute as pc
from rich.table import Column, Table

from echotrain.data.catalog import SPLITS, Catalog
from echotrain.data.convert import ConvertConfig
from echotrain.data.curate import CurationConfig
from echotrain.data.formats.deidentify import SALT_VARIABLE
from echotrain.data.splits import SplitConfig
from echotrain.errors import ConfigError, EchotrainError
from echotrain.log import console, setup_logging
from echotrain.orchestration.prepare import PrepareConfig, PrepareReport, prepare

EXAMPLES = """examples:
  python -m ray_jobs.prepare scans/ --to prepared                         a folder to a folder
  python -m ray_jobs.prepare scans/ --to s3://lab/mosaic --dtype float16  to S3, half the bytes
  python -m ray_jobs.prepare s3://lab/raw --to s3://lab/knee --payload raw      index contiguous HDF5 where it lies
  python -m ray_jobs.prepare s3://lab/raw --to s3://lab/knee --payload raw --index-only   the same, fetching headers alone
  python -m ray_jobs.prepare s3://lab/raw --to s3://lab/knee --payload lines    an equispaced mask reads only its lines

With --payload raw the bytes stay elsewhere, and whoever reads the catalog says that they trust that place, data.trusted=[s3://lab/raw]: a
catalog is read inside its own folder or prefix, and nowhere else unasked. What to give is printed at the end.
A killed run goes on where it was when the same command is given again. New scans make a new version of the catalog, in which
everybody keeps their split. ECHOTRAIN_DEID_SALT holds the secret key of the pseudonyms; without one a public key is used.
"""
_SHOWN = 40


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare a source and print what became of it."""
    options = parser().parse_intermixed_args(argv)
    setup_logging()
    try:
        report = prepare(read(options))
    except EchotrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(_described(report))
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; nothing is read yet."""
    verb = argparse.ArgumentParser(
        prog="python -m ray_jobs.prepare", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.add_argument("source", metavar="SOURCE", help="folder, S3 prefix or file: fastMRI-layout HDF5, ISMRMRD, Siemens twix")
    verb.add_argument("--to", required=True, metavar="URI", help="folder or s3:// prefix for the shards and the catalog")
    verb.add_argument("--payload", choices=("raw", "packed", "lines"), default="packed", help="how slices are laid out (default: packed)")
    verb.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="float16 halves the bytes at 3e-8 NMSE")
    verb.add_argument("--split", default="70/15/15", metavar="TRAIN/VAL/TEST", help="shares of the slices, by patient (default: 70/15/15)")
    verb.add_argument("--split-seed", type=int, default=0, help="decides between patients who are alike")
    verb.add_argument("--workers", type=int, default=0, help="scans converted at a time (default: every CPU)")
    verb.add_argument("--dataset", default="", help="name of the collection (default: what the files say)")
    verb.add_argument("--acs-fraction", type=float, default=0.08, help="centre lines that --payload lines holds twice (default: 0.08)")
    verb.add_argument("--index-only", action="store_true", help="with --payload raw: headers alone, no checksums")
    verb.add_argument("--min-slices", type=int, default=1, help="leave out volumes with fewer slices")
    verb.add_argument("--min-coils", type=int, default=1, help="leave out volumes with fewer coils")
    return verb


def read(options: argparse.Namespace) -> PrepareConfig:
    """Return what a command line prepares, and how."""
    return PrepareConfig(
        source=options.source,
        to=options.to,
        convert=ConvertConfig(
            payload=options.payload,
            dtype=options.dtype,
            acs_fraction=options.acs_fraction,
            dataset=options.dataset,
            index_only=options.index_only,
            curation=CurationConfig(min_slices=options.min_slices, min_coils=options.min_coils),
        ),
        split=SplitConfig(ratios=_ratios(options.split), seed=options.split_seed),
        workers=options.workers,
        salt=os.environ.get(SALT_VARIABLE, ""),
    )


def _ratios(text: str) -> tuple[float, float, float]:
    try:
        train, val, test = (float(part) for part in text.split("/"))
        total = train + val + test
        return train / total, val / total, test / total
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"split={text}", "must be three shares", "Write it as 70/15/15.") from error


def _described(report: PrepareReport) -> str:
    catalog = report.catalog
    with console.capture() as capture:
        console.print(_summary(catalog))
        if report.left_out:
            console.print(_left_out(report))
        unnamed = pc.sum(pc.starts_with(pc.unique(catalog.table["patient"]), "unnamed-")).as_py() or 0
        if unnamed:
            console.print(f"{unnamed} scans name no patient; each counts as a patient of its own, so check that none are of one person.")
        for note in report.notes:
            console.print(note, markup=False)
        state = "committed" if report.is_new else "unchanged"
        console.print(f"{report.num_scans} scans found, {report.num_resumed} prepared before.")
        size = f"{len(catalog)} slices, {pc.sum(catalog.table['nbytes']).as_py() / 1e9:.3g} GB"
        console.print(f"Catalog {catalog.root}@{catalog.version} {state}: {size}.")
    return capture.get().rstrip()


def _summary(catalog: Catalog) -> Table:
    """Return patients and slices of every anatomy and split."""
    table = Table("anatomy", "contrasts", *(f"{split}: patients / slices" for split in SPLITS), title="Catalog", title_justify="left")
    frame = catalog.table.select(["anatomy", "contrast", "split", "patient"]).to_pandas()
    for anatomy, rows in frame.groupby("anatomy"):
        of_split = {split: rows[rows["split"] == split] for split in SPLITS}
        cells = (f"{part['patient'].nunique()} / {len(part)}" for part in of_split.values())
        table.add_row(str(anatomy) or "unknown", ", ".join(sorted(set(rows["contrast"]) - {""})) or "unknown", *cells)
    return table


def _left_out(report: PrepareReport) -> Table:
    """Return what is not in the catalog, and why; paths are shown here and stored nowhere."""
    table = Table(Column("scan", overflow="fold"), "slices", "reason", title=f"Left out: {len(report.left_out)}", title_justify="left")
    for entry in report.left_out[:_SHOWN]:
        slices = "all" if entry.slices is None else ", ".join(map(str, entry.slices[:8])) + (" …" if len(entry.slices) > 8 else "")
        table.add_row(report.paths.get(entry.source, entry.name), slices, entry.reason)
    if len(report.left_out) > _SHOWN:
        table.add_row("…", "", f"and {len(report.left_out) - _SHOWN} more; the catalog's manifest has them all")
    return table


if __name__ == "__main__":
    sys.exit(main())
