"""Folders and buckets keep the same promises."""

import errno
import os
import pickle
from pathlib import Path

import obstore
import pytest
from boto3.s3.transfer import TransferConfig

from echotrain.errors import ConfigError, ObjectMissingError, PayloadError, StorageError
from echotrain.storage import s3
from echotrain.storage.bucket_store import BucketStore
from echotrain.storage.buckets import Buckets
from echotrain.storage.embedded import EmbeddedServer
from echotrain.storage.folder import as_folder
from echotrain.storage.local import LocalStore, atomic_folder
from echotrain.storage.open import join_uri, local_path, open_store
from echotrain.storage.ranged import RangeReader
from echotrain.storage.s3 import S3Store
from echotrain.storage.store import Store
from tests.s3_fake import FakeS3


@pytest.fixture
def store(any_store: Store) -> Store:
    return any_store


def test_what_is_written_is_read(store: Store) -> None:
    assert store.write("a/b.json", b"one")
    assert store.write("a/b.json", b"two")
    assert store.read("a/b.json") == b"two"
    assert store.size("a/b.json") == 3
    assert store.size("a/none") is None


def test_a_write_only_if_absent_leaves_what_is_there(store: Store) -> None:
    assert store.write("k", b"one", only_if_absent=True)
    assert not store.write("k", b"two", only_if_absent=True)
    assert store.read("k") == b"one"


def test_listing_is_in_key_order_and_by_prefix(store: Store) -> None:
    for key in ("b/2", "b/10", "a", "c/d/e", "b2"):
        store.write(key, key.encode())
    assert [info.key for info in store.list()] == ["a", "b/10", "b/2", "b2", "c/d/e"]
    assert [(info.key, info.size) for info in store.list("b/")] == [("b/10", 4), ("b/2", 3)]
    assert [info.key for info in store.list("c/d")] == ["c/d/e"]
    assert [info.key for info in store.list("b")] == ["b/10", "b/2", "b2"]
    assert list(store.list("none/")) == []


def test_files_are_uploaded_and_downloaded_whole(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(100_000))
    store.upload(source, "deep/er/file.bin")
    store.download("deep/er/file.bin", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("key", ["a b+c", "käse/#1?", "100%", "x%2Fy", "a&b='c'"])
def test_keys_keep_every_character(store: Store, key: str) -> None:
    store.write(key, b"0123456789")
    assert (store.read(key), store.size(key), [info.key for info in store.list()]) == (b"0123456789", 10, [key])
    buffer = memoryview(bytearray(4))
    RangeReader().read_into(f"{store.uri}/{key}", 3, buffer)
    assert bytes(buffer) == b"3456"


def test_what_is_written_again_has_another_version(store: Store) -> None:
    store.write("k", b"one")
    (before,) = store.list()
    store.write("k", b"two")
    (after,) = store.list()
    assert before.version != after.version


def test_more_than_is_asked_for_is_refused_unread(store: Store) -> None:
    store.write("k", b"12345")
    assert store.read("k", at_most=5) == b"12345"
    with pytest.raises(StorageError, match="has 5 bytes, and at most 4 are read"):
        store.read("k", at_most=4)


def test_a_large_file_goes_to_s3_in_parts_and_comes_back_whole(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    part = 5 << 20
    monkeypatch.setattr(s3, "_TRANSFER", TransferConfig(multipart_threshold=part, multipart_chunksize=part, max_concurrency=2))
    (tmp_path / "large").write_bytes(os.urandom(2 * part + 77))
    store = open_store(server.create_bucket("large-files"))
    store.upload(tmp_path / "large", "key")
    # What S3 calls an object that came in three parts.
    assert '-3"' in next(iter(store.list())).version
    store.download("key", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "large").read_bytes()


def test_a_file_that_may_be_consumed_is_stored_as_any_other(store: Store, tmp_path: Path) -> None:
    data = os.urandom(100_000)
    for consume in (False, True):
        (tmp_path / "source").write_bytes(data)
        store.upload(tmp_path / "source", "deep/key", consume=consume)
        assert store.read("deep/key") == data
        assert consume or (tmp_path / "source").read_bytes() == data


def test_a_missing_object_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissingError, match="gone"):
        store.read("gone")
    with pytest.raises(ObjectMissingError, match="gone"):
        store.download("gone", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_deleting_twice_is_fine(store: Store) -> None:
    store.write("k", b"one")
    store.delete("k")
    store.delete("k")
    assert store.size("k") is None


def test_a_store_crosses_processes(store: Store) -> None:
    store.write("k", b"one")
    again = pickle.loads(pickle.dumps(store))
    assert again.uri == store.uri
    assert again.read("k") == b"one"


def test_uris_choose_the_store(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path.as_uri()), LocalStore)
    assert open_store(tmp_path.as_uri()).uri == str(tmp_path)
    assert isinstance(open_store("s3://bucket/a/b/"), S3Store)
    assert open_store("s3://bucket/a/b/").uri == "s3://bucket/a/b"
    for scheme in ("gs", "az"):
        assert isinstance(open_store(f"{scheme}://bucket/a"), BucketStore)
    for uri, words in {"ftp://bucket": "neither a folder nor", "s3:///key": "no bucket", "gs://": "no bucket", "": "no place"}.items():
        with pytest.raises(ConfigError, match=words):
            open_store(uri)


def test_relative_uris_are_below_the_root_and_absolute_ones_are_not() -> None:
    assert join_uri("s3://b/root/", "shards/a") == "s3://b/root/shards/a"
    assert join_uri("/data", "shards/a") == "/data/shards/a"
    assert join_uri("/data", "s3://c/x") == "s3://c/x"
    assert join_uri("s3://b/root", "/scans/x.h5") == "/scans/x.h5"
    assert local_path("file:///a%20b") == Path("/a b")


def test_the_embedded_server_listens_on_loopback_only_and_refuses_strangers(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from echotrain.errors import CredentialsError

    assert server.endpoint.startswith("http://127.0.0.1:")
    bucket = server.create_bucket("private")
    assert server.create_bucket("private") == bucket
    for name, value in {**server.env, "AWS_SECRET_ACCESS_KEY": "wrong"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CredentialsError, match="AWS_SECRET_ACCESS_KEY"):
        open_store(bucket).read("anything")


def test_the_embedded_server_is_reached_past_a_proxy_that_would_not_know_it(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "hospital.org")
    assert server.env["NO_PROXY"] == server.env["no_proxy"] == "hospital.org,127.0.0.1"
    for name, value in {**server.env, "HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    store = open_store(server.create_bucket("direct"))
    store.write("key", b"12345")
    buffer = memoryview(bytearray(5))
    RangeReader().read_into("s3://direct/key", 0, buffer)
    assert bytes(buffer) == b"12345"


@pytest.mark.parametrize(("typed", "key"), [("p", "p/k"), ("p/", "p/k"), ("p//", "p//k"), ("/p", "/p/k"), ("", "k"), ("a//b/", "a//b/k")])
def test_a_prefix_of_s3_is_meant_as_it_is_typed(keyed_s3: FakeS3, typed: str, key: str) -> None:
    store = open_store(f"s3://lab/{typed}")
    store.write("k", b"1")
    assert list(keyed_s3.objects) == [("lab", key)]
    assert [info.key for info in store.list()] == ["k"]
    buffer = memoryview(bytearray(1))
    RangeReader().read_into(f"{store.uri}/k", 0, buffer)
    assert bytes(buffer) == b"1"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_a_file_system_without_hard_links_keeps_the_promise_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", no_links)
    store = open_store(str(tmp_path))
    assert store.write("k", b"one", only_if_absent=True)
    assert not store.write("k", b"two", only_if_absent=True)
    assert store.read("k") == b"one"
    assert [info.key for info in store.list()] == ["k"]


def test_a_file_where_a_folder_is_needed_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_bytes(b"")
    with pytest.raises(StorageError, match=r"runs: is a file, and a folder is needed"):
        open_store(str(tmp_path / "runs")).write("config.json", b"")


def write_folder(path: Path, *, only_if_absent: bool = False, fails: bool = False) -> None:
    with atomic_folder(path, only_if_absent=only_if_absent) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "new").write_bytes(b"new")
        if fails:
            raise ZeroDivisionError


@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, is_there: bool) -> None:
    if is_there:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        write_folder(tmp_path / "out", fails=True)
    assert [path.name for path in tmp_path.rglob("*")] == (["out", "old"] if is_there else [])
    write_folder(tmp_path / "out")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["out", "out/deep", "out/deep/new"]


def test_a_folder_that_is_there_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_folder(tmp_path / "out", only_if_absent=True)
    with pytest.raises(FileExistsError):
        write_folder(tmp_path / "out", only_if_absent=True)
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_folder(tmp_path / "file", only_if_absent=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


def test_a_folder_that_cannot_be_replaced_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "out")
    rename = Path.rename

    def full(self: Path, target: Path) -> Path:
        if target == tmp_path / "out" and not (self / "deep").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(StorageError, match=os.strerror(errno.EIO)), atomic_folder(tmp_path / "out") as folder:
        (folder / "newer").write_bytes(b"newer")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["out", "out/deep", "out/deep/new"]


def test_objects_are_lent_as_files_of_a_folder(store: Store) -> None:
    store.write("config.json", b"{}")
    store.write("weights", b"many")
    with as_folder(store.uri, ["config.json", "weights"]) as folder:
        assert [(folder / name).read_bytes() for name in ("config.json", "weights")] == [b"{}", b"many"]
    assert store.read("weights") == b"many"
    assert folder.exists() == (local_path(store.uri) is not None)


def test_an_object_that_is_missing_cannot_be_lent(store: Store) -> None:
    with pytest.raises(ObjectMissingError), as_folder(store.uri, ["none"]):
        pass


@pytest.mark.parametrize("any_store", ["s3", "gs", "az"], indirect=True)
def test_a_version_that_is_there_is_read_and_one_that_was_replaced_is_not(store: Store) -> None:
    store.write("k", b"12345")
    uri = f"{store.uri}/k"
    client, path = Buckets(timeout_s=5).open(uri)
    version = obstore.head(client, path)["e_tag"]
    assert version is not None
    buffer = memoryview(bytearray(3))
    RangeReader().read_into(uri, 1, buffer, version=version)
    assert bytes(buffer) == b"234"
    store.write("k", b"67890")
    with pytest.raises(PayloadError, match="was replaced while it was read"):
        RangeReader().read_into(uri, 1, buffer, version=version)
