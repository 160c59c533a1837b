"""Google's and Azure's buckets, against fakes: what goes wrong on the way is retried or told, and nothing is silently left out."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError

from echotrain.errors import ConfigError, CredentialsError, PayloadError, StorageError
from echotrain.storage import bucket_store
from echotrain.storage.bucket_store import BucketStore
from echotrain.storage.ranged import RangeReader
from echotrain.storage.retry import RetryPolicy
from tests.fake_buckets import FakeBuckets, fake_buckets

QUICK = RetryPolicy(attempts=3, first_delay_s=0.01)


@pytest.fixture(params=["gs", "az"])
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBuckets]:
    with fake_buckets(request.param, monkeypatch) as running:
        running.objects["bucket/runs/k"] = b"12345"
        yield running


@pytest.fixture
def store(fake: FakeBuckets) -> BucketStore:
    return BucketStore(f"{fake.dialect}://bucket/runs", retry=QUICK)


def test_a_listing_that_fails_on_its_way_is_no_shorter_listing(fake: FakeBuckets, store: BucketStore) -> None:
    fake.objects.update({f"bucket/runs/{number}": b"" for number in range(9)})
    fake.failures[:] = [0, 503]
    assert [info.key for info in store.list()] == [*map(str, range(9)), "k"]
    fake.failures[:] = [0, 403]
    with pytest.raises(CredentialsError):
        list(store.list())


def test_a_neighbour_whose_name_begins_alike_is_no_part_of_a_store(fake: FakeBuckets, store: BucketStore) -> None:
    fake.objects["bucket/runs-of-others/k"] = b""
    assert [info.key for info in store.list()] == ["k"]


ACTIONS: dict[str, Callable[[BucketStore, Path], object]] = {
    "read": lambda store, _: store.read("k"),
    "write": lambda store, _: store.write("k", b"new"),
    "size": lambda store, _: store.size("k"),
    "list": lambda store, _: list(store.list()),
    "delete": lambda store, _: store.delete("k"),
    "download": lambda store, folder: store.download("k", folder / "copy"),
    "upload": lambda store, folder: store.upload(folder / "file", "k"),
    "range": lambda store, _: RangeReader(retry=QUICK).read_into(f"{store.uri}/k", 0, memoryview(bytearray(5))),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_a_store_that_is_busy_is_asked_again_and_one_that_refuses_is_not(
    fake: FakeBuckets, store: BucketStore, tmp_path: Path, action: str
) -> None:
    (tmp_path / "file").write_bytes(b"new")
    fake.failures[:] = [503, 503]
    ACTIONS[action](store, tmp_path)
    assert fake.failures == []
    fake.objects["bucket/runs/k"] = b"12345"
    fake.failures[:] = [503] * 9
    with pytest.raises(StorageError, match=r"bucket/runs/.*failed 3 times.*503"):
        ACTIONS[action](store, tmp_path)
    fake.failures[:] = [403]
    with pytest.raises(CredentialsError, match="GOOGLE_APPLICATION_CREDENTIALS" if fake.dialect == "gs" else "AZURE_STORAGE_ACCOUNT"):
        ACTIONS[action](store, tmp_path)
    assert fake.failures == []


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_conditional_write_whose_answer_was_lost_is_known_as_ones_own(
    fake: FakeBuckets, store: BucketStore, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    put, tries = obstore.put, []

    def lose_the_first_answer(*arguments: Any, **options: Any) -> None:
        tries.append(options["mode"])
        put(*arguments, **options)
        if is_lost and len(tries) == 1:
            raise GenericError("status code: 503")

    monkeypatch.setattr(obstore, "put", lose_the_first_answer)
    assert store.write("new", b"12345", only_if_absent=True)
    assert tries == ["create"] * (1 + is_lost)
    # Another's object, be it of the very same bytes.
    assert not store.write("new", b"another", only_if_absent=True)
    assert not store.write("new", b"12345", only_if_absent=True)
    assert fake.objects["bucket/runs/new"] == b"12345"


@pytest.mark.parametrize("size", [3_000_001, 3_500_000, 4_000_000])
def test_large_files_go_up_in_parts_and_come_back_in_pieces(
    fake: FakeBuckets, store: BucketStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(bucket_store, "_PART", 1_000_000)
    (tmp_path / "file").write_bytes(os.urandom(size))
    store.upload(tmp_path / "file", "large")
    assert len(fake.parts) == 4
    fake.failures[:] = [0, 0, 503]
    store.download("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "file").read_bytes()
    store.upload(tmp_path / "file", "large")
    (tmp_path / "none").write_bytes(b"")
    store.upload(tmp_path / "none", "empty")
    store.download("empty", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b""


def test_an_object_that_is_replaced_while_it_comes_down_is_told_and_no_file_appears(
    fake: FakeBuckets, store: BucketStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_store, "_PART", 1000)
    store.write("k", bytes(3000))
    read_into = RangeReader.read_into

    def then_replace(self: RangeReader, *arguments: Any, **options: Any) -> tuple[int, ...]:
        digests = read_into(self, *arguments, **options)
        fake.objects["bucket/runs/k"] = b"1" * 3000
        return digests

    monkeypatch.setattr(RangeReader, "read_into", then_replace)
    with pytest.raises(PayloadError, match="was replaced while it was read"):
        store.download("k", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_an_object_that_ends_early_is_named(store: BucketStore) -> None:
    with pytest.raises(PayloadError, match=f"{store.uri}/k at byte 3: ends before the 3 bytes"):
        RangeReader().read_into(f"{store.uri}/k", 3, memoryview(bytearray(3)))


@pytest.mark.parametrize("key", ["a//b", "a/../b", "./a"])
def test_a_key_that_would_be_taken_for_another_is_refused(fake: FakeBuckets, store: BucketStore, key: str) -> None:
    del fake.requests[:]
    with pytest.raises(StorageError, match="Copy the object to another key"):
        store.read(key)
    assert fake.requests == []


def test_an_account_that_is_not_named_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ConfigError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        BucketStore("az://container/runs").read("k")
