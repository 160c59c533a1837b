"""Range reads: the right bytes, in the right buffers, with the right checksums, from folders and servers."""

import contextlib
import io
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import xxhash
from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from echotrain.errors import CredentialsError, ObjectMissingError, PayloadError
from echotrain.storage import ranged
from echotrain.storage.aws import S3Place, s3_client, s3_place
from echotrain.storage.embedded import serve_folder
from echotrain.storage.http import HttpConnection
from echotrain.storage.ranged import RangeReader
from echotrain.storage.retry import TransientError
from echotrain.storage.throttled import serve_throttled

SIZE = 5_000_000
NAME = "an object+#1?.bin"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects")
    (folder / "bucket").mkdir()
    (folder / "bucket" / NAME).write_bytes(os.urandom(SIZE))
    return folder


@pytest.fixture(scope="module", params=["file", "throttled", "embedded"])
def uri(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    if request.param == "file":
        yield str(folder / "bucket" / NAME)
        return
    serve = serve_throttled if request.param == "throttled" else serve_folder
    with serve(folder) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        yield f"s3://bucket/{NAME}"


def memory(nbytes: int) -> memoryview:
    return memoryview(bytearray(nbytes))


def test_a_range_is_scattered_over_buffers_with_a_checksum_of_each(uri: str, folder: Path) -> None:
    data = (folder / "bucket" / NAME).read_bytes()
    buffers = [memory(n) for n in (10, 3_000_000, 1, 0, 777)]
    digests = RangeReader().read_into(uri, 12_345, *buffers)
    at = 12_345
    for buffer, digest in zip(buffers, digests, strict=True):
        assert buffer.tobytes() == data[at : at + len(buffer)]
        assert digest == xxhash.xxh3_64_intdigest(buffer)
        at += len(buffer)


def test_the_last_byte_can_be_read_and_the_one_after_it_cannot(uri: str, folder: Path) -> None:
    reader = RangeReader()
    buffer = memory(100)
    reader.read_into(uri, SIZE - 100, buffer)
    assert buffer.tobytes() == (folder / "bucket" / NAME).read_bytes()[-100:]
    for offset in (SIZE - 99, SIZE, SIZE + 10):
        with pytest.raises(PayloadError, match=f"at byte {offset}: ends before"):
            reader.read_into(uri, offset, buffer)
    reader.read_into(uri, 0, buffer)


def test_a_missing_object_is_named(uri: str) -> None:
    with pytest.raises(ObjectMissingError, match="none"):
        RangeReader().read_into(f"{uri}none", 0, memory(3))


def test_many_threads_share_a_reader(uri: str, folder: Path) -> None:
    data = (folder / "bucket" / NAME).read_bytes()
    reader, wrong = RangeReader(), []

    def work(seed: int) -> None:
        buffer = memory(60_000)
        for i in range(20):
            offset = (seed * 7919 + i * 104_729) % (SIZE - 60_000)
            reader.read_into(uri, offset, buffer)
            if buffer.tobytes() != data[offset : offset + 60_000]:
                wrong.append(offset)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    reader.close()
    buffer = memory(5)
    reader.read_into(uri, 0, buffer)  # a closed reader opens new connections
    assert buffer.tobytes() == data[:5]


def test_an_idle_connection_that_the_server_closed_is_opened_again_without_a_retry() -> None:
    with listening() as (server, port):
        answers = threading.Thread(target=answer_and_close, args=(server, 3))
        answers.start()
        connection = HttpConnection("http", "127.0.0.1", port, timeout_s=5)
        for _ in range(3):
            assert connection.get("/object", {"Host": "test"})[0] == 200
            buffer = memory(5)
            assert b"".join(piece.tobytes() for piece in connection.body_into(buffer)) == b"12345"
        answers.join(timeout=5)
        connection.close()


def test_a_silent_server_is_waited_for_once() -> None:
    with listening() as (server, port):
        connection = HttpConnection("http", "127.0.0.1", port, timeout_s=0.3)
        threading.Thread(target=answer_once_and_fall_silent, args=(server,), daemon=True).start()
        connection.get("/object", {"Host": "test"})
        assert connection.body() == b"12345"
        with pytest.raises(TransientError, match=r"silent for 0\.3 s"):
            connection.get("/object", {"Host": "test"})
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()  # Nobody has connected a second time.


@contextlib.contextmanager
def listening() -> Iterator[tuple[socket.socket, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server, server.getsockname()[1]


def answer_and_close(server: socket.socket, times: int) -> None:
    """Promise to keep each connection, and close it after one answer."""
    for _ in range(times):
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345")


def answer_once_and_fall_silent(server: socket.socket) -> None:
    connection, _ = server.accept()
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345")
    time.sleep(2)
    connection.close()


_PRIVATE_LINK = "bucket.vpce-1a2b.s3.us-east-1.vpce.amazonaws.com"
SETTINGS = [
    ({}, ("https", "lab.s3.us-east-1.amazonaws.com", 443), ""),
    ({"AWS_REGION": "eu-central-1"}, ("https", "lab.s3.eu-central-1.amazonaws.com", 443), ""),
    ({"AWS_DEFAULT_REGION": "eu-west-1"}, ("https", "lab.s3.eu-west-1.amazonaws.com", 443), ""),
    ({"AWS_ENDPOINT_URL": "http://minio:9000"}, ("http", "minio", 9000), "/lab"),
    ({"AWS_ENDPOINT_URL_S3": "https://s3.hospital.org/gateway/"}, ("https", "s3.hospital.org", 443), "/gateway/lab"),
    ({"AWS_ENDPOINT_URL": "https://bucket.vpce-1a2b.s3.us-east-1.vpce.amazonaws.com"}, ("https", _PRIVATE_LINK, 443), "/lab"),
    ({"AWS_ENDPOINT_URL": "https://s3.eu-west-1.amazonaws.com"}, ("https", "s3.eu-west-1.amazonaws.com", 443), "/lab"),
]


@pytest.mark.parametrize(("settings", "server", "path"), SETTINGS)
def test_every_client_of_a_process_talks_to_one_place_in_one_region(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], server: tuple[str, str, int], path: str
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {"AWS_CONFIG_FILE": "/nonexistent", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    place = s3_place()
    found, below = ranged._address(place, "lab")
    # us-east-1 also has a name of its own.
    assert (found[0], found[1].replace("lab.s3.amazonaws", "lab.s3.us-east-1.amazonaws"), found[2]) == server
    assert below == path
    client = s3_client()
    assert client.meta.region_name == place.region == settings.get("AWS_REGION", settings.get("AWS_DEFAULT_REGION", "us-east-1"))
    sent = []

    def answer(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        sent.append(urlsplit(request.url))
        return AWSResponse(request.url, 200, {}, io.BytesIO())

    client.meta.events.register("before-send.s3.GetObject", answer)
    client.get_object(Bucket="lab", Key="a/b")
    assert (sent[0].scheme, sent[0].hostname, sent[0].path) == (found[0], found[1], f"{below}/a/b")


def test_a_bucket_with_a_dot_is_part_of_the_path() -> None:
    place = S3Place(endpoint="https://s3.eu-west-1.amazonaws.com", region="eu-west-1", ca_file="", has_default_endpoint=True)
    assert ranged._address(place, "a.lab") == (("https", "s3.eu-west-1.amazonaws.com", 443), "/a.lab")


def test_certificates_are_those_that_botocore_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/lab-ca.pem")
    assert s3_place().ca_file == "/etc/lab-ca.pem"
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/other-ca.pem")
    assert s3_place().ca_file == "/etc/other-ca.pem"


def test_credentials_that_cannot_be_loaded_are_said_to_be_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text("[default]\ncredential_process = false\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(CredentialsError, match="cannot be loaded"):
        s3_client()
