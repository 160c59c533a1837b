"""The check of a GPU takes every step on a CPU too, needs no package that such a machine may lack, and outlives what fails in it."""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from echotrain.benchmarks import gpu_check
from echotrain.benchmarks.gpu_check import ROOT, STEPS, Check, GpuStep, check
from ray_jobs import gpu_check as verb

pytest.importorskip("fastmri", reason="the public implementation is not installed")

# Finds nothing of what is neither Python's own, nor listed, nor required by what is usual.
BARE = """
import importlib.metadata as metadata, re, sys
from importlib.machinery import PathFinder
from pathlib import Path

def listed(name):
    return [line for line in Path(".ci", name).read_text().splitlines() if not line.startswith("#")]

def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()

allowed, queue = {canonical(name) for name in listed("gpu-carried.txt")}, listed("gpu-usual.txt")
while queue:
    name = canonical(queue.pop())
    if name not in allowed:
        allowed.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        queue += [re.match(r"[A-Za-z0-9_.-]+", need)[0] for need in needs if "extra ==" not in need]
owners = metadata.packages_distributions()

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        of = owners.get(name.partition(".")[0])
        is_there = not of or "echotrain" in of or allowed & set(map(canonical, of))
        return super().find_spec(name, path, target) if is_there else None

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
for name in ("ray", "boto3", "obstore", "wandb", "kubernetes"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} was to be refused")
"""


def run_bare(code):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "library"), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    # Plugins of what a bare machine lacks, which pytest would load by itself.
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", BARE + code], check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_every_step_runs_where_only_the_listed_packages_are():
    code = """
from ray_jobs import bench, gpu_check
from echotrain.benchmarks.gpu_check import STEPS
for name in ("device", "step_bf16", "tricks_fp32", "mae_step"):
    STEPS[name].run(True, lambda figures: None)
print("all of them")
"""
    assert run_bare(code).endswith("all of them\n")


def test_the_tests_of_a_gpu_are_collected_where_only_the_listed_packages_are():
    code = """
import pytest
assert pytest.main(["--collect-only", "-q", "-m", "gpu", "tests/gpu"]) == 0
assert pytest.main(["-q", "tests/gpu/test_device_rank.py"]) == 0
"""
    said = run_bare(code)
    assert "test_device_numbers.py::test_a_resume_ends_in_the_same_bits[cuda-fp32]" in said
    assert "2 passed" in said


def test_a_dry_run_takes_every_step_and_writes_its_figures(tmp_path, capsys):
    steps = [name for name in STEPS if name != "tests"]  # They are run by themselves.
    assert verb.main(["--dry", "--out", str(tmp_path / "figures.json"), "--only", *steps]) == 0
    result = json.loads((tmp_path / "figures.json").read_text())
    assert result["dry"] is True
    assert list(result["steps"]) == steps
    assert {step["outcome"] for step in result["steps"].values()} == {"passed"}
    for name, step in result["steps"].items():
        if name.startswith("step_"):
            variant = name.removeprefix("step_")
            assert f"echotrain_{variant}" in step["figures"]["seconds"]
            assert step["figures"]["time_ratio_same"][variant] > 0
            assert all(step["figures"]["outputs_agree"].values())
    assert result["steps"]["mae_step"]["figures"]["images_per_s"] > 0
    assert set(result["steps"]["tricks_fp32"]["figures"]["time_without"]) >= {"norm", "innermost"}
    assert result["versions"]["torch"]
    assert result["versions"]["anyascii"]
    assert "step_bf16_compiled: passed" in capsys.readouterr().out


def fail(dry, report):
    report({"before": 1})
    raise ValueError("on purpose")


def hang(dry, report):
    report({"before": 2})
    time.sleep(600)


def crash(dry, report):
    report({"before": 3})
    os.abort()


def pass_by(dry, report):
    report({"before": 4})


class InPlace:
    """Forks instead of asking a server, which would not know of steps made here."""

    def __init__(self):
        import multiprocessing

        context = multiprocessing.get_context("fork")
        self.Pipe, self.Process = context.Pipe, context.Process

    def set_forkserver_preload(self, names):
        pass


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_what_fails_hangs_or_crashes_is_recorded_with_its_figures_and_the_rest_goes_on(tmp_path, monkeypatch):
    steps = {"fail": (fail, 60), "hang": (hang, 1), "crash": (crash, 60), "pass": (pass_by, 60)}
    monkeypatch.setattr(gpu_check, "STEPS", {name: GpuStep(run=run, limit_s=limit) for name, (run, limit) in steps.items()})
    monkeypatch.setattr(gpu_check, "multiprocessing", SimpleNamespace(get_context=lambda kind: InPlace()))
    lines = []
    found = check(tmp_path / "figures.json", tell=lines.append)
    written = json.loads((tmp_path / "figures.json").read_text())["steps"]
    assert written == found.result["steps"]
    assert {name: step["outcome"] for name, step in written.items()} == {
        "fail": "failed",
        "hang": "timed out",
        "crash": "crashed",
        "pass": "passed",
    }
    assert [step["figures"]["before"] for step in written.values()] == [1, 2, 3, 4]
    assert lines[0].endswith(": ValueError: on purpose")
    assert not found.is_good


def test_nothing_is_begun_when_the_time_is_up(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "LIMIT_S", 0.0)
    found = check(tmp_path / "figures.json")
    assert {step["outcome"] for step in found.result["steps"].values()} == {"left out"}


def test_goals_are_taken_from_bf16_with_compiled_regularizers(tmp_path):
    found = Check(tmp_path / "figures.json", dry=False)
    assert all(goal["is_met"] is None for goal in found.result["goals"].values())
    figures = {
        "time_ratio": {"echotrain_bf16_compiled": 0.25},
        "time_ratio_same": {"bf16_compiled": 0.8},
        "memory_ratio": {"echotrain_bf16_compiled": 0.3},
        "memory_ratio_same": {"bf16_compiled": 0.6},
    }
    found.add("step_bf16_compiled", figures)
    goals = json.loads((tmp_path / "figures.json").read_text())["goals"]
    assert {name: (goal["figure"], goal["is_met"]) for name, goal in goals.items()} == {
        "times_as_fast_as_fastmri_fp32": (4.0, True),
        "times_as_fast_as_fastmri_alike": (1.25, False),
        "memory_over_fastmri_fp32": (0.3, True),
        "memory_over_fastmri_alike": (0.6, False),
    }


def test_a_test_is_reported_with_what_it_measured_and_what_it_said():
    reported = []
    tests = gpu_check._Tests(reported.append)
    for outcome, said in (("passed", None), ("failed", "assert 1 == 2")):
        tests.pytest_runtest_logreport(
            pytest.TestReport(
                f"a/test_x.py::test_{outcome}", ("", 0, ""), {}, outcome, said, "call", user_properties=[("waits", 1)], duration=0.5
            )
        )
    assert reported == [
        {"test_x.py::test_passed": {"outcome": "passed", "seconds": 0.5, "figures": {"waits": 1}}},
        {"test_x.py::test_failed": {"outcome": "failed", "seconds": 0.5, "figures": {"waits": 1}, "said": "assert 1 == 2"}},
    ]
