"""fastMRI: one HDF5 file per volume with ``reconstruction`` and nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from echotrain.evaluation.submission.challenge import ExpectedFile, Problem
from echotrain.evaluation.submission.reconstructions import Images
from echotrain.evaluation.submission.volumes import VolumeFacts, check_volume, expect_volumes, volume_misfit, write_volume

__all__ = ["FastmriChallenge"]

_KEY = "reconstruction"


@dataclass(frozen=True, kw_only=True)
class FastmriChallenge:
    """A file for each of the test set's, of the same name: ``reconstruction`` float32 (slices, height, width).

    The images have the header's recon matrix: 320 x 320 of a knee. The few brain scans with fewer phase encodes than that
    matrix has columns (FLAIR, 203) are squares of their width, as in the public VarNet (``fastmri/pl_modules``, MIT).
    Assumed, as no public text says it: no limit of size, and files of sub-folders keep their folder.
    """

    title: ClassVar[str] = "fastMRI"
    max_bytes: ClassVar[int | None] = None
    is_zip: ClassVar[bool] = False

    def expect(self, like: str) -> list[ExpectedFile]:
        """Read names and sizes from the test set; see ``Challenge.expect``."""
        return expect_volumes(like, _shape)

    def misfit(self, expected: ExpectedFile, images: Images) -> str:
        """Say which reconstruction is wanted instead, or ""."""
        return volume_misfit(expected, images)

    def write(self, expected: ExpectedFile, images: Images, path: Path) -> None:
        """Write the centre of a reconstruction."""
        write_volume(path, _KEY, images, expected.shape)

    def check(self, expected: ExpectedFile, path: Path) -> Iterator[Problem]:
        """Yield everything that is wrong with one file."""
        return check_volume(expected, path, _KEY)


def _shape(volume: VolumeFacts) -> tuple[int, ...]:
    if volume.kspace is None:
        return ()
    height, width = volume.kspace[-2:]
    if width < volume.recon[1]:
        side = min(height, width)
        return (volume.kspace[0], side, side)
    return (volume.kspace[0], min(volume.recon[0], height), volume.recon[1])
