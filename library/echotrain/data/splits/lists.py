"""Lists of files or patients and their splits, as data sets publish them: CSV with a header line, or JSON.

CSV names its columns, ``file,split`` or ``patient,split`` (or any of the usual other names). JSON is ``{"a.h5": "train"}``,
``{"train": ["a.h5"]}`` or a list of rows. A list may name people: errors say which entry is meant, never what it says.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from echotrain.errors import ConfigError
from echotrain.storage.open import absolute_uri, store_of

__all__ = ["Entry", "ListKind", "SplitList", "parse_split_list", "read_split_list", "split_named"]

ListKind = Literal["files", "patients"]

# Hundreds of thousands of entries; whoever gives more has given another file.
_LARGEST = 64 << 20
_SPLIT_WORD = re.compile(r"(train)(?:ing)?(?:[ _-]?set)?|(val)(?:id|idation)?(?:[ _-]?set)?|(test)(?:ing)?(?:[ _-]?set)?")
_KEY_COLUMNS: dict[ListKind, tuple[str, ...]] = {
    "files": ("file", "filename", "file_name", "fname", "path", "name", "volume", "scan"),
    "patients": ("patient", "patient_id", "patientid", "subject", "subject_id"),
}
_SPLIT_COLUMNS = ("split", "partition", "set", "subset")


class Entry(NamedTuple):
    """What a list says of one file or patient.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        number: Of the entry that says so first, from 1.
    """

    split: str
    number: int


@dataclass(frozen=True, kw_only=True)
class SplitList:
    """A list that contradicts itself nowhere.

    Attributes:
        entries: By name, path or patient, as it is written there.
        num_repeated: Entries that say again what an earlier one says.
    """

    entries: dict[str, Entry]
    num_repeated: int


def split_named(text: str) -> str | None:
    """Return the split that a word stands for (``Training``, ``TrainingSet``, ``valid``), or None."""
    found = _SPLIT_WORD.fullmatch(text.strip().casefold())
    return None if found is None else found[found.lastindex or 0]


def read_split_list(uri: str, kind: ListKind) -> SplitList:
    """Read a list from a folder or from S3; its size is asked for first.

    Raises:
        ConfigError: There is no such file, it is too large, or not a list as ``parse_split_list`` reads it.
        StorageError: The store failed.
    """
    store, name = store_of(absolute_uri(uri))
    size = store.size(name)
    if size is None:
        raise ConfigError(f"split list {uri}", "does not exist", "Give the path or s3:// URI of a CSV or JSON file.")
    if size > _LARGEST:
        raise ConfigError(f"split list {uri} of {size} bytes", f"at most {_LARGEST} are read", "Give a file of names and splits alone.")
    return parse_split_list(store.read(name), uri, kind)


def parse_split_list(data: bytes, uri: str, kind: ListKind) -> SplitList:
    """Parse a list.

    Args:
        data: The file's content.
        uri: Its place; the ending says whether it is CSV (``.csv``, ``.tsv``) or JSON.
        kind: Of what it is a list.

    Raises:
        ConfigError: It cannot be read, is empty, names an unknown split, or contradicts itself.
    """
    ending = uri.casefold().rpartition(".")[2]
    if ending not in ("csv", "tsv", "json"):
        raise ConfigError(f"split list {uri}", "must end in .csv, .tsv or .json", "Rename it, or write it as one of these.")
    try:
        text = data.decode("utf-8-sig")
        pairs = list(_of_json(text, uri, kind) if ending == "json" else _of_csv(text, uri, kind))
    except (ValueError, csv.Error, RecursionError) as error:
        # The error's own words may quote the list.
        raise ConfigError(f"split list {uri}", f"is not {ending.upper()} in UTF-8 ({type(error).__name__})", "Write it again.") from None
    if not pairs:
        raise ConfigError(f"split list {uri}", "has no entries", "Name at least one file or patient and its split.")
    return _joined(pairs, uri)


def _joined(pairs: Iterable[tuple[str, str]], uri: str) -> SplitList:
    entries: dict[str, Entry] = {}
    num_repeated = 0
    for number, (key, word) in enumerate(pairs, start=1):
        split = split_named(word)
        if split is None:
            known = "train, val and test (training, validation, TrainingSet and the like are understood)"
            raise ConfigError(f"entry {number} of {uri}", f"has a split that is none of {known}", "Correct it.")
        if not key.strip():
            raise ConfigError(f"entry {number} of {uri}", "names nothing", "Fill it in, or remove it.")
        earlier = entries.setdefault(key.strip(), Entry(split, number))
        if earlier.split != split:
            raise ConfigError(
                f"entries {earlier.number} and {number} of {uri}",
                f"put the same into {earlier.split} and {split}",
                "Keep one of them.",
            )
        num_repeated += earlier.number != number
    return SplitList(entries=entries, num_repeated=num_repeated)


def _of_csv(text: str, uri: str, kind: ListKind) -> Iterator[tuple[str, str]]:
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if any(cell.strip() for cell in row)]
    if not rows:
        return
    at, split_at = _columns(rows[0], uri, kind)
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(rows[0]):
            raise ConfigError(f"entry {number} of {uri}", f"has {len(row)} cells, its header {len(rows[0])}", "Correct it.")
        yield row[at], row[split_at]


def _columns(header: Sequence[str], uri: str, kind: ListKind) -> tuple[int, int]:
    """Return where the names and the splits are."""
    names = [name.strip().casefold() for name in header]
    found = []
    for allowed in (_KEY_COLUMNS[kind], _SPLIT_COLUMNS):
        places = [place for place, name in enumerate(names) if name in allowed]
        if len(places) != 1:
            wanted = f"{len(places)} columns are one of {', '.join(allowed)}; exactly one must be"
            raise ConfigError(f"header of {uri}", wanted, f"Begin it with {_KEY_COLUMNS[kind][0]},split.")
        found.append(places[0])
    return found[0], found[1]


class _Pairs(list[tuple[str, Any]]):
    """A JSON object whose repeated names have not been lost."""


def _of_json(text: str, uri: str, kind: ListKind) -> Iterator[tuple[str, str]]:
    content = json.loads(text, object_pairs_hook=_Pairs)
    if isinstance(content, _Pairs):
        for name, value in content:
            if isinstance(value, list) and not isinstance(value, _Pairs):
                yield from ((_text(key, uri), name) for key in value)
            else:
                yield name, _text(value, uri)
    elif isinstance(content, list):
        for number, row in enumerate(content, start=1):
            if not isinstance(row, _Pairs):
                raise ConfigError(f"entry {number} of {uri}", "is no object", f'Write it as {{"{_KEY_COLUMNS[kind][0]}": …, "split": …}}.')
            at, split_at = _columns([name for name, _ in row], uri, kind)
            yield _text(row[at][1], uri), _text(row[split_at][1], uri)
    else:
        raise ConfigError(f"split list {uri}", "is neither an object nor a list", 'Write it as {"train": [...], "val": [...]}.')


def _text(value: Any, uri: str) -> str:
    """Return a name; patients' numbers are often written as numbers."""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise ConfigError(f"split list {uri}", f"has a {type(value).__name__} where a name or a split must be", "Correct it.")
