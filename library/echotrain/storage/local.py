"""A folder as a store: every write is a temporary file, an fsync and a rename."""

import contextlib
import errno
import logging
import os
import shutil
import sys
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from echotrain.errors import ObjectMissingError, StorageError, StorageFullError
from echotrain.storage.object_size import check_size
from echotrain.storage.store import ObjectInfo

__all__ = ["FoundFiles", "LocalStore", "atomic_file", "atomic_folder", "find_files"]

logger = logging.getLogger(__name__)

_TEMPORARY = ".tmp-"
# Device and number on it.
_Identity = tuple[int, int]


@contextlib.contextmanager
def atomic_file(path: Path, *, only_if_absent: bool = False) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` when the block ends well, and vanishes otherwise.

    Raises:
        FileExistsError: ``only_if_absent`` and ``path`` is there.
        StorageFullError: No space is left.
        StorageError: The file system refused otherwise.
    """
    temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    with _typed(path):
        _make_folder(path.parent)
        try:
            yield temporary
            _sync(temporary)
            if only_if_absent:
                _link(temporary, path)
            else:
                temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path, *, only_if_absent: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block ends well, and vanishes otherwise.

    A folder takes two renames to be replaced: a power cut between them leaves the old one beside its place, as ``.tmp-…``.

    Raises:
        FileExistsError: ``only_if_absent`` and ``path`` is there; an empty folder is as good as none.
        StorageFullError: No space is left.
        StorageError: The file system refused otherwise.
    """
    temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    with _typed(path):
        _make_folder(temporary)
        try:
            yield temporary
            for file in temporary.rglob("*"):
                _sync(file)
            if only_if_absent:
                if path.exists() and not (path.is_dir() and not any(path.iterdir())):
                    raise FileExistsError(path)
                # A folder that was filled meanwhile is refused by rename() itself.
                temporary.rename(path)
            else:
                _replace_folder(temporary, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


class LocalStore:
    """Objects are the files below a folder; see ``Store`` for what each method promises."""

    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().absolute()

    @property
    def uri(self) -> str:
        """The folder's absolute path."""
        return str(self._root)

    def read(self, key: str, *, at_most: int | None = None) -> bytes:
        """Return a whole file; one of more bytes than ``at_most`` is refused unread."""
        with _typed(self._root / key):
            if at_most is not None:
                check_size(f"{self.uri}/{key}", (self._root / key).stat().st_size, at_most)
            return (self._root / key).read_bytes()

    def write(self, key: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        """Write a whole file; with ``only_if_absent`` return False, unchanged, where it exists already."""
        try:
            with atomic_file(self._root / key, only_if_absent=only_if_absent) as temporary:
                temporary.write_bytes(data)
        except FileExistsError:
            return False
        return True

    def upload(self, path: Path, key: str, *, consume: bool = False) -> None:
        """Copy a local file into the folder; with ``consume`` move it there, where that is on the same disk."""
        with atomic_file(self._root / key) as temporary:
            if consume:
                shutil.move(path, temporary)
            else:
                shutil.copyfile(path, temporary)

    def download(self, key: str, path: Path) -> None:
        """Copy a file out; it appears whole or not at all."""
        with atomic_file(path) as temporary, _typed(self._root / key):
            shutil.copyfile(self._root / key, temporary)

    def size(self, key: str) -> int | None:
        """Return the file's size in bytes, or None where there is none."""
        with _typed(self._root / key):
            path = self._root / key
            return path.stat().st_size if path.is_file() else None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the files whose relative paths begin with ``prefix``, in key order."""
        # Only the folder that the prefix names is walked: a catalog beside a million shards stays quick to list.
        top = self._root / prefix.rpartition("/")[0]
        # Folders that links point to are not walked: a link upwards would never end.
        with _typed(top):
            keys = sorted(
                (Path(folder) / name).relative_to(self._root).as_posix()
                for folder, names in _walk(top)
                for name in names
                if not name.startswith(_TEMPORARY)
            )
            for key in keys:
                found = _info(self._root / key, key) if key.startswith(prefix) else None
                if found is not None:
                    yield found

    def delete(self, key: str) -> None:
        """Remove a file; nothing happens where there is none."""
        with _typed(self._root / key):
            (self._root / key).unlink(missing_ok=True)


def _walk(top: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield every folder with the names of its files; what is being written is no part of either."""
    for folder, folders, names in os.walk(top, onerror=lambda error: _pass_over(error, top)):
        folders[:] = [name for name in folders if not name.startswith(_TEMPORARY)]
        yield folder, names


class FoundFiles(NamedTuple):
    """The files below a folder, links followed.

    Attributes:
        files: Of what a link leads to, under the link's own path; in key order.
        upwards: Links to a folder that holds them, which were not followed: nobody who names a folder means what lies above it.
        repeated: Links to a folder whose files were found under another path already.
        broken: Links that lead nowhere, or round in circles.
    """

    files: list[ObjectInfo]
    upwards: list[Path]
    repeated: list[Path]
    broken: list[Path]


def find_files(root: Path) -> FoundFiles:
    """Find every file below a folder, and below the folders that links in it point to; each real folder once.

    A real folder is found under its own path, where it has one below the root, and else under that of the first link to it.

    Raises:
        ObjectMissingError: There is no such folder.
        StorageError: It cannot be read.
    """
    root = root.expanduser().absolute()
    found = FoundFiles([], [], [], [])
    seen: set[_Identity | None] = set()
    waiting = deque([root])
    with _typed(root):
        above = _identities(root.resolve())
        while waiting:
            top = waiting.popleft()
            if top != root and _identity(top) in above | _identities(top.parent.resolve()):
                found.upwards.append(top)
            elif _identity(top) in seen:
                found.repeated.append(top)
            else:
                waiting.extend(_find_below(top, root, seen, found))
    found.files.sort(key=lambda info: info.key)
    return found


def _find_below(top: Path, root: Path, seen: set[_Identity | None], found: FoundFiles) -> list[Path]:
    """Add the files of a folder and of all real folders below it that were not seen before; return the links to folders, in order."""
    links: list[Path] = []
    for folder, folders, names in os.walk(top, onerror=lambda error: _pass_over(error, root)):
        here = Path(folder)
        seen.add(_identity(here))
        folders.sort()
        # They wait until all that lies here by itself has been found.
        links += [here / name for name in folders if (here / name).is_symlink()]
        folders[:] = [name for name in folders if here / name not in links and _identity(here / name) not in seen]
        for path in (here / name for name in sorted(names) if not name.startswith(_TEMPORARY)):
            info = _info(path, path.relative_to(root).as_posix())
            if info is not None:
                found.files.append(info)
            elif path.is_symlink():
                found.broken.append(path)
    return links


def _identity(path: Path) -> _Identity | None:
    """Return what tells a file or folder from all others; None of one that has vanished."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def _identities(folder: Path) -> set[_Identity | None]:
    """Return what tells a folder, and each that holds it, from others."""
    return {_identity(place) for place in (folder, *folder.parents)}


def _info(path: Path, key: str) -> ObjectInfo | None:
    """Describe a file; None where it is gone, or a link that leads nowhere or where nobody may look."""
    try:
        stat = path.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP) and not path.is_symlink():
            raise
        return None
    return ObjectInfo(key, stat.st_size, str(stat.st_mtime_ns))


def _pass_over(error: OSError, top: Path) -> None:
    """Warn of a folder that cannot be read, such as ``lost+found``; where it is the one that was asked for, raise."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return
    if error.filename == str(top):
        raise error
    # A folder of scans may be called after a patient: a person at a terminal is told its name, a log is not.
    place = error.filename if sys.stderr.isatty() else f"a folder below {top}"
    logger.warning("%s cannot be read (%s); its files are not seen", place, error.strerror)


def _link(temporary: Path, path: Path) -> None:
    """Give a file its name where that is free; raise ``FileExistsError`` where it is not, which rename() would not do."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        # A file system without hard links: the name is taken first, and filled by the rename.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            temporary.replace(path)
        except OSError:
            path.unlink()
            raise


def _replace_folder(new: Path, path: Path) -> None:
    """Put a folder in the place of another, or of nothing; what was there comes back where that fails."""
    aside = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
    try:
        new.rename(path)
    except OSError:
        if aside.exists():
            aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise StorageError(str(path), "is a file, and a folder is needed", "Choose another place, or move the file away.") from error


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk, so that a power cut cannot undo what was promised."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot fsync a folder; the rename itself is still atomic there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _typed(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about ``path`` into typed ones."""
    try:
        yield
    except FileExistsError:
        raise
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ObjectMissingError(str(path), "does not exist", "Check the path, or prepare the data again.") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFullError(
                str(path), "no space is left on this disk", "Free space or choose another storage, then run again."
            ) from error
        raise StorageError(str(path), str(error), "Check the path and its permissions.") from error
