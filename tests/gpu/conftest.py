"""What a GPU alone can get wrong, each test a function of the device: ``cpu`` shows everywhere that the test is right, ``cuda`` is ``gpu``.

Collected without Ray, and without what tests/conftest.py imports: ``pytest -m gpu tests/gpu``.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
# Read when cuBLAS begins; without it a sum may be split another way each time.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch

from echotrain.benchmarks.precise import tf32


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("no CUDA device is visible to torch")


@pytest.fixture(autouse=True)
def _float32_is_float32() -> Iterator[None]:
    with tf32(False):
        yield
