"""A submission that comes to be: a folder or a zip that appears whole or not at all."""

import contextlib
import shutil
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Protocol

from echotrain.errors import ConfigError
from echotrain.storage.local import atomic_file, atomic_folder

__all__ = ["ZIP_ENDING", "Output", "check_destination", "new_output"]

ZIP_ENDING = ".zip"
_COPY_BYTES = 1 << 20
# The same reconstructions give the same bytes.
_NO_DATE = (1980, 1, 1, 0, 0, 0)
_PLAIN_FILE = 0o100644


class Output(Protocol):
    """Where files are added, and afterwards, where they lie until they are given their name."""

    place: Path

    def adding(self, path: str) -> contextlib.AbstractContextManager[Path]:
        """Yield where to write one file of the submission."""

    def finish(self) -> None:
        """Complete what lies at ``place``."""


@contextlib.contextmanager
def new_output(to: Path, *, overwrite: bool) -> Iterator[Output]:
    """Yield a folder or, for a name that ends in ``.zip``, a zip; it becomes ``to`` when the block ends well.

    The zip holds one folder of its own name, as the organisers' packers make it.

    Raises:
        ConfigError: ``to`` was made by somebody else meanwhile.
        StorageError: It cannot be written.
    """
    try:
        if to.suffix.lower() != ZIP_ENDING:
            with atomic_folder(to, only_if_absent=not overwrite) as place:
                yield _Folder(place)
            return
        with atomic_file(to, only_if_absent=not overwrite) as place, _Zip(place, to.stem) as output:
            yield output
    except FileExistsError as error:
        raise ConfigError(str(to), "is there already", "Give --overwrite to replace it, or another place.") from error


def check_destination(to: Path, files: Collection[str], *, overwrite: bool) -> None:
    """Refuse a place where something would be lost.

    Args:
        to: Where the submission is to be.
        files: What it will hold.
        overwrite: Whether a submission that is there may be replaced.

    Raises:
        ConfigError: Something is there already and may not be replaced, or is no submission of these files.
    """
    is_zip = to.suffix.lower() == ZIP_ENDING
    if not to.exists() or (not is_zip and to.is_dir() and not any(to.iterdir())):
        return
    if not overwrite:
        raise ConfigError(str(to), "is there already", "Give --overwrite to replace it, or another place.")
    if to.is_dir() == is_zip:
        raise ConfigError(str(to), f"is {'a folder' if is_zip else 'a file'}, which a submission does not replace", "Choose another place.")
    if not is_zip:
        foreign = sorted(path.relative_to(to).as_posix() for path in to.rglob("*") if not path.is_dir())
        foreign = [path for path in foreign if path not in files]
        if foreign:
            raise ConfigError(str(to), f"holds {foreign[0]}, which is not of this submission", "Choose another place, or move it away.")


class _Folder:
    def __init__(self, place: Path) -> None:
        self.place = place

    @contextlib.contextmanager
    def adding(self, path: str) -> Iterator[Path]:
        file = self.place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        yield file

    def finish(self) -> None:
        pass


class _Zip:
    """Stored, not deflated: float32 images hardly shrink, and the limits are on the files."""

    def __init__(self, place: Path, folder: str) -> None:
        self.place, self._folder = place, folder
        self._archive = zipfile.ZipFile(place, "w", zipfile.ZIP_STORED)

    @contextlib.contextmanager
    def adding(self, path: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=self.place.parent) as scratch:
            file = Path(scratch) / path.rpartition("/")[2]
            yield file
            member = zipfile.ZipInfo(f"{self._folder}/{path}", _NO_DATE)
            member.external_attr, member.file_size = _PLAIN_FILE << 16, file.stat().st_size
            with file.open("rb") as written, self._archive.open(member, "w") as packed:
                shutil.copyfileobj(written, packed, _COPY_BYTES)

    def finish(self) -> None:
        self._archive.close()

    def __enter__(self) -> "_Zip":
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()
