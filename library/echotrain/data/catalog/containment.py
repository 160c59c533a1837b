"""Where the rows of a catalog may point to: below its own root, and below what the user trusts by name; known before anything is read.

A catalog is a stranger's text. One that names ``/proc/self/environ`` or another team's bucket would have it read as pixels, and the
images say what was read. What the catalog itself says of whom to trust counts for nothing.
"""

import itertools
import json
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from echotrain.errors import CatalogError, ConfigError
from echotrain.storage.open import absolute_uri, join_uri, local_path
from echotrain.storage.uri import SCHEMES, in_bucket, split_uri

__all__ = ["absolute_trusted", "check_contained", "check_key", "is_sound", "trust_setting"]

# What makes a URI worth a second look; the rest are plain keys.
_ODD = r"[\\%\x00-\x1f\x7f]|(^|/)\.\.(/|$)"
# Surrogates stand for the bytes of names that are no UTF-8, which no table can hold.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_SEPARATOR = re.compile(r"[/\\]")
_SCHEMES = (*SCHEMES, "file")
_DECODINGS = 3
# What means itself in a list of settings and to a shell.
_PLAIN = re.compile(r"[\w./:@+=-]+", re.ASCII)
_SHOWN = 3


def absolute_trusted(trusted: Iterable[str]) -> tuple[str, ...]:
    """Return trusted places so that they mean the same in another process.

    Raises:
        ConfigError: One is no place.
    """
    places = tuple(trusted)
    for place in places:
        is_bucket = in_bucket(place) and bool(split_uri(place).bucket)
        if not place or not is_sound(place) or not (is_bucket or local_path(place) is not None):
            raise ConfigError(
                f"data.trusted={place!r}", "is no place", "Name a folder or s3://bucket/prefix, say data.trusted=[s3://lab/raw]."
            )
    return tuple(map(absolute_uri, places))


def check_contained(table: pa.Table, root: str, trusted: Sequence[str] = ()) -> None:
    """Refuse a table with a row whose k-space or target lies neither below the root nor below a trusted place.

    Links are followed: one that leads out of these places is out of them. Each object is looked at once, however many rows it has.

    Args:
        table: Has the columns ``uri`` and ``target_uri``.
        root: Of the catalog: an absolute path or the URI of a bucket's prefix.
        trusted: Folders and prefixes that the user trusts.

    Raises:
        CatalogError: There is such a row; the message names the setting that would allow it.
        ConfigError: A trusted place is none.
    """
    objects = _objects(table)
    outside = _outside(objects, root, absolute_trusted(trusted))
    if not outside:
        return
    limit = f"lies outside of the catalog {root}, as do {len(outside) - 1} more of its {len(objects)} objects, and may be anything"
    unsound = [uri for uri in outside if not is_sound(uri)]
    if unsound:
        raise CatalogError(repr(unsound[0]), limit, "No scan is named so: do not use this catalog.")
    prefixes = _prefixes_of(outside, root)
    given = " ".join(map(shlex.quote, prefixes))
    remedy = f"If you know that place and trust it: {_setting_of(prefixes)} (filter: --trusted {given})."
    raise CatalogError(repr(outside[0]), limit, remedy)


def check_key(root: str, key: str) -> None:
    """Refuse a key, such as a manifest's of its table, that leads out of the root.

    Raises:
        CatalogError: It does.
    """
    if not key or _outside(pa.array([key]), root, ()):
        raise CatalogError(repr(key), f"leads out of the catalog {root}", "No catalog is written so: do not use this one.")


def trust_setting(table: pa.Table, root: str) -> str:
    """Return the setting that whoever reads the table's payload must give, as a shell takes it; "" where all lies below the root."""
    prefixes = _prefixes_of([uri for uri in _outside(_objects(table), root, ()) if is_sound(uri)], root)
    return _setting_of(prefixes) if prefixes else ""


def _setting_of(prefixes: Sequence[str]) -> str:
    """Return the setting that trusts these places, quoted where one of them holds a sign that a list of settings or a shell would take."""
    if all(_PLAIN.fullmatch(prefix) for prefix in prefixes):
        return f"data.trusted=[{','.join(prefixes)}]"
    return shlex.quote(f"data.trusted={json.dumps(list(prefixes), ensure_ascii=False)}")


def _prefixes_of(uris: Sequence[str], root: str) -> list[str]:
    """Return a few folders or prefixes that hold these objects: one of each bucket, and of this machine."""
    folders: dict[str, set[str]] = {}
    for uri in uris:
        place = join_uri(root, uri)
        text = place if in_bucket(place) else os.path.realpath(str(local_path(place)))
        bucket = "/".join(text.split("/")[:3]) if in_bucket(place) else ""
        folders.setdefault(bucket, set()).add(text.rpartition("/")[0])
    found: list[str] = []
    for _, members in sorted(folders.items()):
        # Part by part, since keys may have slashes in a row.
        parts = zip(*(member.split("/") for member in members), strict=False)
        common = "/".join(some[0] for some in itertools.takewhile(lambda some: len(set(some)) == 1, parts))
        # The root of a machine is not a place to trust; a whole bucket may be.
        found += [common] if common else sorted(members)[:_SHOWN]
    # The last slash ends a folder: one whose name ends in a slash has two.
    return [f"{place}/" if place.endswith("/") else place for place in found]


def _objects(table: pa.Table) -> pa.Array:
    """Return every URI of a table once."""
    named = pa.chunked_array([*table["uri"].chunks, *table["target_uri"].chunks], pa.string())
    unique = pc.unique(named.drop_null())
    return unique.filter(pc.not_equal(unique, ""))


def _outside(uris: pa.Array, root: str, trusted: Sequence[str]) -> list[str]:
    allowed = [_prefix(place) for place in (root, *trusted)]
    is_plain = pc.invert(pc.match_substring_regex(uris, _ODD))
    is_known = pa.array([False] * len(uris), pa.bool_())
    if local_path(root) is None:
        # In a folder, a plain key may still be a link.
        is_absolute = pc.or_(pc.starts_with(uris, "/"), pc.match_substring(uris, "://"))
        is_known = pc.invert(is_absolute)
    for prefix in allowed:
        if in_bucket(prefix):
            is_known = pc.or_(is_known, pc.starts_with(uris, prefix))
    folders: dict[str, str] = {}
    unclear = uris.filter(pc.invert(pc.and_(is_known, is_plain))).to_pylist()
    return [uri for uri in unclear if not _is_allowed(uri, root, allowed, folders)]


def _is_allowed(uri: str, root: str, allowed: Sequence[str], folders: dict[str, str]) -> bool:
    if not is_sound(uri):
        return False
    place = join_uri(root, uri)
    if in_bucket(place):
        return any(place.startswith(prefix) for prefix in allowed)
    path = _real_path(place, folders)
    return any(path.startswith(prefix) for prefix in allowed)


def is_sound(uri: str) -> bool:
    """Whether a URI is one that a scan's would be: of a known scheme, and without steps upwards, however they are written."""
    scheme, separator, rest = uri.partition("://")
    if separator and (scheme not in _SCHEMES or (scheme == "file" and not rest.startswith("/"))):
        return False
    text = uri
    for _ in range(_DECODINGS):
        if _CONTROL.search(text) or ".." in _SEPARATOR.split(text):
            return False
        decoded = unquote(text)
        if decoded == text:
            return True
        text = decoded
    return False


def _prefix(place: str) -> str:
    path = local_path(place)
    if path is None:
        return place if place.endswith("/") else f"{place}/"
    return f"{os.path.realpath(path).rstrip('/')}/"


def _real_path(place: str, folders: dict[str, str]) -> str:
    """Return the path that is meant once links are followed, with a slash; ``folders`` keeps what is known of folders."""
    folder, _, name = str(local_path(place)).rpartition("/")
    if folder not in folders:
        folders[folder] = os.path.realpath(folder or "/").rstrip("/")
    path = f"{folders[folder]}/{name}"
    return f"{os.path.realpath(path) if Path(path).is_symlink() else path}/"
