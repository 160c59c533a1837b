"""Range reads: the right bytes, in the right buffers, with the right checksums, from folders and servers."""

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import xxhash
from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from echotrain.benchmarks.throttled import serve_throttled
from echotrain.errors import ConfigError, CredentialsError, EchotrainError, ObjectMissingError, PayloadError, StorageError
from echotrain.storage import ranged
from echotrain.storage.aws import S3Place, s3_client, s3_place
from echotrain.storage.buckets import s3_address
from echotrain.storage.embedded import serve_folder
from echotrain.storage.open import open_store
from echotrain.storage.ranged import RangeReader
from echotrain.storage.retry import RetryPolicy
from tests.scripted_http import WHOLE, Answer, answering, forwarding, point_to

SIZE = 5_000_000
NAME = "an object+#1?.bin"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects")
    (folder / "bucket").mkdir()
    (folder / "bucket" / NAME).write_bytes(os.urandom(SIZE))
    return folder


@pytest.fixture(scope="module", params=["file", "throttled", "embedded"])
def uri(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "file":
        yield str(folder / "bucket" / NAME)
        return
    serving = serve_throttled(folder) if request.param == "throttled" else serve_folder(tmp_path_factory.mktemp("s3"))
    with serving as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        if request.param == "embedded":
            open_store(server.create_bucket("bucket")).upload(folder / "bucket" / NAME, NAME)
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


def test_an_idle_connection_that_the_server_closed_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering([WHOLE] * 3, closes=True) as server:
        point_to(server, monkeypatch)
        reader = RangeReader(retry=RetryPolicy(attempts=3, first_delay_s=0.01))
        for _ in range(3):
            buffer = memory(5)
            reader.read_into("s3://bucket/key", 0, buffer)
            assert buffer.tobytes() == b"12345"
    assert len(server.requests) == 3


def test_a_silent_server_is_given_up_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering([WHOLE]) as server:
        point_to(server, monkeypatch)
        reader = RangeReader(timeout_s=0.3, retry=RetryPolicy(attempts=2, first_delay_s=0.01))
        reader.read_into("s3://bucket/key", 0, memory(5))
        with pytest.raises(StorageError, match=r"failed 2 times .* silent for 0\.3 s"):
            reader.read_into("s3://bucket/key", 0, memory(5))


@pytest.mark.parametrize("piece", [1, ranged._BODY_PIECE])
@pytest.mark.parametrize("sent", [100_000, 700_000])
def test_a_body_that_breaks_off_is_gone_on_with_where_it_broke(monkeypatch: pytest.MonkeyPatch, sent: int, piece: int) -> None:
    monkeypatch.setattr(ranged, "_BODY_PIECE", piece)
    size = 4 * sent
    data, starts = os.urandom(size), []

    def some(request: dict[str, str]) -> Answer:
        first, last = map(int, request["range"].removeprefix("bytes=").split("-"))
        starts.append(first)
        return Answer(206, f"bytes {first}-{last}/{size}", data[first : min(last + 1, first + sent)], last + 1 - first)

    with answering([some] * 6, closes=True) as server:
        point_to(server, monkeypatch)
        buffers = memory(50_001), memory(0), memory(size - 150_002)
        digests = RangeReader(retry=RetryPolicy(attempts=6, first_delay_s=0.01)).read_into("s3://bucket/key", 100_001, *buffers)
    assert b"".join(map(bytes, buffers)) == data[100_001:]
    assert digests == tuple(map(xxhash.xxh3_64_intdigest, buffers))
    # Of the first body less than a piece is lost, and once one has broken off nothing that has arrived is asked for again.
    assert 0 <= 100_001 + sent - starts[1] < piece
    assert piece <= 256 << 10
    assert starts[2:] == list(range(starts[1] + sent, size, sent))


def test_a_retry_asks_for_the_object_that_it_has_begun_with(monkeypatch: pytest.MonkeyPatch) -> None:
    half = WHOLE._replace(body=b"12", promised=5)
    with answering([half, Answer(412, None, b"<Error><Code>PreconditionFailed</Code></Error>")]) as server:
        point_to(server, monkeypatch)
        with pytest.raises(PayloadError, match="was replaced while it was read"):
            RangeReader(retry=RetryPolicy(attempts=3, first_delay_s=0.01)).read_into("s3://bucket/key", 0, memory(5))
    assert [request.get("if-match") for request in server.requests] == [None, '"1"']


def test_a_key_with_dots_is_not_served_with_the_whole_object(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering([Answer(200, None, b"0123456789")]) as server:
        point_to(server, monkeypatch)
        with pytest.raises(StorageError, match="a request for bytes 5 to 8 with others"):
            RangeReader().read_into("s3://bucket/a/../b", 5, memory(4))


@pytest.mark.parametrize("uri", ["hdfs://bucket/key", "http://bucket/key", "S3://bucket/key", "gcs://bucket/key"])
def test_what_is_in_no_store_is_not_read_from_s3(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    with answering([WHOLE]) as server:
        point_to(server, monkeypatch)
        with pytest.raises(ConfigError, match="is in no store that is read"):
            RangeReader().read_into(uri, 0, memory(5))
    assert server.requests == []


@pytest.mark.parametrize("told", ["bytes 1-5/99", "bytes 0-5/99", "bytes 0-4/*", None])
def test_another_range_than_the_one_that_was_asked_for_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch, told: str | None) -> None:
    answer = Answer(206, told, b"123456" if told == "bytes 0-5/99" else b"12345")
    with answering([answer] * 2, closes=True) as server:
        point_to(server, monkeypatch)
        with pytest.raises(EchotrainError):
            RangeReader(retry=RetryPolicy(attempts=2, first_delay_s=0.01)).read_into("s3://bucket/key", 0, memory(5))


def test_a_server_that_answers_a_range_with_the_whole_object_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering([Answer(200, None, b"0123456789")] * 5) as server:
        point_to(server, monkeypatch)
        with pytest.raises(StorageError, match=r"s3://bucket/key: .* the whole object \(200\)\. Use a store that serves ranged GETs"):
            RangeReader().read_into("s3://bucket/key", 0, memory(5))
    assert len(server.requests) == 1


AWKWARD_KEYS = [
    *("a//b", "/a", "//a", "a/", "a//", "x//y/z w", "a b+c%20#?&=ü~*'()!/d", "%2F//%41", "a\\b", "日本//k", "x" * 300),
    *("a/../b", "./a", "a/.", ".."),
]


@pytest.mark.parametrize("key", AWKWARD_KEYS)
def test_a_key_is_asked_for_as_it_is(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    with answering([WHOLE, WHOLE]) as server:
        point_to(server, monkeypatch)
        RangeReader().read_into(f"s3://bucket/{key}", 0, memory(5))
        s3_client().get_object(Bucket="bucket", Key=key)
    assert [unquote(request["target"]) for request in server.requests] == [f"/bucket/{key}"] * 2
    # What is signed is the path as it stands, so that it must be encoded as everybody does.
    assert server.requests[0]["target"] == server.requests[1]["target"]


def test_credentials_are_those_of_botocore_and_are_asked_for_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    count = tmp_path / "count"
    (tmp_path / "give").write_text(
        f'echo . >> {count}; echo \'{{"Version": 1, "AccessKeyId": "key-of-a-process", "SecretAccessKey": "s", "SessionToken": "t"}}\'\n'
    )
    (tmp_path / "config").write_text(f"[profile lab]\ncredential_process = sh {tmp_path / 'give'}\n")
    with answering([WHOLE]) as server:
        point_to(server, monkeypatch)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_PROFILE", "lab")
        RangeReader().read_into("s3://bucket/key", 0, memory(5))
    assert "Credential=key-of-a-process/" in server.requests[0]["authorization"]
    assert server.requests[0]["x-amz-security-token"] == "t"


def test_without_credentials_requests_go_unsigned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with answering([WHOLE]) as server:
        point_to(server, monkeypatch)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        RangeReader().read_into("s3://public/key", 0, memory(5))
    assert "authorization" not in server.requests[0]


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
    address = s3_address(place, "lab")
    found = urlsplit(address.endpoint if address.is_in_host else f"{address.endpoint}/{address.bucket}")
    port = found.port or (443 if found.scheme == "https" else 80)
    # us-east-1 also has a name of its own.
    assert (found.scheme, (found.hostname or "").replace("lab.s3.amazonaws", "lab.s3.us-east-1.amazonaws"), port) == server
    assert found.path == path
    client = s3_client()
    assert client.meta.region_name == place.region == settings.get("AWS_REGION", settings.get("AWS_DEFAULT_REGION", "us-east-1"))
    sent = []

    def answer(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        sent.append(urlsplit(request.url))
        return AWSResponse(request.url, 200, {}, io.BytesIO())

    client.meta.events.register("before-send.s3.GetObject", answer)
    client.get_object(Bucket="lab", Key="a/b")
    assert (sent[0].scheme, sent[0].hostname, sent[0].path) == (found.scheme, found.hostname, f"{path}/a/b")


def test_a_bucket_with_a_dot_is_part_of_the_path() -> None:
    place = S3Place(endpoint="https://s3.eu-west-1.amazonaws.com", region="eu-west-1", ca_file="", has_default_endpoint=True)
    assert s3_address(place, "a.lab") == ("https://s3.eu-west-1.amazonaws.com", "a.lab", False)


def test_what_obstore_would_take_from_the_environment_by_itself_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering([WHOLE]) as server:
        point_to(server, monkeypatch)
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
        RangeReader().read_into("s3://bucket/key", 0, memory(5))
    assert server.requests[0]["target"] == "/bucket/key"
    assert "Credential=key/" in server.requests[0]["authorization"]


@pytest.mark.parametrize("bucket", ["lab", "a.lab"])
def test_an_endpoint_in_the_environment_that_is_awss_own_changes_no_address(monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    own = "s3.eu-west-1.amazonaws.com"
    with forwarding() as proxy:
        settings = {"AWS_ENDPOINT_URL_S3": f"https://{own}", "AWS_REGION": "eu-west-1", "AWS_CONFIG_FILE": "/nonexistent"}
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        for name, value in {**settings, **keys, "HTTPS_PROXY": proxy.url, "https_proxy": proxy.url}.items():
            monkeypatch.setenv(name, value)
        for name in ("NO_PROXY", "no_proxy", "AWS_ENDPOINT_URL"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(StorageError):
            RangeReader(timeout_s=1, retry=RetryPolicy(attempts=1)).read_into(f"s3://{bucket}/key", 0, memory(5))
    assert proxy.connected == [f"{own}:443" if "." in bucket else f"{bucket}.{own}:443"]


def test_reads_go_through_the_proxy_that_boto3_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering([WHOLE] * 3) as server, forwarding() as proxy:
        point_to(server, monkeypatch)
        place = server.endpoint.removeprefix("http://")
        for name in ("no_proxy", "NO_PROXY", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        RangeReader().read_into("s3://bucket/key", 0, memory(5))
        s3_client().get_object(Bucket="bucket", Key="key")
        assert proxy.connected == [place, place]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        RangeReader().read_into("s3://bucket/key", 0, memory(5))
        assert proxy.connected == [place, place]


def test_a_read_over_tls_through_a_proxy_trusts_the_named_authority_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve_folder(tmp_path / "s3", tls=True) as server, forwarding() as proxy:
        for name, value in {**server.env, "HTTPS_PROXY": proxy.url}.items():
            monkeypatch.setenv(name, value)
        for name in ("no_proxy", "NO_PROXY", "https_proxy"):
            monkeypatch.delenv(name, raising=False)
        store = open_store(server.create_bucket("secure"))
        store.write("key", b"0123456789")
        proxy.connected.clear()
        buffer = memory(4)
        RangeReader().read_into("s3://secure/key", 3, buffer)
        assert buffer.tobytes() == b"3456"
        assert proxy.connected == [server.endpoint.removeprefix("https://")]
        monkeypatch.delenv("AWS_CA_BUNDLE")
        with pytest.raises(StorageError, match=r"certificate is not trusted.*AWS_CA_BUNDLE"):
            RangeReader().read_into("s3://secure/key", 3, buffer)


def test_a_bundle_of_certificates_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "rubbish.pem").write_text("no certificate")
    for path, words in {tmp_path / "none.pem": "cannot be read", tmp_path / "rubbish.pem": "cannot be opened"}.items():
        monkeypatch.setenv("AWS_CA_BUNDLE", str(path))
        with pytest.raises(ConfigError, match=words):
            RangeReader().read_into("s3://bucket/key", 0, memory(5))


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
