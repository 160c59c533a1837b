"""Tables of strangers take no more memory than the limit, whatever they inflate to and whatever they claim."""

import errno
import functools
import io
import re
import subprocess
import sys
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echotrain.data.catalog import bounded_parquet
from echotrain.data.catalog.bounded_parquet import read_parquet
from echotrain.data.catalog.store import load_catalog
from echotrain.errors import CatalogError, ResourceError, StorageError
from tests.unit.data.catalog.test_catalog import commit, row

SMALL = pa.schema([("name", pa.string()), ("number", pa.int32()), ("sum", pa.uint64()), ("flag", pa.bool_())])
LIMIT = 64 << 20


def table(rows=500):
    names = [None if i % 7 == 0 else f"volume {i % 13}" for i in range(rows)]
    return pa.table(
        {
            "name": names,
            "number": list(range(rows)),
            "sum": [2**64 - 1 - i for i in range(rows)],
            "flag": [i % 3 == 0 for i in range(rows)],
        },
        schema=SMALL,
    )


def written(data, **options):
    sink = io.BytesIO()
    pq.write_table(data, sink, **options)
    return sink.getvalue()


def read(data, schema=SMALL, *, limit=LIMIT, may_lack=True):
    return read_parquet(data, schema, "t.parquet", limit=limit, may_lack=may_lack)


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "none"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize(
    "options", [{}, {"row_group_size": 64}, {"use_dictionary": False}, {"data_page_size": 64, "write_page_index": True}]
)
def test_a_table_comes_back_as_it_was_written(compression, version, options):
    data = written(table(), compression=compression, data_page_version=version, **options)
    assert read(data).equals(table())
    assert read(data).schema == SMALL


@pytest.mark.parametrize("rows", [0, 1])
def test_small_tables_are_tables(rows):
    assert read(written(table(rows))).equals(table(rows))


def test_columns_of_other_widths_and_encodings_of_texts_are_taken_as_the_schema_has_them():
    data = pa.table(
        {
            "name": pa.array(["a", "b", "a"]).dictionary_encode(),
            "number": pa.array([1, 2, 3], pa.int64()),
            "sum": pa.array([1, 2, 3], pa.int8()),
            "flag": pa.array([True, None, False]),
            "more": pa.array([[1], [2], []]),
        }
    )
    assert read(written(data)).to_pydict() == {"name": ["a", "b", "a"], "number": [1, 2, 3], "sum": [1, 2, 3], "flag": [True, None, False]}


def test_columns_that_are_not_there_are_null_or_refused():
    data = written(table(5).drop(["sum"]))
    assert read(data)["sum"].to_pylist() == [None] * 5
    with pytest.raises(CatalogError, match=r"lacks columns \['sum'\]"):
        read(data, may_lack=False)


@pytest.mark.parametrize("column", [pa.array([["a"]]), pa.array([{"a": 1}]), pa.array(["x"]), pa.array([2**40])])
def test_columns_of_another_kind_are_refused(column):
    with pytest.raises(CatalogError, match="cannot be read as a Parquet table"):
        read(written(pa.table({"number": column})))


def bombs():
    """Return files of at most a few megabytes that would take gigabytes, each by other means."""
    equal = pa.table({"number": pa.array(np.zeros(40_000_000, np.int32))})
    long = pa.table({"name": pa.DictionaryArray.from_arrays(pa.array(np.zeros(3000, np.int32)), pa.array(["x" * 1_000_000]))})
    zeros = pa.table({"name": pa.array([bytes(200_000_000).decode()])})
    return {
        "runs": written(equal, row_group_size=40_000_000, compression="zstd"),
        "texts": written(long, compression="zstd"),
        "pages": written(zeros, use_dictionary=False, compression="zstd"),
        "nulls": written(pa.table({"number": pa.nulls(50_000_000, pa.int32())})),
    }


_MEASURE = """
import sys
from pathlib import Path
import pyarrow as pa
from echotrain.data.catalog.bounded_parquet import read_parquet
from echotrain.errors import CatalogError
schema = pa.schema([("name", pa.string()), ("number", pa.int32())])
def memory(word):
    # Not getrusage: its peak is inherited from the process that started this one.
    return int(Path("/proc/self/status").read_text().partition(word)[2].split()[0])
for name in sys.argv[1:]:
    data = Path(name).read_bytes()
    for mapped_limit in (None, 128 << 20):
        Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
        before = memory("VmRSS:")
        try:
            read_parquet(data, schema, "t", limit=64 << 20, mapped_limit=mapped_limit, may_lack=True)
        except CatalogError as error:
            print(Path(name).name, memory("VmHWM:") - before, error)
"""


@pytest.mark.slow
def test_a_bomb_is_refused_in_little_memory_whether_its_table_may_be_mapped_or_not(tmp_path):
    made = bombs()
    for name, data in made.items():
        assert len(data) < 20e6, name
        (tmp_path / name).write_bytes(data)
    names = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run([sys.executable, "-c", _MEASURE, *names], capture_output=True, text=True, check=True)
    refused = [line.split(maxsplit=2) for line in done.stdout.strip().splitlines()]
    assert [name for name, _, _ in refused] == [name for name in sorted(made) for _ in range(2)]
    for name, grown, said in refused:
        assert re.search(r"of memory, at most (67\.1|134\.2) MB are", said), name
        assert int(grown) * 1024 < 150e6, name


def mapped(data, *, limit=20_000, mapped_limit=LIMIT):
    return read_parquet(data, SMALL, "t.parquet", limit=limit, mapped_limit=mapped_limit, may_lack=True)


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_large_table_is_looked_into_where_it_lies_and_leaves_no_file(scratch):
    data = written(table(5000), row_group_size=128)
    found = mapped(data)
    assert found.equals(table(5000))
    assert found.schema == SMALL
    assert found.nbytes > 5 * 20_000
    assert list(scratch.iterdir()) == []
    with pytest.raises(CatalogError, match=r"at most 20\.0 kB are"):
        read(data, limit=20_000)


def test_a_mapped_table_takes_no_memory_of_its_own(scratch):
    data = written(table(5000), row_group_size=128)
    before = pa.total_allocated_bytes()
    found = mapped(data)
    assert pa.total_allocated_bytes() - before < 20_000
    del found


def test_a_small_table_is_not_mapped(scratch, monkeypatch):
    monkeypatch.setattr(bounded_parquet, "_mapped", None)
    assert mapped(written(table(50))).equals(table(50))


@pytest.mark.parametrize(("limits", "most"), [({"limit": 2000}, "2.0 kB"), ({"mapped_limit": 50_000}, "50.0 kB")])
def test_a_mapped_table_is_refused_for_one_group_or_for_all_and_leaves_no_file(scratch, limits, most):
    with pytest.raises(CatalogError, match=rf"at most {most} are"):
        mapped(written(table(5000), row_group_size=128), **limits)
    assert list(scratch.iterdir()) == []


def test_a_mapped_table_is_refused_for_texts_that_repeat_too_often(scratch):
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(5000, np.int32)), pa.array(["x" * 1000]))
    data = written(table(5000).set_column(0, "name", names), row_group_size=128)
    assert mapped(data, limit=200_000)["name"].to_pylist() == ["x" * 1000] * 5000
    with pytest.raises(CatalogError, match=r"at most 1\.0 MB are"):
        mapped(data, limit=200_000, mapped_limit=1_000_000)
    with pytest.raises(CatalogError, match=r"at most 100\.0 kB are"):
        mapped(data, limit=100_000)
    assert list(scratch.iterdir()) == []


def test_no_room_for_a_mapped_table_is_said(scratch, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pa.ipc, "new_file", full)
    with pytest.raises(ResourceError, match=r"has no room for a catalog's rows .*TMPDIR"):
        mapped(written(table(5000), row_group_size=128))
    assert list(scratch.iterdir()) == []


def test_a_page_that_is_larger_than_its_header_says_is_an_error_and_not_read(monkeypatch):
    data = bytearray(written(table(2000).select(["number"]), use_dictionary=False, compression="zstd"))
    footer = pq.read_metadata(pa.BufferReader(bytes(data)))
    at = footer.row_group(0).column(0).data_page_offset
    fields, _ = bounded_parquet._struct(bytes(data), at, len(data))
    assert fields[2] >= 8000
    # The header's second field is a varint of two bytes: half the size takes as many.
    smaller = fields[2] // 2 * 2  # Zigzag doubles.
    place = bytes(data).index(
        bytes([(2 * fields[2]) & 127 | 128, (2 * fields[2]) >> 7 & 127 | (128 if 2 * fields[2] >= 1 << 14 else 0)]), at
    )
    data[place : place + 2] = bytes([smaller & 127 | 128, data[place + 1] & 128 | smaller >> 7 & 127])
    assert bounded_parquet._struct(bytes(data), at, len(data))[0][2] < fields[2]
    with pytest.raises(CatalogError, match="cannot be read"):
        read(bytes(data))


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 100_000), byte=st.integers(0, 255))
def test_a_changed_byte_gives_a_table_or_a_typed_error(place, byte):
    data = bytearray(_plain())
    data[place % len(data)] = byte
    try:
        found = read(bytes(data))
    except CatalogError:
        return
    assert found.schema == SMALL


@functools.cache
def _plain():
    return written(table(60), row_group_size=32)


def test_a_catalog_that_would_inflate_is_refused_at_load(tmp_path, monkeypatch):
    catalog = commit(tmp_path, *(row(index=index) for index in range(3)))
    assert len(load_catalog(str(tmp_path))) == 3
    monkeypatch.setattr("echotrain.data.catalog.store._LARGEST_IN_MEMORY", 500)
    with pytest.raises(CatalogError, match=rf"{catalog.manifest['table']}: would take .* of memory, at most 500 B are"):
        load_catalog(str(tmp_path))
    monkeypatch.undo()
    monkeypatch.setattr("echotrain.data.catalog.store._LARGEST_FILE", 100)
    with pytest.raises(StorageError, match="and at most 100 are read"):
        load_catalog(str(tmp_path))
    monkeypatch.undo()
    manifest = tmp_path / "catalog" / "v000001.json"
    manifest.write_text("[" * 200_000)
    with pytest.raises(CatalogError, match="nested too deeply"):
        load_catalog(str(tmp_path))
