"""For want of which package something failed: a benchmark says so where it cannot run."""

import importlib.util

__all__ = ["missing_package"]


def missing_package(error: BaseException) -> str | None:
    """Return the package that was not found, by the error or by what it was raised from; None where something else is wrong.

    A module that is missing from a package that is there, ours included, is a fault and no missing package.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            package = cause.name.partition(".")[0]
            if importlib.util.find_spec(package) is None:
                return package
        cause = cause.__cause__
    return None
