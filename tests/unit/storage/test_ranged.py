"""Range reads: the right bytes, in the right buffers, with the right checksums, from folders and servers."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

from echotrain.errors import ObjectMissingError, PayloadError
from echotrain.storage.embedded import serve_folder
from echotrain.storage.ranged import RangeReader
from echotrain.storage.throttled import serve_throttled

SIZE = 5_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects")
    (folder / "bucket").mkdir()
    (folder / "bucket" / "an object+.bin").write_bytes(os.urandom(SIZE))
    return folder


@pytest.fixture(scope="module", params=["file", "throttled", "embedded"])
def uri(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    if request.param == "file":
        yield str(folder / "bucket" / "an object+.bin")
        return
    serve = serve_throttled if request.param == "throttled" else serve_folder
    with serve(folder) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        yield "s3://bucket/an object+.bin"


def memory(nbytes: int) -> memoryview:
    return memoryview(bytearray(nbytes))


def test_a_range_is_scattered_over_buffers_with_a_checksum_of_each(uri: str, folder: Path) -> None:
    data = (folder / "bucket" / "an object+.bin").read_bytes()
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
    assert buffer.tobytes() == (folder / "bucket" / "an object+.bin").read_bytes()[-100:]
    for offset in (SIZE - 99, SIZE, SIZE + 10):
        with pytest.raises(PayloadError, match=f"at byte {offset}: ends before"):
            reader.read_into(uri, offset, buffer)
    reader.read_into(uri, 0, buffer)


def test_a_missing_object_is_named(uri: str) -> None:
    with pytest.raises(ObjectMissingError, match="none"):
        RangeReader().read_into(f"{uri}none", 0, memory(3))


def test_many_threads_share_a_reader(uri: str, folder: Path) -> None:
    data = (folder / "bucket" / "an object+.bin").read_bytes()
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


def test_an_idle_connection_that_the_server_closed_is_opened_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, buffer = RangeReader(), memory(5)
    ports = []
    for _ in range(2):
        with serve_throttled(folder) as server:
            for name, value in server.env.items():
                monkeypatch.setenv(name, value)
            ports.append(server.port)
            for _ in range(3):
                reader.read_into("s3://bucket/an object+.bin", 0, buffer)
            assert server.stats() == (3, 15)
    assert len(ports) == 2
