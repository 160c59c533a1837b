"""What ``make gpu-check`` is told stands after ``make``, and reads as it is meant; what other programs exported does nothing."""

import os
import re
import shutil
import subprocess

import pytest

from echotrain.benchmarks.gpu_check import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
TOLD = ("DATA", "DEMO", "TESTS", "SETTINGS", "RAY", "IMAGE", "DRY", "OUT")


def make(target, *settings, exported=()):
    environment = {name: value for name, value in os.environ.items() if name not in (*TOLD, "MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    command = ["make", "-n", "-o", ".venv/.ready", target, *settings]
    return subprocess.run(command, check=False, cwd=ROOT, env={**environment, **dict(exported)}, capture_output=True, text=True)


@pytest.mark.parametrize(("settings", "is_dry"), [((), False), (("DRY=",), False), (("DRY=0",), False), (("DRY=1",), True)])
def test_a_run_is_dry_where_one_is_said(settings, is_dry):
    done = make("gpu-check", *settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("--out 'build/gpu-check.json'" + (" --dry" if is_dry else ""))


def test_what_is_neither_yes_nor_no_is_refused():
    done = make("gpu-check", "DRY=no")
    assert done.returncode != 0
    assert "DRY=no: must be 1 or 0. DRY=1 takes" in done.stderr


def test_a_file_is_named_after_make():
    assert "--out 'there.json'" in make("gpu-check", "OUT=there.json").stdout


@pytest.mark.parametrize("target", ["gpu-check", "demo", "study", "test", "test-ray", "pipeline"])
def test_what_another_program_exported_does_nothing(target):
    exported = dict.fromkeys(TOLD, "1-of-another-program") | {"DRY": "1"}
    assert make(target, exported=exported).stdout == make(target).stdout


def test_the_names_that_are_tried_are_those_that_targets_read():
    read = set(re.findall(r"\$\(([A-Z]+)\)", (ROOT / "Makefile").read_text()))
    assert read - {"PYTHON", "VENV", "RUN", "READY", "BART", "TOOLS"} == set(TOLD)
