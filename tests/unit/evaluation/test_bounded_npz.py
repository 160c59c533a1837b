"""Archives of arrays that a stranger has packed: measured before they are unpacked."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from echotrain.errors import PayloadError, StorageError
from echotrain.evaluation.bounded_npz import read_npz
from echotrain.evaluation.stored import EXAMPLES, read_evaluation, write_evaluation
from echotrain.storage.open import open_store


def packed(**arrays):
    sink = io.BytesIO()
    np.savez_compressed(sink, **arrays)
    return sink.getvalue()


def with_header(shape, content=bytes(16)):
    """Return an archive of one array whose header claims a shape."""
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<f4", "fortran_order": False, "shape": shape})
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a.npy", array.getvalue() + content)
    return sink.getvalue()


def test_arrays_come_back_as_they_were():
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array("text"), "c": np.empty((0, 4)), "d": np.asfortranarray(np.eye(3, 2))}
    found = read_npz(packed(**arrays), 10_000)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (packed(a=np.zeros(50_000_000, np.float32)), "would take 2000001"),
        (with_header((2**40,)), "is no array of"),
        (with_header((64,)), "is no array of|cannot|EOF|read"),
        (packed(a=np.array([print], dtype=object)), "allow_pickle"),
    ],
)
def test_what_inflates_or_claims_too_much_is_refused_in_little_memory(data, words):
    tracemalloc.start()
    with pytest.raises(ValueError, match=words):
        read_npz(data, 1 << 20)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_an_evaluation_with_packed_pictures_is_refused_with_its_place(evaluation, tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    write_evaluation(store, evaluation)
    assert read_evaluation(store).info == evaluation.info
    (tmp_path / EXAMPLES).write_bytes(packed(labels=np.zeros(5_000_000)))
    monkeypatch.setattr("echotrain.evaluation.stored._LARGEST_EXAMPLES", 1 << 20)
    with pytest.raises(PayloadError, match="would take 40000"):
        read_evaluation(store)
    (tmp_path / EXAMPLES).write_bytes(bytes(2 << 20))
    with pytest.raises(StorageError, match=r"examples\.npz: has 2097152 bytes, and at most 1048576 are read"):
        read_evaluation(store)
    (tmp_path / "summary.json").write_text("[" * 100_000)
    with pytest.raises(PayloadError, match="nested too deeply"):
        read_evaluation(store)
