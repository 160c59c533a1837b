"""What counts as white in a magnitude slice, so that a receiver's gain does not count."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["scaled_to_white"]


def scaled_to_white(image: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Return a magnitude slice divided by its 99.5th percentile, or None where it is blank: what is brighter than 1 is to be clipped."""
    white = float(np.percentile(image, 99.5))
    return image / np.float32(white) if white > 0 else None
