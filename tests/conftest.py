"""What every test may ask for."""

import os
from pathlib import Path

import pytest
import torch

from echotrain.baselines.bart import find_bart
from echotrain.errors import ResourceError

torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked ``bart`` where the toolbox is not found, saying how to get it."""
    if item.get_closest_marker("bart") is not None:
        try:
            find_bart()
        except ResourceError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session")
def scanner_data() -> Path:
    """Return the folder of real scans, or skip: the project stands alone without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ECHOTRAIN_SCANNER_DATA", default))
    if not (folder / "MANIFEST.md").is_file():
        pytest.skip("real scanner data is not here; set ECHOTRAIN_SCANNER_DATA to its folder")
    return folder
