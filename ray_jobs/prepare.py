"""Turn scanner files into a catalog that training streams from: curate, de-identify, split by patient, write shards."""

import argparse
import sys
from collections.abc import Sequence

import pyarrow.compute as pc
from rich.table import Column, Table
from rich.text import Text

from echotrain.data.catalog.rows import SPLITS, Catalog
from echotrain.data.formats.protocol_kinds import MOSAIC_KINDS, PROTOCOL_KINDS
from echotrain.data.preparing.convert import ConvertConfig
from echotrain.data.preparing.curate import CurationConfig
from echotrain.data.splits.given import GivenSplitConfig
from echotrain.data.splits.made import SplitConfig
from echotrain.errors import ConfigError, EchotrainError, printable
from echotrain.log import console, setup_logging
from echotrain.orchestration.jobs.prepare import PrepareConfig, PrepareReport, prepare

EXAMPLES = """examples:
  python -m ray_jobs.prepare scans/ --to prepared                         a folder to a folder
  python -m ray_jobs.prepare scans/ --to s3://lab/mosaic --dtype float16  to S3, half the bytes
  python -m ray_jobs.prepare s3://lab/raw --to s3://lab/knee --payload raw      index contiguous HDF5 where it lies
  python -m ray_jobs.prepare s3://lab/raw --to s3://lab/knee --payload raw --index-only   the same, fetching little but headers
  python -m ray_jobs.prepare s3://lab/raw --to s3://lab/knee --payload lines    an equispaced mask reads only its lines
  python -m ray_jobs.prepare dicom/ --to prepared                         DICOM series and NIfTI volumes: images without k-space

  python -m ray_jobs.prepare fastMRI/ --to prepared --split-from folders    multicoil_train/, multicoil_val/ and the like
  python -m ray_jobs.prepare scans/ --to prepared --split-from files=split.csv         file,split: names, or paths below SOURCE
  python -m ray_jobs.prepare scans/ --to prepared --split-from patients=s3://lab/split.json   {"train": ["0017", "0021"], "val": ["0018"]}
  python -m ray_jobs.prepare MosaicMRI/ --to s3://lab/mosaic --split-from folders --leave-out mosaic   without what its authors left out

A given split is kept as it is, because figures are comparable to a paper's only so; what it leaks is told, here and whenever a model is
trained on it. A scan that it does not name is left out; so are the sets of further challenges (MosaicMRI's *_generalization_challenge):
prepare their folder alone, with --split 0/0/100.
  python -m ray_jobs.prepare study/ --to prepared --safe-names 'study_[0-9]+_t[12]'   names that name nobody stay
  python -m ray_jobs.prepare scans/ --to prepared --key-file ~/who-is-who.csv     and who is who, for your eyes alone

With --payload raw the bytes stay elsewhere, and whoever reads the catalog says that they trust that place, data.trusted=[s3://lab/raw]: a
catalog is read inside its own folder or prefix, and nowhere else unasked. What to give is printed at the end.
A killed run goes on where it was when the same command is given again. New scans make a new version of the catalog, in which
everybody keeps their split. Patients and files become pseudonyms, made with the secret key in ECHOTRAIN_DEID_SALT. A cluster
needs it; without it your own machine draws one and keeps it in ~/.config/echotrain. Keep a copy: without the key nobody can be
recognised, and nothing added to the catalog. Files called as public data sets call theirs keep their names.
Scans whose header names no patient are one patient's where their folder or file names the same subject (P001/, sub-01/, subject_7/).
CMRxRecon's folders say centre, vendor and modality too: keep their layout, and name the year of 2023's or 2024's in a folder or --dataset.
Of a cine every frame is a row of its slice; undersampled files and masks beside full ones are left out, and told.
"""
SAFE_NAMES_HELP = (
    "names of files, without endings, and of folders that name nobody (may be repeated); those of letters, digits and _.+- stay as they are"
)
_SHOWN = 40
_SHARES = "70/15/15"
_MOSAIC = "all but propeller, as MosaicMRI's authors did"


def main(argv: Sequence[str] | None = None, *, salt: str = "") -> int:
    """Prepare a source and print what became of it; ``salt`` is for scans of nobody, whose figures must not depend on a secret."""
    options = parser().parse_intermixed_args(argv)
    setup_logging()
    try:
        report = prepare(read(options, salt=salt))
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
    formats = "fastMRI-layout HDF5, CMRxRecon's MATLAB files, ISMRMRD, Siemens twix"
    verb.add_argument("source", metavar="SOURCE", help=f"folder, S3 prefix or file: {formats}")
    verb.add_argument("--to", required=True, metavar="URI", help="folder or s3:// prefix for the shards and the catalog")
    verb.add_argument("--payload", choices=("raw", "packed", "lines"), default="packed", help="how slices are laid out (default: packed)")
    verb.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="float16 halves the bytes at 3e-8 NMSE")
    verb.add_argument("--split", metavar="TRAIN/VAL/TEST", help=f"shares of the slices, by patient (default: {_SHARES})")
    verb.add_argument("--split-seed", type=int, help="decides between patients who are alike (default: 0)")
    verb.add_argument(
        "--split-from",
        metavar="WHAT",
        help="keep a split that others made: folders (the layout of SOURCE), files=URI or patients=URI (CSV or JSON; path or s3://)",
    )
    verb.add_argument("--workers", type=int, default=0, help="scans converted at a time (default: every CPU)")
    verb.add_argument("--dataset", default="", help="name of the collection (default: what the files say)")
    verb.add_argument("--acs-fraction", type=float, default=0.08, help="centre lines that --payload lines holds twice (default: 0.08)")
    verb.add_argument("--index-only", action="store_true", help="with --payload raw: headers and one slice of each scan, no checksums")
    verb.add_argument("--assume-full", action="store_true", help="take fastMRI-layout files without header and mask as fully sampled")
    verb.add_argument("--safe-names", action="append", default=[], metavar="REGEX", help=SAFE_NAMES_HELP)
    verb.add_argument("--key-file", default="", metavar="PATH", help="write who is who, as CSV, to a file of this machine, mode 0600")
    verb.add_argument("--min-slices", type=int, default=1, help="leave out volumes with fewer slices")
    verb.add_argument("--min-coils", type=int, default=1, help="leave out volumes with fewer coils")
    verb.add_argument(
        "--leave-out",
        default="",
        metavar="KINDS",
        help=f"leave out by the protocol's name, separated by commas: {', '.join(PROTOCOL_KINDS)}; mosaic: {_MOSAIC} (default: none)",
    )
    return verb


def read(options: argparse.Namespace, *, salt: str = "") -> PrepareConfig:
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
            assume_full=options.assume_full,
            curation=CurationConfig(min_slices=options.min_slices, min_coils=options.min_coils, leave_out=_kinds(options.leave_out)),
            safe_names=tuple(options.safe_names),
        ),
        split=SplitConfig(ratios=_ratios(options.split or _SHARES), seed=options.split_seed or 0),
        given_split=given_split(options),
        workers=options.workers,
        salt=salt,
        key_file=options.key_file,
    )


def given_split(options: argparse.Namespace) -> GivenSplitConfig | None:
    """Return the split of others that a command line names, None where it names none."""
    if options.split_from is None:
        return None
    if options.split is not None or options.split_seed is not None:
        raise ConfigError("--split and --split-from", "exclude each other: a given split has no shares", "Leave one of them out.")
    kind, _, uri = options.split_from.partition("=")
    return GivenSplitConfig(kind=kind, uri=uri)


def _kinds(text: str) -> tuple[str, ...]:
    """Return the kinds of protocols that a list names, in the order of all kinds: another order is no other setting."""
    named = {kind for word in text.split(",") if word.strip() for kind in (MOSAIC_KINDS if word.strip() == "mosaic" else (word.strip(),))}
    return (*(kind for kind in PROTOCOL_KINDS if kind in named), *sorted(named - set(PROTOCOL_KINDS)))


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
        console.print(_read(report))
        if report.left_out:
            console.print(_left_out(report))
        unnamed = _num_unnamed(catalog)
        if unnamed:
            which = "1 scan names" if unnamed == 1 else f"{unnamed} scans name"
            console.print(f"{which} no patient; each counts as a patient of its own, so check that none are of one person.")
        for note in report.notes:
            console.print(printable(note), markup=False, highlight=False)
        state = "committed" if report.is_new else "unchanged"
        console.print(f"{report.num_scans} scans found, {report.num_resumed} prepared before.")
        size = f"{len(catalog)} slices, {pc.sum(catalog.table['nbytes']).as_py() / 1e9:.3g} GB"
        console.print(f"Catalog {printable(catalog.root)}@{catalog.version} {state}: {size}.", markup=False)
    return capture.get().rstrip()


def _num_unnamed(catalog: Catalog) -> int:
    """Count the scans of which neither header nor place says whose they are."""
    table = catalog.table.select(["dataset", "volume", "patient"])
    return int(table.filter(pc.starts_with(table["patient"], "unnamed-")).group_by(["dataset", "volume"]).aggregate([]).num_rows)


def _summary(catalog: Catalog) -> Table:
    """Return patients and slices of every anatomy and split."""
    table = Table("anatomy", "contrasts", *(f"{split}: patients / slices" for split in SPLITS), title="Catalog", title_justify="left")
    frame = catalog.table.select(["anatomy", "contrast", "split", "patient"]).to_pandas()
    for anatomy, rows in frame.groupby("anatomy"):
        of_split = {split: rows[rows["split"] == split] for split in SPLITS}
        cells = (f"{part['patient'].nunique()} / {len(part)}" for part in of_split.values())
        contrasts = ", ".join(sorted(set(rows["contrast"]) - {""})) or "unknown"
        table.add_row(Text(printable(str(anatomy)) or "unknown"), Text(printable(contrasts)), *cells)
    return table


def _read(report: PrepareReport) -> Table:
    """Return what was read of each scan that is in the catalog: what was taken, merged, corrected or taken on trust."""
    told = [scan for scan in report.scans if scan.get("findings")]
    plain = len(report.scans) - len(told)
    table = Table(Column("scan", overflow="fold"), "slices", "what was found", title="What was read", title_justify="left")
    if plain:
        table.add_row(f"{plain} scans", str(sum(scan.get("slices", 0) for scan in report.scans if not scan.get("findings"))), "as they say")
    for scan in told[:_SHOWN]:
        table.add_row(Text(printable(scan["volume"])), str(scan["slices"]), Text(printable("; ".join(scan["findings"]))))
    if len(told) > _SHOWN:
        table.add_row("…", "", f"and {len(told) - _SHOWN} more; the catalog's manifest has them all")
    return table


def _left_out(report: PrepareReport) -> Table:
    """Return what is not in the catalog, and why; paths are shown to a person at a terminal, and stay out of logs."""
    paths = report.paths if console.is_terminal else {}
    table = Table(Column("scan", overflow="fold"), "slices", "reason", title=f"Left out: {len(report.left_out)}", title_justify="left")
    for entry in report.left_out[:_SHOWN]:
        slices = "all" if entry.slices is None else ", ".join(map(str, entry.slices[:8])) + (" …" if len(entry.slices) > 8 else "")
        # Text, since names hold what would be markup.
        table.add_row(Text(printable(paths.get(entry.source, entry.name))), slices, Text(printable(entry.reason)))
    if len(report.left_out) > _SHOWN:
        table.add_row("…", "", f"and {len(report.left_out) - _SHOWN} more; the catalog's manifest has them all")
    return table


if __name__ == "__main__":
    sys.exit(main())
