import contextlib
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from echotrain.data.formats.matlab5 import MatFile
from echotrain.errors import EchotrainError, ScanError


def element(kind: int, payload: bytes, order: str = "<", size: int | None = None) -> bytes:
    return struct.pack(f"{order}II", kind, len(payload) if size is None else size) + payload + bytes(-len(payload) % 8)


def matrix(shape, payload, *, kind=7, name=b"img4ranking", stored=7, order="<", size=None) -> bytes:
    """Return one variable, every part as it may be in a file that MATLAB, or somebody else, wrote."""
    body = element(6, struct.pack(f"{order}II", kind, 0), order) + element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    body += element(1, name, order) + element(stored, payload, order, size)
    return struct.pack(f"{order}II", 14, len(body)) + body


def write(path, *elements: bytes, order: str = "<"):
    mark = b"IM" if order == "<" else b"MI"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x0100) + mark + b"".join(elements))
    return path


def read_all(path):
    file = MatFile(path)
    return [file.read(variable) for variable in file.variables]


def deflated(data: bytes) -> bytes:
    packed = zlib.compress(data)
    return struct.pack("<II", 15, len(packed)) + packed


@pytest.mark.parametrize("is_compressed", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 3, 2), (5, 4, 1, 3), (2, 3, 2, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_what_scipy_writes_is_read_back_exactly(tmp_path, is_compressed, shape, dtype):
    images = (np.random.default_rng(0).standard_normal(shape) * 100).astype(dtype)
    savemat(tmp_path / "x.mat", {"x": images, "second": np.arange(3.0)}, do_compression=is_compressed)
    file = MatFile(tmp_path / "x.mat")
    first, second = file.variables
    assert (first.name, second.name, second.kind, first.is_complex) == ("x", "second", "double", False)
    assert first.kind == {np.float32: "single", np.float64: "double", np.int16: "int16"}[dtype]
    np.testing.assert_array_equal(file.read(first), images)


def test_matlab_stores_whole_numbers_in_fewer_bytes_and_they_are_still_singles(tmp_path):
    file = MatFile(write(tmp_path / "x.mat", matrix((2, 3), bytes([1, 2, 3, 4, 5, 6]), stored=2)))
    assert file.variables[0].kind == "single"
    assert file.read(file.variables[0]).tolist() == [[1, 3, 5], [2, 4, 6]]


def test_a_file_of_a_big_endian_machine_is_read(tmp_path):
    payload = np.arange(6, dtype=">f4").tobytes()
    file = MatFile(write(tmp_path / "x.mat", matrix((2, 3), payload, order=">"), order=">"))
    assert file.read(file.variables[0]).tolist() == [[0, 2, 4], [1, 3, 5]]


def test_a_variable_that_inflates_beyond_its_shape_takes_no_memory(tmp_path):
    bomb = deflated(matrix((2, 3), bytes(200 << 20)))
    assert len(bomb) < 1 << 20
    write(tmp_path / "x.mat", bomb)
    tracemalloc.start()
    try:
        file = MatFile(tmp_path / "x.mat")
        with pytest.raises(ScanError):
            file.read(file.variables[0])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize(
    "elements",
    [
        [matrix((2, 3), bytes(20))],
        [matrix((2, 3), bytes(24), size=1 << 31)],
        [matrix((2, 3), bytes(24), stored=14)],
        [matrix((1 << 30, 1 << 30), bytes(24))],
        [matrix((-2, -3), bytes(24))],
        [deflated(matrix((2, 3), bytes(24)))[:-9]],
        [struct.pack("<II", 15, 8) + b"rubbish!"],
        [deflated(element(1, b"text"))],
        [struct.pack("<II", 14, 1 << 30)],
        [struct.pack("<II", 99, 0)],
        [matrix((2, 3), bytes(24))] * 1001,
    ],
)
def test_a_file_that_contradicts_itself_is_a_typed_error(tmp_path, elements):
    path = write(tmp_path / "x.mat", *elements)
    with pytest.raises(ScanError):
        read_all(path)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_flipped_bytes_raise_anything_but_a_typed_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("mat") / "x.mat"
    savemat(path, {"img4ranking": np.ones((3, 4), np.float32)}, do_compression=data.draw(st.booleans()))
    content = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(EchotrainError):
        read_all(path)
