"""BART's files: what is written is what is read, and a file that lies is refused before it costs memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.baselines.cfl import MAX_DIMENSIONS, read_cfl, write_cfl
from echotrain.errors import ConfigError, ScanError

shapes = st.lists(st.sampled_from([1, 1, 1, 2, 3]), min_size=1, max_size=MAX_DIMENSIONS).filter(lambda shape: np.prod(shape) <= 5_000)


@given(shape=shapes, seed=st.integers(0, 2**32 - 1), is_transposed=st.booleans())
def test_an_array_comes_back_to_the_bit_without_its_trailing_ones(tmp_path_factory, shape, seed, is_transposed):
    bits = np.random.default_rng(seed).integers(0, 2**64, size=shape, dtype=np.uint64)  # NaNs and infinities too
    array = bits.view(np.complex64).T if is_transposed else bits.view(np.complex64)
    name = tmp_path_factory.mktemp("cfl") / "array"
    write_cfl(name, array)
    read = read_cfl(name)
    assert read.dtype == np.complex64
    assert read.ndim == 1 or read.shape[-1] > 1
    assert read.reshape(array.shape).tobytes() == array.tobytes()


def test_the_first_dimension_runs_fastest_and_numbers_are_little_endian(tmp_path):
    write_cfl(tmp_path / "a", np.array([[1, 2], [3, 4j]], np.complex64))
    assert (tmp_path / "a.hdr").read_text() == "# Dimensions\n2 2\n"
    assert np.frombuffer((tmp_path / "a.cfl").read_bytes(), "<f4").tolist() == [1, 0, 3, 0, 2, 0, 0, 4]


def test_a_header_as_bart_writes_it_is_read(tmp_path):
    header = "# Dimensions\n1 2 3 1 1 1 1 1 1 1 1 1 1 1 1 1 \n# Command\nphantom -x2 out \n# Files\n >out\n# Creator\nBART v0.8.00\n"
    (tmp_path / "out.hdr").write_text(header)
    (tmp_path / "out.cfl").write_bytes(np.arange(6, dtype="<c8").tobytes())
    assert read_cfl(tmp_path / "out").tolist() == [[[0, 2, 4], [1, 3, 5]]]


def test_a_dot_in_the_name_is_no_ending(tmp_path):
    write_cfl(tmp_path / "slice.3", np.ones(2, np.complex64))
    write_cfl(tmp_path / "slice.4", np.zeros(2, np.complex64))
    assert read_cfl(tmp_path / "slice.3").tolist() == [1, 1]


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"# Dimensions\n",
        b"# Dimensions\n\n",
        b"2 3\n",
        b"# Dimensions\n2 three\n",
        b"# Dimensions\n2 3.0\n",
        b"# Dimensions\n2 -3\n",
        b"# Dimensions\n0 3\n",
        b"# Dimensions\n6 " + b"1 " * MAX_DIMENSIONS + b"\n",
        b"\xff\xfe\x00" * 2000,
        b" " * 5000 + b"\n# Dimensions\n6\n",
    ],
)
def test_a_malformed_header_is_refused(tmp_path, header):
    (tmp_path / "a.hdr").write_bytes(header)
    (tmp_path / "a.cfl").write_bytes(bytes(48))
    with pytest.raises(ScanError, match=r"a\.hdr: sizes .* 1 to 16 positive sizes are needed"):
        read_cfl(tmp_path / "a")


@pytest.mark.parametrize("sizes", ["5", "7", "1048576 1048576 1048576", "9223372036854775807 9223372036854775807"])
def test_a_header_that_its_file_contradicts_is_refused_before_memory_is_taken(tmp_path, sizes):
    (tmp_path / "a.hdr").write_text(f"# Dimensions\n{sizes}\n")
    (tmp_path / "a.cfl").write_bytes(bytes(48))
    with pytest.raises(ScanError, match=r"a\.cfl: 48 bytes: its header declares \d+"):
        read_cfl(tmp_path / "a")


@pytest.mark.parametrize("missing", ["a.hdr", "a.cfl"])
def test_half_a_pair_of_files_is_refused(tmp_path, missing):
    write_cfl(tmp_path / "a", np.ones(2, np.complex64))
    (tmp_path / missing).unlink()
    with pytest.raises(ScanError, match="cannot be read"):
        read_cfl(tmp_path / "a")


@pytest.mark.parametrize(
    "array", [np.ones(2), np.ones(2, np.complex128), np.ones((0, 2), np.complex64), np.ones([1] * 17, np.complex64), np.complex64(1)]
)
def test_an_array_that_bart_does_not_have_is_refused_and_nothing_written(tmp_path, array):
    with pytest.raises(ConfigError, match="BART's arrays are complex64"):
        write_cfl(tmp_path / "a", array)
    assert not list(tmp_path.iterdir())
