"""Samples of virtual coils: those of each sample are found in the fully sampled centre of its own k-space, and nowhere else.

What no mask acquires takes no part, so that a sample is the same whatever payload it lies in. A sample of no more coils than are asked for
gets as many virtual coils as it has coils: nothing of it is lost, and a network sees virtual coils alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from echotrain.data.catalog.identity import SampleId
from echotrain.errors import ConfigError, PayloadError
from echotrain.physics.coil_compression import compress, compression_matrix, covariance
from echotrain.physics.masks import central

__all__ = ["Acquired", "CoilStatistics", "calibrate", "num_virtual_coils", "to_virtual_coils"]


class Acquired(NamedTuple):
    """One frame of a sample.

    Attributes:
        kspace: Of real coils alone, (coil, ky, kx).
        mask: What of it was acquired, bool (ky or 1, kx).
        center: Sizes of its fully sampled centre: lines, or rows and columns.
    """

    kspace: NDArray[np.complex64]
    mask: NDArray[np.bool_]
    center: tuple[int, ...]

    def points(self, mask: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the places of a mask's points in a frame that is laid out as one row."""
        return np.flatnonzero(np.broadcast_to(mask, self.kspace.shape[1:]))


class CoilStatistics(NamedTuple):
    """What a frame's centre says of its coils.

    Attributes:
        covariance: Of the coils.
        num_points: That it was found in.
    """

    covariance: NDArray[np.complex128]
    num_points: int


def num_virtual_coils(asked: int, coils: int) -> int:
    """Return how many virtual coils a sample gets where so many are asked for; 0 asks for the coils as they were measured."""
    return min(asked, coils) if asked else coils


def calibrate(frame: Acquired) -> CoilStatistics:
    """Look at a frame's centre, as far as it was acquired: partial Fourier may begin within it."""
    height, width = frame.kspace.shape[1:]
    *rows, columns = frame.center
    is_central = np.zeros((height, width), bool)
    is_central[central(height, *rows) if rows else slice(None), central(width, columns)] = True
    points = frame.points(is_central & frame.mask)
    with np.errstate(invalid="ignore", over="ignore"):
        return CoilStatistics(covariance(frame.kspace.reshape(len(frame.kspace), -1).take(points, axis=1)), len(points))


def to_virtual_coils(
    sample: SampleId,
    frames: Sequence[Acquired],
    calibrations: Sequence[CoilStatistics],
    asked: int,
    out: Sequence[NDArray[np.complex64]],
) -> None:
    """Compress the frames of a sample, all by one matrix: that of all their centres together.

    Args:
        sample: For messages.
        frames: Of one number of coils and one matrix size, each once.
        calibrations: Of each.
        asked: Virtual coils, at least 1.
        out: Filled, of each (coil, ky, kx): zero where nothing was acquired, and beyond the virtual coils.

    Raises:
        ConfigError: The centres have fewer points than there are to be virtual coils, which would be made up.
        PayloadError: What was acquired is not finite, or lacks just what virtual coils are found in.
    """
    number = num_virtual_coils(asked, len(frames[0].kspace))
    num_points = sum(each.num_points for each in calibrations)
    if num_points < number:
        limit = f"cannot be found in the {num_points} points of the fully sampled centre of {sample}"
        raise ConfigError(f"data.coils={asked}", limit, "Use a mask with a larger centre, or data.coils=0.")
    together = np.sum([each.covariance for each in calibrations], axis=0)
    if not np.isfinite(together).all():
        raise _not_finite(sample)
    matrix = compression_matrix(together, number)
    for frame, filled in zip(frames, out, strict=True):
        points, kspace = frame.points(frame.mask), frame.kspace.reshape(len(frame.kspace), -1)
        with np.errstate(invalid="ignore", over="ignore"):
            compress(kspace, matrix, points, filled[:number].reshape(number, -1))
        filled[number:] = 0
        if not np.isfinite(filled).all():
            raise _not_finite(sample)
        if not together.any() and kspace.take(points, axis=1).any():
            raise PayloadError(str(sample), "has zeros for its centre, which its virtual coils are found in", "Leave it out.")


def _not_finite(sample: SampleId) -> PayloadError:
    return PayloadError(str(sample), "has k-space that is not finite", "Prepare it again, or leave it out.")
