"""The whole path on this machine: scans, an S3 server, prepare, train with two workers, evaluate, report."""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from echotrain.data.formats.deidentify import PUBLIC_SALT
from echotrain.data.formats.sources import find_sources
from echotrain.data.simulation.cine import CINE_DATASET, CineConfig, simulate_cine
from echotrain.data.simulation.scans import SimulationConfig, simulate
from echotrain.errors import ConfigError, EchotrainError
from echotrain.evaluation.stored import read_evaluation
from echotrain.log import setup_logging
from echotrain.orchestration.runtime.cluster import connect
from echotrain.storage.embedded import serve_folder
from echotrain.storage.open import open_store
from ray_jobs import evaluate, prepare, report, train

SIMULATED = "drawn anatomies, modelled coils, added noise. Nothing here was measured on a scanner."
EXAMPLES = """examples:
  make demo                      simulate scans first
  make demo DEMO=cine            beating hearts, in motion on the page
  make demo DATA=/data/my-scans  a folder of your own: fastMRI-layout HDF5, ISMRMRD, Siemens twix
"""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What is shown.

    Attributes:
        folder: Where everything is left.
        recipe: What is trained.
        title: Of the page.
        scans: Writes simulated scans into a folder.
        note: What a reader of the page must know of them.
        prepare: Further arguments of ``prepare``.
    """

    folder: Path
    recipe: str
    title: str
    scans: Callable[[Path], object]
    note: str
    prepare: tuple[str, ...] = ()


DEMOS = {
    "slices": Demo(
        folder=Path("build/demo"),
        recipe="varnet_demo",
        title="echotrain demo",
        scans=partial(simulate, SimulationConfig(num_patients=18, volumes_per_patient=2, num_slices=6, matrix=128)),
        note=f"Simulated scans: {SIMULATED}",
    ),
    "cine": Demo(
        folder=Path("build/demo-cine"),
        recipe="varnet_cine_demo",
        title="echotrain demo: beating hearts",
        scans=partial(
            simulate_cine,
            CineConfig(num_patients=15, per_patient=1, examinations=("cine_sax", "cine_lax"), num_slices=2, num_frames=12, matrix=96),
        ),
        note=f"Simulated hearts: {SIMULATED}",
        prepare=("--dataset", CINE_DATASET),
    ),
}


class StepFailedError(Exception):
    """A verb of the demo came back with an error; it has said why."""


def main(argv: Sequence[str] | None = None) -> int:
    """Walk the path; leave a report and ``summary.json`` in the demo's folder below ``build``."""
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.demo", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of your own scans, instead of simulated ones")
    parser.add_argument("--demo", choices=DEMOS, default="slices", help="what is shown (default: %(default)s)")
    options = parser.parse_args(argv)
    demo = DEMOS[options.demo]
    setup_logging("WARNING")
    started = time.monotonic()
    try:
        if options.data is not None:
            check_data(Path(options.data), demo.folder)
        shutil.rmtree(demo.folder, ignore_errors=True)
        with serve_folder(demo.folder / "s3") as server:
            # The server is this machine's own, and so is the cluster, whatever else runs here.
            os.environ.update({**server.env, "RAY_ADDRESS": "local"})
            connect()
            walk(demo, server.create_bucket("demo"), options.data)
            summarize(demo, server.create_bucket("demo"), time.monotonic() - started)
    except EchotrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except StepFailedError:
        return 2
    return 0


def check_data(data: Path, folder: Path) -> None:
    """Refuse scans that are not there, or that the demo would remove with its own last results."""
    find_sources(str(data))
    if data.absolute().is_relative_to(folder.absolute()):
        raise ConfigError(f"data={data}", f"lies in {folder}, which the demo empties first", "Keep your scans elsewhere.")


def walk(demo: Demo, bucket: str, data: str | None) -> None:
    """Run every verb against the bucket, showing each command as one would type it."""
    scans = data or str(demo.folder / "scans")
    if data is None:
        say("simulating scans")
        demo.scans(Path(scans))
    note = ["--note", demo.note] if data is None else []
    # Simulated people have no secrets, and the demo's figures are to be the same everywhere.
    prepare_scans = partial(prepare.main, salt=PUBLIC_SALT) if data is None else prepare.main
    run(prepare_scans, "prepare", scans, "--to", f"{bucket}/prepared", *(demo.prepare if data is None else ()))
    run(train.main, "train", demo.recipe, f"data.catalog={bucket}/prepared", f"storage={bucket}/runs")
    run(evaluate.main, "evaluate", f"{bucket}/runs/{demo.recipe}", *note)
    run(report.main, "report", f"{bucket}/runs/{demo.recipe}", "--title", demo.title, "--out", str(demo.folder / "report.html"))


def run(verb: Callable[[Sequence[str]], int], name: str, *arguments: str) -> None:
    """Run one verb in this process, which is joined to Ray already."""
    say(f"python -m ray_jobs.{name} {' '.join(a if ' ' not in a else repr(a) for a in arguments)}")
    if verb(arguments) != 0:
        raise StepFailedError(name)


def say(text: str) -> None:
    """Show what comes next."""
    print(f"\n>> {text}", flush=True)


def summarize(demo: Demo, bucket: str, seconds: float) -> None:
    """Write ``summary.json`` and print what to look at."""
    figures = read_evaluation(open_store(f"{bucket}/runs/{demo.recipe}/evaluation")).summary()
    page = demo.folder / "report.html"
    names = ("psnr_model", "psnr_zero_filled", "ssim_model", "ssim_zero_filled")
    summary = {**{name: figures[name] for name in names}, "seconds": round(seconds, 1), "report": str(page)}
    (demo.folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    count = figures["num_volumes"]
    print(f"\nOn {count} volume{'s' * (count != 1)} of patients that training never saw:")
    print(f"  PSNR  zero-filled {summary['psnr_zero_filled']:.2f} dB   model {summary['psnr_model']:.2f} dB")
    print(f"  SSIM  zero-filled {summary['ssim_zero_filled']:.3f}      model {summary['ssim_model']:.3f}")
    print(f"Took {seconds:.0f} s. The report, to be opened in a browser: {page.absolute()}")


if __name__ == "__main__":
    sys.exit(main())
