"""From scans to scores in stores that are not a plain S3: over TLS and through a proxy, and from a fake of Google's to one of Azure's.

The fakes are no proof that the services answer so; see ``tests/fake_buckets.py``.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from echotrain.data.catalog.store import load_catalog
from echotrain.orchestration.runtime.group import Workers
from echotrain.storage.embedded import serve_folder
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import find_checkpoint
from ray_jobs import evaluate, prepare
from tests.fake_buckets import fake_buckets
from tests.local_cluster import lines, run, short_experiment
from tests.scripted_http import Proxy, forwarding
from tests.simulated import write_simulated_catalog

pytestmark = pytest.mark.ray


@dataclass
class Place:
    """A prefix to read scans and samples below, one to keep runs below, and the proxy on the way to them, if there is one."""

    uri: str
    runs: str
    proxy: Proxy | None = None
    server: str = ""
    keys: list[str] = field(default_factory=list)


@contextlib.contextmanager
def place(kind: str, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Place]:
    if kind == "gs to az":
        with fake_buckets("gs", patch), fake_buckets("az", patch):
            yield Place("gs://lab/group", "az://lab/runs")
        return
    with serve_folder(folder / "s3", tls=True) as server, forwarding() as proxy:
        for name, value in server.env.items():
            patch.setenv(name, value)
        for name in ("NO_PROXY", "no_proxy"):
            patch.delenv(name)
        for name in ("HTTPS_PROXY", "https_proxy"):
            patch.setenv(name, proxy.url)
        bucket = server.create_bucket("lab")
        yield Place(f"{bucket}/group", f"{bucket}/group/runs", proxy, server.endpoint.removeprefix("https://"))


@pytest.mark.parametrize("kind", ["tls", "gs to az"])
def test_scans_become_a_catalog_a_run_that_resumes_and_scores(local_ray, tmp_path, monkeypatch, capsys, kind):
    write_simulated_catalog(tmp_path, num_train=4, num_val=2, num_slices=2)
    with place(kind, tmp_path, monkeypatch) as there:
        for path in sorted((tmp_path / "scans").rglob("*.h5")):
            open_store(f"{there.uri}/scans").upload(path, path.name)
        assert prepare.main([f"{there.uri}/scans", "--to", f"{there.uri}/prepared", "--split", "50/25/25"]) == 0
        catalog = load_catalog(f"{there.uri}/prepared")
        assert len(catalog.table) == 12
        if there.proxy is not None:
            there.proxy.connected.clear()
        experiment = short_experiment(catalog.root, there.runs)
        with Workers() as workers:
            half = run(experiment, "workers=2", "epochs=1", workers=workers)
            whole = run(experiment, "workers=2", "epochs=2", workers=workers)
        assert whole.run_uri == half.run_uri
        store = open_store(whole.run_uri)
        assert find_checkpoint(store).position["epoch"] == 2
        assert [line["epoch"] for line in lines(whole) if line["kind"] == "epoch"] == [0, 1]
        assert evaluate.main([whole.run_uri, "--split", "val"]) == 0
        assert "PSNR" in capsys.readouterr().out
        assert [info.key for info in store.list("evaluation")]
        if there.proxy is not None:
            # Every connection of this process and of the workers, the reads of training among them, went the way that was set.
            assert set(there.proxy.connected) == {there.server}
            assert len(there.proxy.connected) > 4
