"""One small Ray cluster for all tests of this folder, and one small data set."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from simulated import write_simulated_catalog

from echotrain.orchestration.cluster import connect


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Start a cluster of four logical CPUs that every test shares; a machine with fewer cores is merely slower."""
    os.environ.pop("RAY_ADDRESS", None)
    if not ray.is_initialized():
        ray.init(num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    connect()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def catalog_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URI of a prepared catalog of simulated scans: 5 patients to train, 2 to validate, 32 pixels wide."""
    folder: Path = tmp_path_factory.mktemp("catalog")
    return write_simulated_catalog(folder)
