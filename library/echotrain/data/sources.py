"""Finding scanner files below a folder or an S3 prefix, and opening one there or bringing it here."""

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from echotrain.data.formats import Deidentifier
from echotrain.errors import ConfigError, ObjectMissingError, PayloadError, ScanError
from echotrain.storage.open import local_path, open_store
from echotrain.storage.ranged import RangeReader
from echotrain.storage.ranged_file import RangedFile
from echotrain.storage.store import ObjectInfo

__all__ = ["ENDINGS", "ScanSource", "find_sources", "local_copy", "opened_in_place", "place_suffixes", "scans_root"]

ENDINGS = (".h5", ".hdf5", ".mrd", ".ismrmrd", ".dat")


@dataclass(frozen=True, kw_only=True)
class ScanSource:
    """A file that may be a scan.

    Attributes:
        uri: Absolute path or ``s3://`` URI.
        size: Bytes.
        version: Changes when the file is written again.
    """

    uri: str
    size: int
    version: str

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(self.uri).name


def find_sources(uri: str) -> list[ScanSource]:
    """List the scans of a folder, an S3 prefix or a single file, in the order of their URIs.

    Files with other endings than ``ENDINGS`` and hidden ones are no scans.

    Raises:
        ConfigError: There is no such folder, or no scan in it.
        StorageError: The store cannot be listed.
    """
    path = local_path(uri)
    if path is not None and not path.exists():
        raise ConfigError(f"source {uri}", "does not exist", "Give a folder of scanner files, one file, or s3://bucket/prefix.")
    if path is not None and path.is_file():
        found = path.absolute()
        stat = found.stat()
        listed = [(str(found), ObjectInfo(found.name, stat.st_size, str(stat.st_mtime_ns)))]
    elif path is None and uri.lower().endswith(ENDINGS):
        folder, _, name = uri.rpartition("/")
        listed = [(uri, info) for info in open_store(folder).list(name) if info.key == name]
    else:
        store = open_store(uri)
        listed = [(f"{store.uri.rstrip('/')}/{info.key}", info) for info in store.list()]
    sources = [ScanSource(uri=place, size=info.size, version=info.version) for place, info in listed if _is_scan(info.key)]
    if not sources:
        raise ConfigError(f"source {uri}", "holds no scans", f"Scans end in {', '.join(ENDINGS)}.")
    return sorted(sources, key=lambda source: source.uri)


def scans_root(uri: str) -> str:
    """Return what the URIs of all scans of a source begin with: the folder that the user named, or that of the file."""
    path = local_path(uri)
    is_file = path.is_file() if path is not None else uri.lower().endswith(ENDINGS)
    root = str(path.absolute()) if path is not None and is_file else uri if is_file else open_store(uri).uri
    return f"{root.rpartition('/')[0] if is_file else root.rstrip('/')}/"


@contextlib.contextmanager
def opened_in_place(source: ScanSource) -> Iterator[Path | RangedFile]:
    """Yield the file itself, or the object in its store, of which only what is read is fetched.

    Raises:
        ScanError: The object has vanished or shrunk since it was listed.
        StorageError: The store failed.
    """
    path = local_path(source.uri)
    with contextlib.closing(RangeReader()) as reader:
        try:
            yield path if path is not None else RangedFile(reader, source.uri, source.size)
        except (ObjectMissingError, PayloadError) as error:
            raise ScanError(source.name, "changed after it was listed", "Run prepare again.") from error


@contextlib.contextmanager
def local_copy(source: ScanSource) -> Iterator[Path]:
    """Yield a path on this machine: the file itself, or a download that is removed afterwards.

    Raises:
        ScanError: The file has vanished since it was listed.
        StorageError: The store failed.
    """
    path = local_path(source.uri)
    if path is not None:
        yield path
        return
    folder, _, name = source.uri.rpartition("/")
    with tempfile.TemporaryDirectory(prefix="echotrain-scan-") as scratch:
        copy = Path(scratch) / name
        try:
            open_store(folder).download(name, copy)
        except ObjectMissingError as error:
            raise ScanError(name, "vanished after it was listed", "Run prepare again.") from error
        yield copy


def place_suffixes(uri: str, sources: Sequence[ScanSource], deidentifier: Deidentifier) -> list[str]:
    """Return what follows the name of each scan's reconstruction: a pseudonym of its place, so that no two have the same name.

    Nothing follows for a file directly in the source, unless there are two of its name.

    Args:
        uri: Where the scans were looked for.
        sources: What ``find_sources`` found there, all of it.
        deidentifier: Makes the pseudonyms.
    """
    root = open_store(uri).uri
    count = Counter((PurePosixPath(scan.uri).parent, PurePosixPath(scan.uri).stem) for scan in sources)
    suffixes = []
    for scan in sources:
        place = PurePosixPath(scan.uri)
        is_plain = scan.uri == root or (str(place.parent) == str(PurePosixPath(root)) and count[place.parent, place.stem] == 1)
        suffixes.append("" if is_plain else deidentifier.pseudonym("", scan.uri))
    return suffixes


def _is_scan(key: str) -> bool:
    name = PurePosixPath(key).name
    return name.lower().endswith(ENDINGS) and not name.startswith(".")
