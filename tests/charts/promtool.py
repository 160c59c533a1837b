"""Prometheus's own checker, where there is one."""

import shutil
import subprocess

import pytest

from echotrain.errors import ResourceError
from tests.k8s.tools import find_tool

__all__ = ["run_promtool"]


def run_promtool(*arguments: str) -> None:
    """Assert that ``promtool`` is content, or skip: ``make tools`` takes it from Debian's package, or it is on PATH."""
    try:
        found = shutil.which("promtool") or find_tool("promtool")
    except ResourceError as error:
        pytest.skip(str(error))
    done = subprocess.run([found, *arguments], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
