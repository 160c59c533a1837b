"""Parquet tables of a stranger's, read into no more memory than a limit: twelve megabytes of a file can inflate to gigabytes.

Three things inflate. Pages are compressed: their headers say how large they become, and a reader takes that much at once. Runs are counted:
a billion equal numbers are a few bytes, and the footer says how many rows are read. Texts are kept once in a dictionary, and repeated in
every row. The first two are added up from the headers before anything is read, and decoders hold both to be upper bounds: a page that is
larger than its header says is an error, rows beyond the footer's number are not read. The third is measured: texts are read as
dictionaries, row group by row group, and written out only where the sum of their lengths is within the limit.

What the footer says of a column's uncompressed size counts for nothing, since no decoder holds it to that.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from echotrain.data.formats.limits import human_bytes
from echotrain.errors import CatalogError

__all__ = ["read_parquet"]

_INDEX_NBYTES = 4
# A column chunk of some old writers ends so much later than it says; readers look there as well.
_SLACK = 100
_DEEPEST = 8
_DAMAGED = (pa.ArrowException, ValueError, KeyError, IndexError, TypeError, OSError, OverflowError, NotImplementedError)


def read_parquet(data: bytes, schema: pa.Schema, where: str, *, limit: int, may_lack: bool) -> pa.Table:
    """Return the columns of a schema.

    Args:
        data: The file.
        schema: Flat columns; others of the file are not read.
        where: Names the file in messages.
        limit: Bytes that the table may take.
        may_lack: Columns that the file lacks are null; else it is refused.

    Raises:
        CatalogError: The file is damaged, lacks columns, has others of their names, or inflates to more than the limit.
    """
    try:
        return _read(data, schema, where, limit, may_lack)
    except _DAMAGED as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CatalogError(where, f"cannot be read as a Parquet table ({said})", "Use another version, or make it again.") from error


def _read(data: bytes, schema: pa.Schema, where: str, limit: int, may_lack: bool) -> pa.Table:
    footer = pq.read_metadata(pa.BufferReader(data))
    found = {field.name: field.type for field in footer.schema.to_arrow_schema()}
    names = [name for name in schema.names if name in found]
    if len(names) < len(schema) and not may_lack:
        raise ValueError(f"it lacks columns {sorted(set(schema.names) - set(names))}")
    strange = [name for name in names if pa.types.is_nested(found[name])]
    if strange:
        raise ValueError(f"column {strange[0]} is of type {found[strange[0]]}")
    texts = [name for name in names if _width(found[name]) is None]
    num_rows = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    if min(num_rows, default=0) < 0:
        raise ValueError(f"a row group of {min(num_rows)} rows")
    rows = sum(_row_nbytes(found.get(field.name), field.type) for field in schema) * sum(num_rows)
    _check(where, rows, limit)
    _check(where, sum(_page_nbytes(data, footer, set(names))), limit)
    # Without threads, one column is unpacked at a time.
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts, pre_buffer=False)
    groups, total = [], rows
    for number in (number for number, count in enumerate(num_rows) if count):
        group = file.read_row_group(number, columns=names, use_threads=False)
        total += sum(_text_nbytes(group[name]) for name in texts)
        _check(where, total, limit)
        columns = [group[field.name].cast(field.type) if field.name in found else pa.nulls(group.num_rows, field.type) for field in schema]
        groups.append(pa.table(columns, schema=schema))
    return pa.concat_tables(groups) if groups else schema.empty_table()


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


def _page_nbytes(data: bytes, footer: pq.FileMetaData, names: set[str]) -> Iterator[int]:
    """Yield what each page of these columns is unpacked to, as its own header says."""
    for group in range(footer.num_row_groups):
        # A row group without rows has no pages to speak of.
        for number in range(footer.num_columns if footer.row_group(group).num_rows else 0):
            chunk = footer.row_group(group).column(number)
            if chunk.path_in_schema not in names:
                continue
            at = chunk.data_page_offset
            if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < at:
                at = chunk.dictionary_page_offset
            end = at + chunk.total_compressed_size
            if at < 0 or end > len(data) or chunk.total_compressed_size < 0:
                raise ValueError(f"column {chunk.path_in_schema} lies beyond the file")
            while at < end:
                fields, at = _page_header(data, at, min(end + _SLACK, len(data)))
                unpacked, packed = fields.get(2, -1), fields.get(3, -1)
                if unpacked < 0 or packed < 0:
                    raise ValueError(f"a page of column {chunk.path_in_schema} has no size")
                at += packed
                yield unpacked


def _page_header(data: bytes, at: int, end: int, depth: int = 0) -> tuple[dict[int, int], int]:
    """Return the whole numbers of a Thrift struct in the compact protocol by their fields, and where it ends."""
    fields: dict[int, int] = {}
    field = 0
    while True:
        if at >= end or depth > _DEEPEST:
            raise ValueError("a page's header has no end")
        head, at = data[at], at + 1
        if not head:
            return fields, at
        kind = head & 15
        if head >> 4:
            field += head >> 4
        else:
            value, at = _varint(data, at, end)
            field = _zigzag(value)
        if kind in _INTEGERS:
            value, at = _varint(data, at, end)
            fields[field] = _zigzag(value)
        else:
            at = _skipped(data, at, end, kind, depth)


_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, 12


def _skipped(data: bytes, at: int, end: int, kind: int, depth: int) -> int:
    """Return where a value ends that nobody asks for. Page headers have neither lists nor maps."""
    if kind in _BOOLEANS:
        return at
    if kind == _BYTE:
        return at + 1
    if kind == _DOUBLE:
        return at + 8
    if kind == _BINARY:
        size, at = _varint(data, at, end)
        return at + size
    if kind == _STRUCT:
        return _page_header(data, at, end, depth + 1)[1]
    raise ValueError(f"a page's header has a field of type {kind}")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a page's header is cut off")


def _zigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)
