"""What the verbs print is ours: no library's log line, warning or traceback, whatever it thinks that we should know."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import yaml

from tests.simulated import write_simulated_catalog

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]

# The forms of a line that our own verbs write to stderr, beside results on stdout.
OURS = [
    r"\d\d:\d\d:\d\d (INFO|WARNING) echotrain\.[a-z0-9_.]+: .*",
    r"(starting|resuming at step \d+): .*",
    r"epoch \d+/\d+( done)?  .*",
    r"sweep \S+: \d+ trials, \d+ at a time",
    r"trial \d+/\d+ (started|resumed): .*",
    r"\d+/\d+ ended, (finished|stopped): .*",
]
# What the loggers of Ray, torch, pydantic and Python itself look like, on whichever stream.
THEIRS = [
    r"\(?\w+ pid=",
    r"\(raylet\)",
    r"^\[?20\d\d-\d\d-\d\d[ ,T]",
    r"Traceback",
    r"Warning\b",
    r"^[WEIF]\d{4} ",
    r"\*\*\* ",
    r"SystemExit",
    "core_worker",
]


@pytest.fixture(scope="module")
def place(local_ray, tmp_path_factory):
    """Return a folder with scans of ten patients, prepared, and a run on them, which said nothing that is not ours.

    A run and a sweep are on a cluster of their own, as on a laptop; the other verbs join the one that is there, which starts sooner.
    Not a sweep: its dozen processes beside those of other tests are what a raylet warns of, in every console.
    """
    folder = tmp_path_factory.mktemp("quiet")
    write_simulated_catalog(folder, num_train=10, num_val=0)
    sweep = {
        "name": "quiet",
        "method": "grid",
        "command": ["python", "-m", "ray_jobs.train", "varnet_mosaic_x8_debug", "${args_no_hyphens}"],
        "parameters": {"seed": {"values": [1, 2]}},
    }
    (folder / "quiet.yaml").write_text(yaml.safe_dump(sweep))
    assert said("local", folder, "train", "varnet_mosaic_x8_debug", "name=one", "workers=2") == []
    return folder


def said(address, folder, verb, *arguments):
    """Run a verb on a cluster, on one of its own where that is ``local``; return every line that it printed which is not ours."""
    settings = [f"data.catalog={folder / 'prepared'}", f"storage={folder / 'runs'}"] if verb in ("train", "sweep") else []
    loud = {name for name in os.environ if name.startswith(("RAY_", "WANDB_", "PYTHONWARNINGS")) and not name.startswith("RAY_AUTH_")}
    environment = {name: value for name, value in os.environ.items() if name not in loud}
    done = subprocess.run(
        [sys.executable, "-m", f"ray_jobs.{verb}", *arguments, *settings],
        cwd=ROOT,
        env={**environment, "RAY_ADDRESS": address, "PYTHONPATH": f"{ROOT / 'library'}{os.pathsep}{ROOT}"},
        text=True,
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    foreign = [line for line in done.stderr.splitlines() if line and not any(re.fullmatch(form, line) for form in OURS)]
    return foreign + [line for line in done.stdout.splitlines() if any(re.search(form, line) for form in THEIRS)]


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("evaluate", ["runs/one", "--split", "test"]),
        ("sweep", ["quiet.yaml", "--concurrency", "2"]),
        ("filter", ["prepared", "--name", "brain-like", "--anatomies", "brain"]),
        ("reconstruct", ["runs/one", "scans", "--to", "images", "--undersample"]),
    ],
)
def test_a_verb_prints_nothing_that_is_not_ours(place, verb, arguments):
    places = {"runs/one", "quiet.yaml", "prepared", "scans", "images"}
    address = "local" if verb == "sweep" else ray.get_runtime_context().gcs_address
    assert said(address, place, verb, *(str(place / each) if each in places else each for each in arguments)) == []


@pytest.mark.parametrize(
    "line",
    [
        "[2026-11-27 01:30:21,597 E 18990 18990] core_worker.cc:2465: Actor with class name: 'MapWorker' has constructor arguments",
        "(TrialDriver pid=4177) Traceback (most recent call last):",
        "(TrialDriver pid=4177) SystemExit: 15",
        "/venv/lib/python3.11/site-packages/torch/nn/functional.py:10: UserWarning: no",
        "2026-11-27 01:30:21,597\tINFO worker.py:1942 -- Started a local Ray instance.",
    ],
)
def test_a_line_of_a_library_is_known_for_one(line):
    assert not any(re.fullmatch(form, line) for form in OURS)
    assert any(re.search(form, line) for form in THEIRS)
