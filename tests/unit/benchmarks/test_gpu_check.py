"""The check of a GPU takes every step on a CPU too, needs no package that such a machine may lack, and outlives what fails in it."""

import importlib
import json
import os
import re
import subprocess
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from echotrain.benchmarks import gpu_check, tricks
from echotrain.benchmarks.gpu_check import ROOT, STEPS, Check, GpuStep, check
from echotrain.benchmarks.missing import missing_package
from echotrain.benchmarks.step_sides import Measured
from echotrain.errors import ConfigError, ResourceError, StorageError
from echotrain.models.layers import activated_norm
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
    environment["CUDA_VISIBLE_DEVICES"] = ""
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
from echotrain.benchmarks import gpu_check
try:
    gpu_check.run_tests(False, lambda figures: None)
except RuntimeError as error:
    print("It is not passed:", error)
"""
    said = run_bare(code)
    assert "test_device_numbers.py::test_a_resume_ends_in_the_same_bits[cuda-fp32]" in said
    assert "2 passed" in said
    # Without a device every test is skipped, which is no pass.
    assert re.search(r"It is not passed: (\d+) of \1 tests were skipped: no CUDA device is visible to torch\n$", said)


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
    assert set(result["steps"]["tricks_bf16"]["figures"]["outputs_agree"]) >= {"all", "without_norm", "none"}
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
    return "but for something"


def lack(dry, report):
    report({"before": 5})
    importlib.import_module("nosuchpackage.deep")


def lack_below(dry, report):
    try:
        lack(dry, report)
    except ImportError as error:
        raise ResourceError("what it compares with", "is not installed", "Install it.") from error


def lack_our_own(dry, report):
    report({"before": 6})
    importlib.import_module("echotrain.nosuchmodule")


class InPlace:
    """Forks instead of asking a server, which would not know of steps made here."""

    def __init__(self):
        import multiprocessing

        context = multiprocessing.get_context("fork")
        self.Pipe, self.Process = context.Pipe, context.Process

    def set_forkserver_preload(self, names):
        pass


@pytest.fixture
def take_instead(monkeypatch):
    """Return what puts other steps, each a function and its limit, in place of the check's own."""

    def put(**steps):
        monkeypatch.setattr(gpu_check, "STEPS", {name: GpuStep(run=run, limit_s=limit) for name, (run, limit) in steps.items()})
        monkeypatch.setattr(gpu_check, "multiprocessing", SimpleNamespace(get_context=lambda kind: InPlace()))

    return put


FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@FORKS
def test_what_fails_hangs_or_crashes_is_recorded_with_its_figures_and_the_rest_goes_on(tmp_path, take_instead):
    take_instead(
        **{"fail": (fail, 60), "hang": (hang, 1), "crash": (crash, 60), "pass": (pass_by, 60)},
        **{"lack": (lack, 60), "lack_below": (lack_below, 60), "lack_our_own": (lack_our_own, 60)},
    )
    lines = []
    found = check(tmp_path / "figures.json", tell=lines.append)
    written = json.loads((tmp_path / "figures.json").read_text())["steps"]
    assert written == found.result["steps"]
    assert {name: step["outcome"] for name, step in written.items()} == {
        "fail": "failed",
        "hang": "timed out",
        "crash": "crashed",
        "pass": "passed",
        "lack": "left out",
        "lack_below": "left out",
        "lack_our_own": "failed",
    }
    assert [step["figures"]["before"] for step in written.values()] == [1, 2, 3, 4, 5, 5, 6]
    assert lines[0].endswith(": ValueError: on purpose")
    assert lines[3].endswith(" s: but for something")
    assert written["pass"]["note"] == "but for something"
    assert written["lack"]["error"] == written["lack_below"]["error"] == "nosuchpackage is not installed"
    assert not found.is_good


def one_passed(dry, report):
    report({"before": 7})


@FORKS
@pytest.mark.parametrize(("run", "is_good"), [(one_passed, True), (pass_by, True), (lack, False), (fail, False), (crash, False)])
def test_what_did_not_pass_ends_with_1_and_is_named_last(tmp_path, take_instead, capsys, run, is_good):
    take_instead(some=(run, 60), other=(one_passed, 60))
    assert verb.main(["--out", str(tmp_path / "figures.json")]) == (0 if is_good else 1)
    said = capsys.readouterr().out
    assert ("all 2 steps passed\n" in said) == is_good
    assert ("NOT PASSED: some (" in said) != is_good


def device_of(dry, report):
    report({"device": {"name": "of a test"}, "versions": {}})


@FORKS
@pytest.mark.parametrize("run", [fail, crash, lack])
def test_the_device_is_always_looked_at_and_without_it_nothing_is_done(tmp_path, take_instead, run):
    steps = {"first": (one_passed, 60), "second": (one_passed, 60)}
    take_instead(device=(device_of, 60), **steps)
    found = check(tmp_path / "figures.json", only=["second"])
    assert {name: step["outcome"] for name, step in found.result["steps"].items()} == {"device": "passed", "second": "passed"}
    assert found.result["device"] == {"name": "of a test"}
    take_instead(device=(lambda dry, report: run(dry, lambda figures: None), 60), **steps)
    found = check(tmp_path / "figures.json", only=["second"])
    assert found.result["steps"]["second"]["outcome"] == "left out"
    assert not found.is_good


def test_a_check_without_steps_is_not_good(tmp_path):
    assert not Check(tmp_path / "figures.json", dry=True).is_good


def test_a_file_that_cannot_be_written_is_refused_before_any_step(tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"is a folder.*gpu-check\.json"):
        check(tmp_path, dry=True)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        check(tmp_path / "file" / "figures.json", dry=True)
    assert verb.main(["--dry", "--out", str(tmp_path)]) == 2
    assert f"error: out={tmp_path}: is a folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


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
    assert found.result["missed"] == ["times_as_fast_as_fastmri_alike", "memory_over_fastmri_alike"]
    assert found.result["unknown"] == []


def figures_of(alike):
    same = {"time_ratio_same": {"bf16_compiled": alike}, "memory_ratio_same": {"bf16_compiled": 0.4}}
    return {"time_ratio": {"echotrain_bf16_compiled": 0.25}, "memory_ratio": {"echotrain_bf16_compiled": 0.3}, **same}


@FORKS
@pytest.mark.parametrize(
    ("figures", "missed", "told"),
    [
        (figures_of(0.8), ["times_as_fast_as_fastmri_alike"], "GOALS MISSED: times_as_fast_as_fastmri_alike is 1.25, the goal 1.3"),
        (figures_of(0.5), [], "all goals met"),
        ({}, [], "goals without a figure: times_as_fast_as_fastmri_fp32, times_as_fast_as_fastmri_alike, memory_over"),
    ],
)
def test_a_goal_that_is_missed_is_told_last_and_is_no_fault(tmp_path, take_instead, capsys, figures, missed, told):
    take_instead(step_bf16_compiled=(lambda dry, report: report(figures), 60))
    assert verb.main(["--out", str(tmp_path / "figures.json")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(told)
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["missed"] == missed
    assert len(written["unknown"]) == (0 if figures else 4)


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


SUITE = """
import pytest
def test_that_passes():
    pass
@pytest.mark.gpu
def test_of_a_gpu():
    {body}
"""


@pytest.fixture
def run_suite(tmp_path, monkeypatch):
    """Return what runs a suite in place of ``tests/gpu``, and returns what was reported and the note."""

    def run(body, *, dry, above=""):
        folder = tmp_path / "tests" / "gpu"
        folder.mkdir(parents=True)
        (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\nmarkers =\n    gpu: of a GPU\n")
        (folder / f"test_suite_{tmp_path.name}.py").write_text(above + SUITE.format(body=body))
        monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
        reported = {}
        return gpu_check.run_tests(dry, reported.update), {name.partition("::")[2]: test for name, test in reported.items()}

    return run


def test_tests_that_were_all_run_pass_without_a_note(run_suite):
    note, reported = run_suite("pass", dry=False)
    assert note is None
    assert {name: test["outcome"] for name, test in reported.items()} == {"test_of_a_gpu": "passed"}


@pytest.mark.parametrize("body", ["pytest.skip('none is here')", "pytest.importorskip('nosuchpackage', reason='none is here')"])
def test_a_test_that_was_skipped_has_not_passed(run_suite, body):
    with pytest.raises(RuntimeError, match=r"^1 of 1 tests were skipped: none is here$"):
        run_suite(body, dry=False)


@pytest.mark.parametrize("dry", [True, False])
def test_a_file_that_skips_itself_has_not_passed(run_suite, dry):
    with pytest.raises(RuntimeError, match=r"1 of 1 tests were skipped: of a whole file$"):
        run_suite("pass", dry=dry, above="import pytest\npytest.skip('of a whole file', allow_module_level=True)\n")


def test_a_test_that_is_expected_to_fail_has_not_passed(run_suite):
    with pytest.raises(RuntimeError, match="1 of 1 tests were skipped: on this device"):
        run_suite("pytest.xfail('on this device')", dry=False)


def test_a_dry_run_says_how_many_tests_want_a_device(run_suite):
    note, reported = run_suite("pass", dry=True)
    assert note == "1 tests of a GPU were skipped for want of a device"
    assert {name: test["outcome"] for name, test in reported.items()} == {"test_that_passes": "passed"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_kernel_that_computes_something_else_fails(monkeypatch, precision):
    monkeypatch.setattr(activated_norm, "NEGATIVE_SLOPE", 0.5)
    with pytest.raises(RuntimeError, match=r"the outputs of without_norm, .*none are too far from those with all"):
        gpu_check.tricks_in(precision)(True, lambda figures: None)


@pytest.mark.parametrize(("difference", "is_far"), [(float("nan"), True), (0.051, True), (0.049, False)])
def test_an_output_beyond_the_band_of_bf16_or_no_number_fails(monkeypatch, difference, is_far):
    def measured(case, sides, repeats, **options):
        figures = dict.fromkeys(sides, 1.0)
        return Measured(
            seconds=figures, cpu_seconds=figures, megabytes=figures, differences={**dict.fromkeys(sides, 0.0), "none": difference}
        )

    monkeypatch.setattr(tricks, "measure", measured)
    reported = []
    with pytest.raises(RuntimeError, match="the outputs of none are too far") if is_far else nullcontext():
        gpu_check.tricks_in("bf16")(True, reported.append)
    assert reported[0]["outputs_agree"]["none"] != is_far


def test_without_transformers_the_step_of_the_autoencoder_is_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError) as caught:
        STEPS["mae_step"].run(True, lambda figures: None)
    assert missing_package(caught.value) == "transformers"


@pytest.fixture
def fake_device(monkeypatch, tmp_path):
    """Let torch report a GPU, and return the folder where its vendor's tool is sought."""
    found = SimpleNamespace(name="a GPU", total_memory=8e10, major=9, minor=0, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: found)
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 27))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("script", "driver"), [("echo 570.86.15; echo 570.86.15", "570.86.15"), ("exit 9", None), ("echo", None), (None, None)]
)
def test_the_device_is_reported_with_all_that_the_schema_promises(fake_device, script, driver):
    if script is not None:
        tool = fake_device / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    reported = []
    gpu_check.find_device(False, reported.append)
    promised = re.search(r"device    (.*); of a dry run", gpu_check.__doc__)[1].split(", ")
    assert list(reported[0]["device"]) == promised
    assert reported[0]["device"]["driver"] == driver
