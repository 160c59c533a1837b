"""A store of every kind."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from echotrain.storage.embedded import EmbeddedServer, serve_folder
from echotrain.storage.open import open_store
from echotrain.storage.store import Store
from tests.fake_buckets import fake_buckets


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with serve_folder(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(params=["folder", "s3", "gs", "az"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    if request.param == "folder":
        yield open_store(str(tmp_path / "store"))
    elif request.param == "s3":
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield open_store(f"{server.create_bucket(f'bucket-{uuid.uuid4().hex}')}/some/prefix")
    else:
        with fake_buckets(request.param, monkeypatch):
            yield open_store(f"{request.param}://bucket/some/prefix")
