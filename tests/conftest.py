"""What every test may ask for."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from echotrain.baselines.bart import find_bart
from echotrain.data.formats.salt import SALT_VARIABLE
from echotrain.errors import ResourceError
from tests.s3_fake import FakeS3, serve_keys

torch.set_num_threads(1)
# What an example takes depends on what else the machine does.
settings.register_profile("echotrain", deadline=None)
settings.load_profile("echotrain")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what takes longest: files on the shared cluster, then those that start one of their own."""
    items.sort(key=lambda item: ("local_ray" not in getattr(item, "fixturenames", ()), item.get_closest_marker("ray") is None))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked ``bart`` where the toolbox is not found, saying how to get it."""
    if item.get_closest_marker("bart") is not None:
        try:
            find_bart()
        except ResourceError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session", autouse=True)
def _own_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Be on a machine of one's own, wherever the tests run, with a configuration folder that is empty and a key that is always the same.

    What a pod or a job's environment says would turn a laptop's behaviour into a cluster's.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("KUBERNETES_SERVICE_HOST", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
            patch.delenv(name, raising=False)
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("configuration")))
        patch.setenv(SALT_VARIABLE, "the key of the tests, which is no secret")
        yield


@pytest.fixture(autouse=True)
def _no_settings_are_left() -> Iterator[None]:
    """Name the test that leaves settings of stores in the environment; some later one would fail for it."""
    before = _settings()
    yield
    assert _settings() == before


def _settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))}


@pytest.fixture(scope="session")
def scanner_data() -> Path:
    """Return the folder of real scans, or skip: the project stands alone without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ECHOTRAIN_SCANNER_DATA", default))
    if not (folder / "MANIFEST.md").is_file():
        pytest.skip("real scanner data is not here; set ECHOTRAIN_SCANNER_DATA to its folder")
    return folder


@pytest.fixture
def keyed_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    """Return a store that keeps keys letter by letter, to which every S3 client of this process talks."""
    with serve_keys() as fake:
        for name, value in fake.env.items():
            monkeypatch.setenv(name, value)
        yield fake
