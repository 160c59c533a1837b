"""Whether the BART toolbox is here, for tests that go on without it."""

from echotrain.baselines.bart import find_bart
from echotrain.errors import ResourceError


def has_bart() -> bool:
    """Return whether there is one."""
    try:
        find_bart()
    except ResourceError:
        return False
    return True
