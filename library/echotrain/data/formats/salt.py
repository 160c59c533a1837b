"""The secret key of the pseudonyms: from the environment, or drawn once and kept in the user's configuration folder.

It never travels with a catalog: whoever has both can hash a list of patient numbers and read who is who.
"""

import contextlib
import os
import secrets
import stat
from pathlib import Path

from echotrain.errors import ConfigError

__all__ = ["SALT_VARIABLE", "draw_salt", "environment_salt", "kept_salt", "salt_path"]

SALT_VARIABLE = "ECHOTRAIN_DEID_SALT"
_BYTES, _MIN_CHARACTERS = 32, 16
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_REMEDY = f"Put it right, or set {SALT_VARIABLE} to the key itself."


def salt_path() -> Path:
    """Return where a drawn key is kept: ``$XDG_CONFIG_HOME/echotrain/deidentification-salt``, else below ``~/.config``.

    Raises:
        ConfigError: There is no home.
    """
    configured = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    try:
        # The XDG specification has relative paths ignored.
        folder = configured if configured.is_absolute() else Path.home() / ".config"
    except RuntimeError as error:
        raise ConfigError("the de-identification salt", "cannot be kept: this user has no home", f"Set {SALT_VARIABLE}.") from error
    return folder / "echotrain" / "deidentification-salt"


def environment_salt() -> str:
    """Return the key of ``ECHOTRAIN_DEID_SALT`` without blanks around it, as a mounted secret's last line break; "" where it is unset.

    Raises:
        ConfigError: It holds blanks alone.
    """
    given = os.environ.get(SALT_VARIABLE, "")
    if given and not given.strip():
        raise ConfigError(f"{SALT_VARIABLE} of {len(given)} blanks", "holds no key", "Set it to one, or leave it out.")
    return given.strip()


def kept_salt() -> str:
    """Return the key of ``ECHOTRAIN_DEID_SALT``, else the one that was drawn on this machine, else "".

    Raises:
        ConfigError: The file is a link, belongs to somebody else, can be read or replaced by others, or holds no key.
    """
    return environment_salt() or _read(salt_path())


def draw_salt() -> str:
    """Draw a key and keep it, mode 0600, where there is none yet; return the one that is kept.

    The file appears whole or not at all, and of two processes that draw at once both get the same key.

    Raises:
        ConfigError: The folder cannot be written, or what is there is not to be trusted.
    """
    path = salt_path()
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(mode=0o700)
        _check_folder(path.parent)
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"{secrets.token_hex(_BYTES)}\n")
                file.flush()
                os.fsync(file.fileno())
            # Unlike a rename, a link does not replace the key that another process may have drawn meanwhile.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}", f"cannot be written ({error.strerror})", f"Set {SALT_VARIABLE}, and keep it safe.") from error
    return _read(path)


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return ""
    except OSError as error:
        limit = "is a link" if path.is_symlink() else f"cannot be read ({error.strerror})"
        raise ConfigError(f"{path}", limit, _REMEDY) from error
    with os.fdopen(descriptor) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise ConfigError(f"{path}", "must be a file of this user's own", _REMEDY)
        if status.st_mode & _OTHERS:
            raise ConfigError(f"{path} of mode {stat.S_IMODE(status.st_mode):04o}", "must be 0600", f"Say chmod 600 {path}.")
        _check_folder(path.parent)
        salt = file.read().strip()
    if len(salt) < _MIN_CHARACTERS:
        raise ConfigError(f"{path}: a key of {len(salt)} characters", f"must have at least {_MIN_CHARACTERS}", _REMEDY)
    return salt


def _check_folder(folder: Path) -> None:
    """Refuse a folder in which others could put a key of theirs."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{folder}", "must be a folder and no link", _REMEDY)
    if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_WRITE:
        raise ConfigError(f"{folder} of mode {stat.S_IMODE(status.st_mode):04o}", "must be this user's own", f"Say chmod 700 {folder}.")
