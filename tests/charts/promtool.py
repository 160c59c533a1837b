"""Prometheus's own checker, where there is one."""

import os
import shutil
import subprocess

import pytest

__all__ = ["run_promtool"]


def run_promtool(*arguments: str) -> None:
    """Assert that ``promtool`` is content, or skip: Debian's package ``prometheus`` has it."""
    found = os.environ.get("ECHOTRAIN_PROMTOOL") or shutil.which("promtool")
    if not found:
        pytest.skip("promtool is not here; install the package prometheus, or let ECHOTRAIN_PROMTOOL name it")
    done = subprocess.run([found, *arguments], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
