"""Finding scanner files below a folder or an S3 prefix, and opening one there or bringing it here."""

import contextlib
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import xxhash

from echotrain.data.formats import Deidentifier
from echotrain.data.formats.dicom_series import DICOM_ENDINGS
from echotrain.data.formats.nifti import NIFTI_ENDINGS
from echotrain.errors import ConfigError, ObjectMissingError, PayloadError, ScanError, printable
from echotrain.storage.local import FoundFiles, find_files
from echotrain.storage.open import local_path, store_of
from echotrain.storage.ranged import RangeReader
from echotrain.storage.ranged_file import RangedFile
from echotrain.storage.store import ObjectInfo

__all__ = ["ENDINGS", "IMAGE_ENDINGS", "ScanSource", "find_sources", "local_copy", "opened_in_place", "place_suffixes", "scans_root"]

logger = logging.getLogger(__name__)

_SHOWN = 3
IMAGE_ENDINGS = (*DICOM_ENDINGS, *NIFTI_ENDINGS)
ENDINGS = (".h5", ".hdf5", ".mat", ".mrd", ".ismrmrd", ".dat")


@dataclass(frozen=True, kw_only=True)
class ScanSource:
    """A file that may be a scan, or a folder whose files are read together.

    Attributes:
        uri: Absolute path or ``s3://`` URI.
        size: Bytes.
        version: Changes when the file is written again.
        members: Names of the files that a folder, which is then the source, holds of one kind; () where the source is a file.
    """

    uri: str
    size: int
    version: str
    members: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name."""
        return self.uri.rpartition("/")[2]


def find_sources(uri: str, *, with_images: bool = False) -> list[ScanSource]:
    """List the scans of a folder, an S3 prefix or a single file, in the order of their URIs.

    Files with other endings than ``ENDINGS`` and hidden ones are no scans. Links to folders are followed, to each real folder once;
    a warning tells of those that are not. Keys are taken as they are, with two slashes in a row where they have them.

    Args:
        uri: Folder, prefix or file.
        with_images: Where no scan is found, look for images without k-space: NIfTI volumes, and folders of DICOM files, each folder one
            source. Beside scans they are left out, and a warning says so: consoles export both, and nothing that learns from k-space could
            use a catalog of both as it is.

    Raises:
        ConfigError: There is no such folder, or no scan in it.
        StorageError: The store cannot be listed.
    """
    path = local_path(uri)
    if path is not None and not path.exists():
        raise ConfigError(f"source {uri}", "does not exist", "Give a folder of scanner files, one file, or s3://bucket/prefix.")
    root, endings = scans_root(uri), (*ENDINGS, *IMAGE_ENDINGS) if with_images else ENDINGS
    if path is None:
        is_file = _is_scan(uri, endings)
        store, prefix = store_of(uri if is_file else root)
        found = [(f"{store.uri}/{info.key}", info) for info in store.list(prefix) if info.key == prefix or not is_file]
    elif path.is_file():
        stat = path.stat()
        found = [(f"{root}{path.name}", ObjectInfo(path.name, stat.st_size, str(stat.st_mtime_ns)))]
    else:
        below = find_files(path)
        _tell_of_links(below, root)
        found = [(f"{root}{info.key}", info) for info in below.files]
    sources = [ScanSource(uri=place, size=info.size, version=info.version) for place, info in found if _is_scan(info.key, endings)]
    if not sources:
        raise ConfigError(f"source {uri}", "holds no scans", f"Scans end in {', '.join(endings)}.")
    if with_images and (path is None or path.is_dir()):
        sources = _in_folders(_without_images_beside_scans(sources))
    return sorted(sources, key=lambda source: source.uri)


def _without_images_beside_scans(sources: list[ScanSource]) -> list[ScanSource]:
    scans = [source for source in sources if _is_scan(source.name, ENDINGS)]
    if scans and len(scans) < len(sources):
        logger.warning(
            "%d files of images without k-space lie beside %d scans and are left out: prepare a folder of them alone, into a catalog of "
            "its own or into the same",
            len(sources) - len(scans),
            len(scans),
        )
    return scans or sources


def scans_root(uri: str) -> str:
    """Return what the URIs of all scans of a source begin with: the folder that the user named, or that of the file; with its slash."""
    path = local_path(uri)
    if path is not None:
        path = path.expanduser().absolute()
        return f"{str(path.parent if path.is_file() else path).rstrip('/')}/"
    if _is_scan(uri, (*ENDINGS, *IMAGE_ENDINGS)):
        return f"{uri.rpartition('/')[0]}/"
    # One slash ends a folder; more than one are of its name.
    return uri if uri.endswith("/") else f"{uri}/"


def _tell_of_links(found: FoundFiles, root: str) -> None:
    """Warn of links that were not followed."""
    ways = (
        (found.upwards, "they lead to a folder that holds them"),
        (found.repeated, "the folder's files are taken under another path"),
        ([path for path in found.broken if not path.name.startswith(".")], "they lead nowhere"),
    )
    for links, why in ways:
        if links:
            # A folder of scans may be called after a patient: a person at a terminal is told its name, a log is not.
            names = ", ".join(printable(str(link)) for link in links[:_SHOWN]) + (", …" if len(links) > _SHOWN else "")
            logger.warning("Links that were not followed, because %s: %d (%s)", why, len(links), names if sys.stderr.isatty() else root)


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
    with tempfile.TemporaryDirectory(prefix="echotrain-scan-") as scratch:
        copies = {source.uri: Path(scratch) / source.name}
        if source.members:
            copies = {f"{source.uri}/{name}": Path(scratch) / name for name in source.members}
        try:
            for uri, copy in copies.items():
                store, key = store_of(uri)
                store.download(key, copy)
        except ObjectMissingError as error:
            raise ScanError(source.name, "vanished after it was listed", "Run prepare again.") from error
        yield Path(scratch) if source.members else copy


def place_suffixes(uri: str, sources: Sequence[ScanSource], deidentifier: Deidentifier) -> list[str]:
    """Return what follows the name of each scan's reconstruction: a pseudonym of its place, so that no two have the same name.

    Nothing follows for a file directly in the source, unless there are two of its name.

    Args:
        uri: Where the scans were looked for.
        sources: What ``find_sources`` found there, all of it.
        deidentifier: Makes the pseudonyms.
    """
    root = scans_root(uri)
    places = [(scan.uri.rpartition("/")[0], PurePosixPath(scan.name).stem) for scan in sources]
    count = Counter(places)
    return [
        "" if f"{place[0]}/" == root and count[place] == 1 else deidentifier.pseudonym("", scan.uri)
        for scan, place in zip(sources, places, strict=True)
    ]


def _in_folders(sources: Sequence[ScanSource]) -> list[ScanSource]:
    """Return the sources with one for each folder in place of its DICOM files, of which each has a slice."""
    folders: dict[str, list[ScanSource]] = {}
    for source in sources:
        if source.name.lower().endswith(DICOM_ENDINGS):
            folders.setdefault(source.uri.rpartition("/")[0], []).append(source)
    found = [source for source in sources if not source.name.lower().endswith(DICOM_ENDINGS)]
    for folder, files in folders.items():
        files.sort(key=lambda file: file.name)
        version = xxhash.xxh3_128_hexdigest(repr([(file.name, file.size, file.version) for file in files]).encode(errors="surrogatepass"))
        names = tuple(file.name for file in files)
        found.append(ScanSource(uri=folder, size=sum(file.size for file in files), version=version, members=names))
    return found


def _is_scan(key: str, endings: tuple[str, ...] = ENDINGS) -> bool:
    # What ends in a slash is a folder, whatever it is called: some tools keep an empty object of that name for each.
    name = key.rpartition("/")[2]
    return name.lower().endswith(endings) and not name.startswith(".")
