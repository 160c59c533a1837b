"""A submission that exists: a folder or a zip of a stranger's, measured before a byte of it is unpacked."""

import contextlib
import os
import shutil
import stat
import struct
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Protocol

from echotrain.data.formats.hdf5 import reading
from echotrain.errors import SubmissionError
from echotrain.evaluation.submission.challenge import Problem
from echotrain.storage.bounded_file import BoundedFile
from echotrain.units import human_bytes

__all__ = ["Package", "open_package"]

_MAX_FILES = 200_000
# The table of contents of that many files; zipfile reads it in one piece, whatever size the archive gives it.
_MAX_READ = 64 << 20
_COPY_BYTES = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
_MAKE_AGAIN = "Make it again with ray_jobs.submit."


class Package(Protocol):
    """A folder or a zip.

    Attributes:
        files: Bytes of each file, keyed by its place.
        problems: Members that are no plain files; they are not among ``files``.
        num_bytes: Of all files, or of the zip where that is larger.
    """

    files: dict[str, int]
    problems: list[Problem]
    num_bytes: int

    def opened(self, path: str) -> contextlib.AbstractContextManager[Path]:
        """Open one of ``files`` as a file on this machine.

        Raises:
            ScanError: It is damaged.
        """


@contextlib.contextmanager
def open_package(place: Path, expected: Collection[str]) -> Iterator[Package]:
    """Open a submission, folder or zip, whichever it is.

    Args:
        place: Where it lies.
        expected: The files it should have. A zip may hold them in a folder of its own, as the packers of most systems do.

    Raises:
        SubmissionError: It is neither, or a zip that cannot be opened safely.
    """
    if place.is_dir():
        yield _Folder(place)
        return
    if not place.is_file():
        raise SubmissionError(str(place), "is neither a folder nor a zip", "Give the submission that is to be checked.")
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(BoundedFile(place, _MAX_READ, lambda wanted: _contents_too_long(place, wanted)))
            archive = stack.enter_context(zipfile.ZipFile(file))
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
            raise SubmissionError(str(place), f"must be a folder or a complete zip ({error})", _MAKE_AGAIN) from error
        yield _Zip(place, archive, expected)


class _Folder:
    """The files below a folder; links to folders are not followed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.files: dict[str, int] = {}
        self.problems: list[Problem] = []
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder) / name
                key = path.relative_to(root).as_posix()
                if path.is_file():
                    self.files[key] = path.stat().st_size
                else:
                    self.problems.append(Problem(file=key, what="is no file", expected="plain files alone"))
        if len(self.files) > _MAX_FILES:
            raise SubmissionError(str(root), f"has {len(self.files)} files, and at most {_MAX_FILES} are checked", _MAKE_AGAIN)
        self.num_bytes = sum(self.files.values())

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[Path]:
        yield self._root / path


class _Zip:
    """The members of a zip; one is unpacked at a time, and no further than the size that its entry declares."""

    def __init__(self, place: Path, archive: zipfile.ZipFile, expected: Collection[str]) -> None:
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        self.problems: list[Problem] = []
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) > _MAX_FILES:
            raise SubmissionError(str(place), f"has {len(members)} members, and at most {_MAX_FILES} are checked", _MAKE_AGAIN)
        wrapper = _wrapper([member.filename for member in members], expected)
        for member in members:
            name = member.filename.removeprefix(wrapper)
            what = "is there twice" if name in self._members else _defect(member)
            if what:
                self.problems.append(Problem(file=member.filename, what=what, expected="plain files in the submission's own folders"))
            else:
                self._members[name] = member
        self.files = {name: member.file_size for name, member in self._members.items()}
        self.num_bytes = max(sum(self.files.values()), place.stat().st_size)

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[Path]:
        member = self._members[path]
        with tempfile.TemporaryDirectory(prefix="echotrain-submission-") as scratch:
            unpacked = Path(scratch) / PurePosixPath(path).name
            with reading(unpacked.name), self._archive.open(member) as packed, unpacked.open("wb") as file:
                shutil.copyfileobj(packed, file, _COPY_BYTES)
            yield unpacked


def _contents_too_long(place: Path, wanted: int) -> SubmissionError:
    limit = f"has a table of contents of {human_bytes(wanted)}, at most {human_bytes(_MAX_READ)} are read"
    return SubmissionError(str(place), limit, _MAKE_AGAIN)


def _defect(member: zipfile.ZipInfo) -> str:
    """Say what keeps a member from being unpacked, or ""."""
    name, windows = member.filename, PureWindowsPath(member.filename)
    if name.startswith("/") or windows.drive or windows.root or "\\" in name:
        return "is no relative path"
    if ".." in name.split("/") or str(PurePosixPath(name)) != name:
        return "leads out of its folder or back into it"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link or a device"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if member.compress_type not in _METHODS:
        return f"is compressed by method {member.compress_type}, not stored or deflated"
    return ""


def _wrapper(names: list[str], expected: Collection[str]) -> str:
    """Return the folder that holds everything, with its slash, where the files are not at the top."""
    tops = {name.partition("/")[0] for name in names if "/" in name}
    if len(tops) != 1 or not all("/" in name for name in names):
        return ""
    wrapper = f"{tops.pop()}/"
    return wrapper if any(name.removeprefix(wrapper) in expected for name in names) else ""
