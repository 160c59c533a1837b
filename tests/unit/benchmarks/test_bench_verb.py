"""The bench verb says what its benchmarks need where a package is missing, and runs those that need none of it."""

import os
import subprocess
import sys

import pytest

from echotrain.benchmarks.gpu_check import ROOT
from echotrain.benchmarks.missing import missing_package
from echotrain.errors import ResourceError
from ray_jobs import bench

WITHOUT_RAY = """
import sys
sys.modules["ray"] = None  # As good as not installed.
from ray_jobs import bench
for arguments in (["--help"], ["sweep", "--quick"]):
    try:
        print("status", bench.main(arguments))
    except SystemExit as end:
        print("status", end.code)
"""


def test_help_and_a_benchmark_say_what_needs_ray_where_there_is_none():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "library"), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", WITHOUT_RAY], check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    needing = {name for name in bench.BENCHMARKS if f"  {name}: needs Ray, which is not installed\n" in done.stdout + "\n"}
    assert needing == {"stream", "cluster", "evaluate", "resume", "sweep"}
    for name in bench.BENCHMARKS.keys() - needing:
        assert f"  {name}: quick=False" in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("status")] == ["status 0", "status 2"]
    assert "error: sweep: needs Ray, which is not installed. make install" in done.stderr


def test_a_fault_of_our_own_module_is_no_missing_package(monkeypatch):
    monkeypatch.setitem(bench.BENCHMARKS, "step", "echotrain.benchmarks.no_such_benchmark")
    with pytest.raises(ModuleNotFoundError, match="no_such_benchmark"):
        bench.find("step")


def test_a_missing_package_is_found_by_what_an_error_was_raised_from():
    missing = ModuleNotFoundError("No module named 'nosuchpackage.deep'", name="nosuchpackage.deep")
    error = ResourceError("a benchmark", "cannot run", "Install it.")
    assert missing_package(error) is None
    error.__cause__ = missing
    assert missing_package(missing) == missing_package(error) == "nosuchpackage"
    assert missing_package(ModuleNotFoundError("of a package that is there", name="json.nosuch")) is None
    assert missing_package(ModuleNotFoundError("without a name")) is None
