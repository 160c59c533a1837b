"""The server that tests and benchmarks stream from, over TLS."""

import time
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
import xxhash
from botocore.exceptions import ClientError

from echotrain.benchmarks.throttled import Fault, serve_throttled
from echotrain.errors import EchotrainError, PayloadError
from echotrain.storage.open import open_store
from echotrain.storage.ranged import RangeReader
from echotrain.storage.retry import RetryPolicy

CONTENT = bytes(range(251)) * 40_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("buckets")
    (folder / "bucket").mkdir()
    (folder / "bucket" / "object").write_bytes(CONTENT)
    with serve_throttled(folder, tls=True) as server:
        yield server


def test_whoever_has_its_environment_reads_over_tls(server, monkeypatch):
    assert server.endpoint.startswith("https://127.0.0.1:")
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    server.reset()
    buffer = bytearray(len(CONTENT) - 3)
    assert RangeReader().read_into("s3://bucket/object", 3, memoryview(buffer)) == (xxhash.xxh3_64_intdigest(CONTENT[3:]),)
    assert bytes(buffer) == CONTENT[3:]
    assert boto3.client("s3").get_object(Bucket="bucket", Key="object")["Body"].read() == CONTENT
    assert "object" in [found.key for found in open_store("s3://bucket").list()]
    assert server.stats() == (3, 2 * len(CONTENT) - 3)


@pytest.fixture
def client(server, monkeypatch):
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    return boto3.client("s3")


def test_a_request_that_came_before_a_reset_is_not_counted_after_it(server, client):
    server.reset()
    server.inject(Fault(kind="slow", seconds=0.5, times=1))
    with ThreadPoolExecutor() as pool:
        late = pool.submit(client.get_object, Bucket="bucket", Key="object")
        while server.stats().requests == 0:
            time.sleep(0.01)
        server.reset()
        assert late.result()["Body"].read() == CONTENT
    assert server.stats() == (0, 0)
    assert server.ranges() == []


def test_each_fifth_request_fails_until_as_many_have_failed_as_were_asked_for(server, client):
    server.inject(Fault(kind="missing", key="object", method="GET", every=5, times=2))
    answers = []
    for _ in range(16):
        try:
            client.get_object(Bucket="bucket", Key="object")
            client.head_object(Bucket="bucket", Key="object")
            answers.append(True)
        except ClientError:
            answers.append(False)
    server.inject()
    assert [number for number, is_there in enumerate(answers, 1) if not is_there] == [5, 10]


@pytest.mark.parametrize("key", ["/object", "folder//object", "folder/./object", "folder/../object", "object/", "./object"])
def test_a_key_that_a_folder_would_fold_is_no_object(server, client, key):
    (server.folder / "bucket" / "folder").mkdir(exist_ok=True)
    (server.folder / "bucket" / "folder" / "object").write_bytes(b"1")
    for ask in (client.get_object, client.head_object):
        with pytest.raises(ClientError) as refused:
            ask(Bucket="bucket", Key=key)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert client.get_object(Bucket="bucket", Key="folder/object")["Body"].read() == b"1"


def test_an_object_that_is_written_again_is_another_though_its_size_is_the_same(server, client):
    path, buffer = server.folder / "bucket" / "twice", bytearray(4)
    tags, versions = [], []
    for content in (b"abcd", b"efgh"):
        path.with_suffix(".new").write_bytes(content)
        path.with_suffix(".new").replace(path)
        tags.append(client.head_object(Bucket="bucket", Key="twice")["ETag"])
        versions += [info.version for info in open_store("s3://bucket").list("twice")]
    assert len(set(tags)) == len(set(versions)) == 2
    assert client.get_object(Bucket="bucket", Key="twice", IfMatch=tags[1])["ETag"] == tags[1]
    with pytest.raises(PayloadError, match="was replaced"):
        RangeReader().read_into("s3://bucket/twice", 0, memoryview(buffer), version=tags[0])
    RangeReader().read_into("s3://bucket/twice", 0, memoryview(buffer), version=tags[1])
    assert bytes(buffer) == b"efgh"


def test_faults_come_over_tls_too(server, monkeypatch):
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    server.reset()
    server.inject(Fault(kind="short", times=1))
    buffer = bytearray(len(CONTENT))
    RangeReader(retry=RetryPolicy(first_delay_s=0.01)).read_into("s3://bucket/object", 0, memoryview(buffer))
    assert bytes(buffer) == CONTENT
    assert server.stats().requests == 2


def test_whoever_does_not_trust_its_certificate_is_refused_and_stops_nobody(server, monkeypatch):
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_CA_BUNDLE")
    server.reset()
    with pytest.raises(EchotrainError):
        RangeReader(retry=RetryPolicy(attempts=1)).read_into("s3://bucket/object", 0, memoryview(bytearray(8)))
    # What asks for the counters is another client, which does trust it.
    assert server.stats() == (0, 0)
