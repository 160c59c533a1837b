"""Readouts that all pass through the centre of k-space: spokes and spirals, told by their energy where no header tells."""

from echotrain.data.formats.checks.energy import Peak
from echotrain.errors import ScanError

__all__ = ["is_projection", "projection_error"]

# Of projections every readout has its peak where all others have theirs, and all are about as strong: over them the contrast is 1.1 to
# 1.5, of an elongated object. Over Cartesian lines it is 4 and more, and 1.8 where only 24 in the centre were measured.
_CENTERED, _LEVEL, _MIN_LINES = 2.5, 1.6, 24


def is_projection(along_readouts: Peak, over_readouts: Peak) -> bool:
    """Say whether readouts share one peak and differ little in strength."""
    return along_readouts.contrast > _CENTERED and over_readouts.contrast < _LEVEL and over_readouts.num_lines >= _MIN_LINES


def projection_error(name: str) -> ScanError:
    """Return the error of a file whose readouts are no lines."""
    return ScanError(
        f"{name}: every readout passes through the centre of k-space",
        "a radial or spiral scan, or one line measured again and again, is no Cartesian k-space",
        "Leave it out.",
    )
