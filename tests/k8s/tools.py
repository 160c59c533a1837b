"""Programs that charts are tested with, where ``make tools`` left them."""

import os
import shutil
from pathlib import Path

from echotrain.errors import ResourceError

__all__ = ["cache_folder", "find_tool"]


def cache_folder() -> Path:
    """Return the project's cache, shared by every clone of a user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "echotrain"


def find_tool(name: str) -> Path:
    """Return ``helm3``, ``helm4``, ``kubectl`` or ``promtool``: what ``ECHOTRAIN_HELM3`` (and so on) names, else that of ``make tools``.

    What is on PATH is left alone: tests are to say the same on every machine, so the versions are the project's own.

    Raises:
        ResourceError: There is none, or the variable names none.
    """
    variable = f"ECHOTRAIN_{name.upper()}"
    named = os.environ.get(variable, "")
    if named:
        found = shutil.which(named)
        if found is None:
            raise ResourceError(f"{variable}={named}", "is no executable file", "Let it name one, or unset it to use that of make tools.")
        return Path(found).absolute()
    path = cache_folder() / "tools" / name
    if not os.access(path, os.X_OK):
        raise ResourceError(name, f"is not in {path.parent}", f"Run make tools, or let {variable} name one.")
    return path
