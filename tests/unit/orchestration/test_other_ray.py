"""``make test-ray``: an environment of another Ray on top of the one that is there, which stays as it is."""

import subprocess
import sys
from pathlib import Path

import pytest
import ray

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def prefix(tmp_path):
    """Return a folder where the environment of this very process's Python seems to be."""
    (tmp_path / "below/bin").mkdir(parents=True)
    python = tmp_path / "below/bin/python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return tmp_path


def run(prefix, *arguments):
    return subprocess.run([ROOT / ".ci/test_ray", "below", *arguments], cwd=prefix, text=True, capture_output=True, check=False)


def test_a_version_must_be_named(prefix):
    done = run(prefix, "")
    assert done.returncode == 2
    assert "RAY='': says no version" in done.stderr


def test_an_environment_in_which_another_ray_answers_is_not_taken_for_it(prefix):
    """Else the tests would pass on the Ray that is installed, and say that they ran on another."""
    made = prefix / "build/venvs/ray-0.0.1"
    made.parent.mkdir(parents=True)
    (prefix / "below").rename(made)
    (made / ".ready").touch()
    (prefix / "below").symlink_to(made)
    done = run(prefix, "0.0.1")
    assert done.returncode == 1
    assert f"error: Ray {ray.__version__} answers in build/venvs/ray-0.0.1, not 0.0.1; remove that folder" in done.stderr
