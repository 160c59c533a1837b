"""A store that fails: bounded retries where they can help, else a typed error in seconds that names the object."""

import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from echotrain.benchmarks.throttled import Fault, ThrottledServer, serve_throttled
from echotrain.data.catalog.identity import SampleId
from echotrain.data.config import StreamConfig
from echotrain.data.payloads.shards import ShardWriter
from echotrain.data.payloads.slices import encode_packed
from echotrain.data.planned import PlannedStream
from echotrain.data.samples.data_config import DataConfig
from echotrain.data.samples.image import ImageData
from echotrain.data.samples.kspace_kt import KtData
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import (
    CredentialsError,
    EchotrainError,
    ObjectMissingError,
    PayloadError,
    StorageError,
    StorageFullError,
)
from echotrain.physics.kt_masks import KtMaskConfig
from echotrain.physics.masks import MaskConfig
from echotrain.storage import ranged
from echotrain.storage.open import open_store
from tests.catalogs import write_catalog
from tests.frame_catalogs import write_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("s3")
    write_catalog(folder / "bucket", volumes=4)
    write_frames(folder / "hearts", volumes=2)
    return folder


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[ThrottledServer]:
    with serve_throttled(folder) as server:
        yield server


@pytest.fixture
def server(running: ThrottledServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThrottledServer]:
    for name, value in running.env.items():
        monkeypatch.setenv(name, value)
    running.inject()
    running.reset()
    yield running
    running.inject()


LINES, IMAGES = LinesData(catalog="s3://bucket", mask=MaskConfig()), ImageData(catalog="s3://bucket")


def epoch(data: DataConfig = LINES, **options) -> list:
    config = StreamConfig(**{"threads": 2, "timeout_s": 0.5, "attempts": 3, **options})
    stream = PlannedStream(data, seed=0, batch_size=2, config=config)
    steps = list(stream.steps(0))
    stream.close()
    return steps


HEALING = [
    Fault(kind="unavailable", key=".bin", times=3),
    Fault(kind="short", key=".bin", times=3),
    Fault(kind="slow", key=".bin", times=2, seconds=0.8),
    Fault(kind="flip", key=".bin", times=1),
    Fault(kind="unavailable", key=".parquet", times=2),
    Fault(kind="short", key=".parquet", times=2),
    Fault(kind="unavailable", key="v000001.json", times=2),
]


@pytest.mark.parametrize("fault", HEALING, ids=lambda fault: f"{fault.kind}{fault.key}")
def test_a_fault_that_passes_costs_a_retry_and_no_sample(server: ThrottledServer, fault: Fault) -> None:
    server.inject(fault)
    # One try more than there are faults: all of them may meet one range.
    steps = epoch(attempts=5)
    assert sorted(sample for step in steps for batch in step.batches for sample in batch.ids) == sorted(
        SampleId("test", f"file{volume:03d}", index) for volume in range(4) for index in range(3)
    )


@pytest.mark.parametrize("fault", [fault for fault in HEALING if fault.key == ".bin"], ids=lambda fault: fault.kind)
def test_faults_that_pass_change_no_image(server: ThrottledServer, fault: Fault) -> None:
    whole = [batch.image for step in epoch(IMAGES) for batch in step.batches]
    server.inject(fault)
    again = [batch.image for step in epoch(IMAGES, attempts=5) for batch in step.batches]
    assert sum(map(len, whole)) == 12
    assert all(torch.equal(image, same) for image, same in zip(whole, again, strict=True))


@pytest.mark.parametrize("fault", [fault for fault in HEALING if fault.key == ".bin"], ids=lambda fault: fault.kind)
def test_faults_that_pass_change_no_window_of_frames(server: ThrottledServer, fault: Fault) -> None:
    mask = KtMaskConfig(kinds=("kt_gaussian", "kt_radial"), accelerations=(4,), acs_lines=4)
    hearts = KtData(catalog="s3://hearts", mask=mask, num_adjacent=3)
    whole = [batch.network_input() for step in epoch(hearts) for batch in step.batches]
    server.inject(fault)
    again = [batch.network_input() for step in epoch(hearts, attempts=5) for batch in step.batches]
    assert sum(len(each.mask) for each in whole) > 12
    for expected, found in zip(whole, again, strict=True):
        assert all(torch.equal(ours, same) for ours, same in zip(expected, found, strict=True))


LASTING = [
    (Fault(kind="unavailable", key=".bin"), StorageError, r"shards/test-0000\d\.bin.*failed 3 times.*503"),
    (Fault(kind="short", key=".bin"), StorageError, r"shards/test-0000\d\.bin.*failed 3 times.*bytes early"),
    (Fault(kind="slow", key=".bin", seconds=2.0), StorageError, r"shards/test-0000\d\.bin.*silent for 0\.5 s"),
    (Fault(kind="flip", key=".bin"), PayloadError, r"shards/test-0000\d\.bin at byte \d+.*checksum"),
    (Fault(kind="missing", key=".bin"), ObjectMissingError, r"shards/test-0000\d\.bin.*does not exist"),
    (Fault(kind="expired", key=".bin"), CredentialsError, r"shards/test-0000\d\.bin.*have expired.*Renew"),
    (Fault(kind="denied", key=".bin"), CredentialsError, r"shards/test-0000\d\.bin.*AWS_ACCESS_KEY_ID"),
    (Fault(kind="expired", key=".parquet"), CredentialsError, r"catalog/v000001.*have expired"),
    (Fault(kind="unavailable", key=".parquet"), StorageError, r"catalog/v000001.*failed 5 times"),
]


@pytest.mark.parametrize(("fault", "error", "words"), LASTING, ids=lambda value: getattr(value, "kind", ""))
def test_a_fault_that_lasts_is_a_typed_error_in_seconds(
    server: ThrottledServer, fault: Fault, error: type[EchotrainError], words: str
) -> None:
    server.inject(fault)
    started = time.monotonic()
    with pytest.raises(error, match=words):
        epoch()
    assert time.monotonic() - started < 20


def test_a_retry_goes_on_where_the_body_broke_off(server: ThrottledServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Bodies here are smaller than a piece, of which a broken one may cost as much: every byte that comes is kept.
    monkeypatch.setattr(ranged, "_BODY_PIECE", 1)
    # Patient, so that a busy machine's silence is not a retry of its own: what was sent to it in vain would be counted.
    patient = {"timeout_s": 30.0, "attempts": 5}
    whole = sum(step.num_bytes for step in epoch(**patient))
    catalog = server.stats().bytes - whole
    server.reset()
    server.inject(Fault(kind="short", key=".bin", times=3))
    epoch(**patient)
    assert server.stats().bytes == whole + catalog


def test_a_shard_that_vanished_is_named(server: ThrottledServer, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "bucket", folder / "other", dirs_exist_ok=True)
    (folder / "other" / "shards" / "test-00001.bin").unlink()
    data = LinesData(catalog="s3://other")
    stream = PlannedStream(data, seed=0, batch_size=1, config=StreamConfig(threads=2))
    with pytest.raises(ObjectMissingError, match=r"other/shards/test-00001\.bin"):
        list(stream.steps(0))


def test_a_server_that_is_not_there_is_a_storage_error_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"bucket/.*failed 5 times"):
        epoch()
    assert time.monotonic() - started < 15


DOWNLOADS = [
    (Fault(kind="short", key=".bin"), StorageError, "failed 5 times"),
    (Fault(kind="unavailable", key=".bin"), StorageError, "failed 5 times.*503"),
    (Fault(kind="missing", key=".bin"), ObjectMissingError, "does not exist"),
    (Fault(kind="expired", key=".bin"), CredentialsError, "have expired"),
    (Fault(kind="redirect", key=".bin"), StorageError, r"another region \(301 PermanentRedirect\).*Set AWS_REGION"),
    (Fault(kind="condition", key=".bin"), StorageError, "failed 5 times.*did not match expected ETag"),
    (Fault(kind="unknown", key=".bin"), StorageError, "cannot do this"),
]


@pytest.mark.parametrize(("fault", "error", "words"), DOWNLOADS, ids=lambda value: getattr(value, "kind", ""))
def test_a_download_that_fails_is_a_typed_error_and_leaves_nothing(
    server: ThrottledServer, tmp_path: Path, fault: Fault, error: type[EchotrainError], words: str
) -> None:
    server.inject(fault)
    with pytest.raises(error, match=rf"bucket/shards/test-00000\.bin: .*{words}"):
        open_store("s3://bucket").download("shards/test-00000.bin", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_a_download_whose_body_breaks_off_is_tried_again(server: ThrottledServer, folder: Path, tmp_path: Path) -> None:
    server.inject(Fault(kind="short", key=".bin", times=3))
    open_store("s3://bucket").download("shards/test-00000.bin", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (folder / "bucket" / "shards" / "test-00000.bin").read_bytes()


@pytest.mark.parametrize(("kind", "words"), [("redirect", "another region"), ("condition", "condition"), ("unknown", "cannot do this")])
def test_a_range_that_is_refused_is_a_typed_error(server: ThrottledServer, kind: str, words: str) -> None:
    server.inject(Fault(kind=kind, key=".bin"))
    with pytest.raises(StorageError, match=words):
        epoch()


def test_missing_credentials_are_named(server: ThrottledServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(CredentialsError, match="AWS_ACCESS_KEY_ID"):
        open_store("s3://bucket").read("catalog/v000001.json")


@pytest.mark.parametrize("method", ["write", "upload", "download"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    store = open_store(str(tmp_path / "store"))
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    store.write("there", b"before")

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    attempt = {
        "write": lambda: store.write("new", b"x" * 1000),
        "upload": lambda: store.upload(source, "new"),
        "download": lambda: store.download("there", tmp_path / "store" / "new"),
    }[method]
    with pytest.raises(StorageFullError, match=r"no space is left.*Free space"):
        attempt()
    monkeypatch.undo()
    assert [info.key for info in store.list()] == ["there"]
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["there"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_local_disk_stops_a_shard_before_it_is_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    store = open_store(str(tmp_path))
    monkeypatch.setattr(ShardWriter, "_path", property(lambda self: Path("/dev/full")))
    encoded = encode_packed(np.ones((8, 64, 64), np.complex64), None)
    with pytest.raises(StorageFullError, match="TMPDIR"), ShardWriter(store, "shards/a") as shards:
        shards.add(encoded)
    assert list(store.list()) == []
