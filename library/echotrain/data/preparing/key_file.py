"""Who is who: the one file in which a patient's name stands beside the pseudonym, written where it was asked for and nowhere else."""

import csv
import io
import os
import secrets
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from echotrain.data.formats import Deidentifier, ReadLimits, open_volume
from echotrain.data.formats.deidentify import Identity, Witness
from echotrain.data.formats.open_images import holds_images, open_images
from echotrain.data.formats.sources import ScanSource, local_copy, opened_in_place
from echotrain.errors import ConfigError, ScanError, printable
from echotrain.storage.open import local_path

__all__ = ["KeyEntry", "check_key_file", "identify", "write_key_file"]

# What a spreadsheet takes for a formula.
_FORMULA = ("=", "+", "-", "@")
_REMEDY = "Name a file of this machine, outside of the catalog."


@dataclass(frozen=True, kw_only=True)
class KeyEntry:
    """One scan.

    Attributes:
        source: Its URI.
        patient_id, patient_name: As the header has them; "" where it could not be read.
        patient, dataset, volume: What the catalog calls it; "" where it was left out.
    """

    source: str
    patient_id: str = ""
    patient_name: str = ""
    patient: str = ""
    dataset: str = ""
    volume: str = ""


_HEAD = ",".join(field.name for field in fields(KeyEntry))


def check_key_file(path: str, catalog: str) -> Path:
    """Return the file's path, where it may be written.

    Args:
        path: What the user said. A store's URI is none: whoever may read the catalog's bucket could read it there too.
        catalog: URI of the catalog's root.

    Raises:
        ConfigError: It is no path, has no folder, lies below the catalog's root, or is something else that must not be replaced.
    """
    found = local_path(path)
    if found is None:
        raise ConfigError(f"key file {path}", "must be a file of this machine: a store shares it with others", _REMEDY)
    found, root = found.expanduser().absolute(), local_path(catalog)
    if not found.parent.is_dir():
        raise ConfigError(f"key file {path}", "has no folder", "Make its folder first.")
    if root is not None and found.parent.resolve().is_relative_to(root.expanduser().resolve()):
        raise ConfigError(f"key file {path}", f"lies in the catalog {catalog}, which travels without it", _REMEDY)
    if found.is_symlink() or (found.exists() and not _is_key_file(found)):
        raise ConfigError(f"key file {path}", "is there, and is no key file", "Name another file, or remove this one.")
    return found


def identify(source: ScanSource, limits: ReadLimits) -> Identity:
    """Return whom a scan's header names; nobody where it cannot be read.

    Raises:
        StorageError: The store failed.
    """
    witness = Witness(Deidentifier())
    # Of some formats an object in a store has to be copied to read its header.
    for place in (opened_in_place, local_copy):
        try:
            with place(source) as path:
                if isinstance(path, Path) and holds_images(path):
                    with open_images(path, limits=limits) as opened:
                        return next((volume.identity for volume in opened.volumes), Identity())
                with open_volume(path, deidentifier=witness, limits=limits):
                    break
        except ScanError:
            if witness.identity != Identity() or local_path(source.uri) is not None:
                break
    return witness.identity


def write_key_file(path: Path, entries: Iterable[KeyEntry]) -> None:
    """Write the entries as CSV, mode 0600; the file appears whole or not at all, in the place of an earlier one.

    Raises:
        ConfigError: The file system refuses.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([field.name for field in fields(KeyEntry)])
    writer.writerows([_as_text(value) for value in astuple(entry)] for entry in entries)
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text.getvalue().encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"key file {path}", f"cannot be written ({error.strerror})", _REMEDY) from error
    finally:
        temporary.unlink(missing_ok=True)


def _as_text(value: str) -> str:
    value = printable(value)
    return f"'{value}" if value.lstrip().startswith(_FORMULA) else value


def _is_key_file(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_HEAD)) == _HEAD.encode()
