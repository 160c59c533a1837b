"""Parquet tables of a stranger's, read into no more memory than a limit: twelve megabytes of a file can inflate to gigabytes.

Three things inflate. Pages are compressed: their headers say how large they become, and a reader takes that much at once. Runs are counted:
a billion equal numbers are a few bytes, and the footer says how many rows are read. Texts are kept once in a dictionary, and repeated in
every row. The first two are added up from the headers before anything is read, and decoders hold both to be upper bounds: a page that is
larger than its header says is an error, rows beyond the footer's number are not read. The third is measured: texts are read as
dictionaries, row group by row group, and written out only where the sum of their lengths is within the limit.

What the footer says of a column's uncompressed size counts for nothing, since no decoder holds it to that.
"""

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from echotrain.errors import CatalogError, ResourceError
from echotrain.units import human_bytes

__all__ = ["read_parquet"]

_INDEX_NBYTES = 4
# A table that would take more than this part of the memory that it may take, its texts aside, is mapped where it may be.
_EXPANSION = 4
# A column chunk of some old writers ends so much later than it says; readers look there as well.
_SLACK = 100
_DEEPEST = 8
_DAMAGED = (pa.ArrowException, ValueError, KeyError, IndexError, TypeError, OSError, OverflowError, NotImplementedError)


def read_parquet(data: bytes, schema: pa.Schema, where: str, *, limit: int, mapped_limit: int | None = None, may_lack: bool) -> pa.Table:
    """Return the columns of a schema.

    Args:
        data: The file.
        schema: Flat columns; others of the file are not read.
        where: Names the file in messages.
        limit: Bytes that the table may take in memory.
        mapped_limit: Where it is given, a table that may not lie in memory may lie in a temporary file of so many bytes, which is looked
            into and not loaded; then ``limit`` is of each row group.
        may_lack: Columns that the file lacks are null; else it is refused.

    Raises:
        CatalogError: The file is damaged, lacks columns, has others of their names, or inflates to more than the limits.
        ResourceError: There is no room for the temporary file.
    """
    try:
        return _read(data, schema, where, limit, mapped_limit, may_lack)
    except _DAMAGED as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CatalogError(where, f"cannot be read as a Parquet table ({said})", "Use another version, or make it again.") from error


def _read(data: bytes, schema: pa.Schema, where: str, limit: int, mapped_limit: int | None, may_lack: bool) -> pa.Table:
    footer = pq.read_metadata(pa.BufferReader(data))
    found = {field.name: field.type for field in footer.schema.to_arrow_schema()}
    names = [name for name in schema.names if name in found]
    if len(names) < len(schema) and not may_lack:
        raise ValueError(f"it lacks columns {sorted(set(schema.names) - set(names))}")
    strange = [name for name in names if pa.types.is_nested(found[name])]
    if strange:
        raise ValueError(f"column {strange[0]} is of type {found[strange[0]]}")
    num_rows = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    if min(num_rows, default=0) < 0:
        raise ValueError(f"a row group of {min(num_rows)} rows")
    width = sum(_row_nbytes(found.get(field.name), field.type) for field in schema)
    pages = list(_group_nbytes(data, set(names)))
    is_mapped = mapped_limit is not None and max(width * sum(num_rows), sum(pages)) > limit // _EXPANSION
    for nbytes in (width * sum(num_rows), sum(pages)):
        _check(where, nbytes, mapped_limit if is_mapped and mapped_limit is not None else limit)
    for nbytes in (width * max(num_rows, default=0), max(pages, default=0)):
        _check(where, nbytes, limit)
    groups = _groups(data, schema, found, num_rows)
    if not is_mapped or mapped_limit is None:
        kept = list(_bounded(groups, schema, where, limit, limit))
        return pa.concat_tables(kept) if kept else schema.empty_table()
    return _mapped(_bounded(groups, schema, where, limit, mapped_limit), schema)


def _groups(data: bytes, schema: pa.Schema, found: Mapping[str, pa.DataType], num_rows: Sequence[int]) -> Iterator[tuple[int, pa.Table]]:
    """Yield what each row group takes, and the group with its texts as dictionaries still."""
    texts = [name for name in schema.names if name in found and _width(found[name]) is None]
    width = sum(_row_nbytes(found.get(field.name), field.type) for field in schema)
    # Without threads, one column is unpacked at a time.
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts, pre_buffer=False)
    for number in (number for number, count in enumerate(num_rows) if count):
        group = file.read_row_group(number, columns=[name for name in schema.names if name in found], use_threads=False)
        yield width * group.num_rows + sum(_text_nbytes(group[name]) for name in texts), group


def _bounded(groups: Iterator[tuple[int, pa.Table]], schema: pa.Schema, where: str, group_limit: int, limit: int) -> Iterator[pa.Table]:
    """Yield the row groups as the schema has them, unless one of them or their sum is too large."""
    total = 0
    for nbytes, group in groups:
        total += nbytes
        _check(where, nbytes, group_limit)
        _check(where, total, limit)
        there = set(group.column_names)
        columns = [group[field.name].cast(field.type) if field.name in there else pa.nulls(len(group), field.type) for field in schema]
        yield pa.table(columns, schema=schema)


def _mapped(groups: Iterator[pa.Table], schema: pa.Schema) -> pa.Table:
    """Write a table to a file that has no name any more when this returns, and return it as the file has it."""
    handle, name = tempfile.mkstemp(prefix="echotrain-catalog-")
    os.close(handle)
    try:
        with pa.OSFile(name, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for group in groups:
                writer.write_table(group)
        return pa.ipc.open_file(pa.memory_map(name)).read_all()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        folder = tempfile.gettempdir()
        remedy = "Free some, or let TMPDIR name a folder on another disk."
        raise ResourceError(folder, f"has no room for a catalog's rows ({error.strerror})", remedy) from error
    finally:
        Path(name).unlink()


def _check(where: str, nbytes: int, limit: int) -> None:
    if nbytes > limit:
        raise CatalogError(
            where, f"would take {human_bytes(nbytes)} of memory, at most {human_bytes(limit)} are", "It is damaged, or no table of ours."
        )


def _width(kind: pa.DataType) -> int | None:
    """Return the bytes of a value once it is written out, None for texts."""
    if pa.types.is_dictionary(kind):
        return _width(kind.value_type)
    try:
        return -(-int(kind.bit_width) // 8)
    except ValueError:
        return None


def _row_nbytes(found: pa.DataType | None, wanted: pa.DataType) -> int:
    """Return what a value takes, a text's characters aside; a column that is not there takes its nulls."""
    return max(_width(kind) or _INDEX_NBYTES for kind in (found or wanted, wanted))


def _text_nbytes(column: pa.ChunkedArray) -> int:
    """Return the characters of a column once every row has its own."""
    total = 0
    for chunk in column.chunks:
        lengths = pc.binary_length(chunk.dictionary.cast(pa.large_binary())) if pa.types.is_dictionary(chunk.type) else None
        total += (pc.sum(lengths.take(chunk.indices)).as_py() or 0) if lengths is not None else chunk.nbytes
    return total


def _group_nbytes(data: bytes, names: set[str]) -> Iterator[int]:
    """Yield what the pages of these columns are unpacked to, by row group, as their own headers say."""
    for chunks in _row_groups(data):
        yield sum(sum(_page_nbytes(data, chunk)) for chunk in chunks if _text(chunk.get(3)) in names)


def _page_nbytes(data: bytes, chunk: dict[int, Any]) -> Iterator[int]:
    """Yield what each page of a column of a row group is unpacked to."""
    name, packed_size, at = _text(chunk.get(3)), _number(chunk.get(7)), _number(chunk.get(9))
    if 0 < _number(chunk.get(11, 0)) < at:
        at = _number(chunk.get(11))
    end = at + packed_size
    if at < 0 or end > len(data) or packed_size < 0:
        raise ValueError(f"column {name} lies beyond the file")
    while at < end:
        fields, at = _struct(data, at, min(end + _SLACK, len(data)))
        unpacked, packed = _number(fields.get(2, -1)), _number(fields.get(3, -1))
        if unpacked < 0 or packed < 0:
            raise ValueError(f"a page of column {name} has no size")
        at += packed
        yield unpacked


def _row_groups(data: bytes) -> Iterator[list[dict[int, Any]]]:
    """Yield the ``ColumnMetaData`` of the columns of every row group with rows, by the fields of Parquet's Thrift definition.

    Read here and not by pyarrow: its ``RowGroupMetaData.column`` ends the process over statistics that contradict the schema.
    """
    size = int.from_bytes(data[-8:-4], "little")
    begin = len(data) - 8 - size
    if begin < 4:
        raise ValueError("its footer is longer than the file")
    footer, _ = _struct(data, begin, len(data) - 8)
    for group in _structs(footer.get(4)):
        if _number(group.get(3)):  # A row group without rows has no pages to speak of.
            yield [_structs([column.get(3)])[0] for column in _structs(group.get(1))]


def _structs(values: Any) -> list[dict[int, Any]]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError("its footer has other values than a table's")
    return values


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise ValueError("a number is missing")
    return value


def _text(value: Any) -> str:
    """Return the name of a column of a flat schema, its path being of one part; "" for a nested one."""
    return value[0].decode("utf-8", "replace") if isinstance(value, list) and len(value) == 1 and isinstance(value[0], bytes) else ""


_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _MAP, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 11, 12


def _struct(data: bytes, at: int, end: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """Return the values of a Thrift struct in the compact protocol by their fields, and where it ends."""
    fields: dict[int, Any] = {}
    field = 0
    while True:
        head, at = _byte(data, at, end)
        if not head:
            return fields, at
        kind = head & 15
        if head >> 4:
            field += head >> 4
        else:
            value, at = _varint(data, at, end)
            field = _zigzag(value)
        if kind in _BOOLEANS:
            fields[field] = kind == _BOOLEANS[0]
        else:
            fields[field], at = _value(data, at, end, kind, depth)


def _value(data: bytes, at: int, end: int, kind: int, depth: int) -> tuple[Any, int]:
    """Return a value that is no field's boolean, and where it ends; None of kinds that nobody asks for."""
    if depth > _DEEPEST:
        raise ValueError("its headers are nested too deeply")
    if kind in _INTEGERS:
        value, at = _varint(data, at, end)
        return _zigzag(value), at
    if kind in (_BYTE, *_BOOLEANS):
        return None, at + 1
    if kind == _DOUBLE:
        return None, at + 8
    if kind == _BINARY:
        size, at = _varint(data, at, end)
        if at + size > end:
            raise ValueError("a text of its headers has no end")
        return data[at : at + size], at + size
    if kind == _STRUCT:
        return _struct(data, at, end, depth + 1)
    if kind in _LISTS:
        return _list(data, at, end, depth)
    if kind == _MAP:
        raise ValueError("its headers hold a map, which those of Parquet never do")
    raise ValueError(f"its headers have a field of type {kind}")


def _list(data: bytes, at: int, end: int, depth: int) -> tuple[list[Any], int]:
    head, at = _byte(data, at, end)
    size = head >> 4
    if size == 15:
        size, at = _varint(data, at, end)
    if size > end - at:  # Every element takes a byte at least.
        raise ValueError("a list of its headers has no end")
    values = []
    for _ in range(size):
        value, at = _value(data, at, end, head & 15, depth + 1)
        values.append(value)
    return values, at


def _byte(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at >= end:
        raise ValueError("its headers have no end")
    return data[at], at + 1


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte, at = _byte(data, at, end)
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number of its headers has no end")


def _zigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)
