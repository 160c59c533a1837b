"""MosaicMRI: a zip of HDF5 files with ``ismrmrd_header`` and ``reconstruction_rss`` and nothing else."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from echotrain.errors import ConfigError
from echotrain.evaluation.submission.challenge import ExpectedFile, Problem
from echotrain.evaluation.submission.reconstructions import Images
from echotrain.evaluation.submission.volumes import (
    HEADER,
    VolumeFacts,
    check_volume,
    expect_volumes,
    read_header,
    volume_misfit,
    write_volume,
)

__all__ = ["TRACKS", "MosaicChallenge"]

# Most bytes of a track's files. The organisers write 8 GB, 500 MB and, in one place 700 and in another 800 MB; they count in
# powers of two, and the larger number is taken so that nothing acceptable is refused.
TRACKS: Mapping[str, int] = {"reconstruction": 8 << 30, "ankle": 500 << 20, "t1fs": 800 << 20}
_KEY = "reconstruction_rss"


@dataclass(frozen=True, kw_only=True)
class MosaicChallenge:
    """A file for each of the test set's, of the same name and folder, in a zip.

    It holds the test file's own header, byte by byte, and ``reconstruction_rss`` float32 (slices, height, width).
    The shape is that of the test file's ``reconstruction_rss``, or the header's recon matrix where the file has none.
    Assumed: that matrix is not larger than the k-space, and the limit holds for the files as well as for their zip.

    Attributes:
        track: ``reconstruction`` (8x), ``ankle`` (transfer to an unseen anatomy) or ``t1fs`` (to an unseen contrast).
    """

    track: str
    is_zip: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` for a track that is none."""
        if self.track not in TRACKS:
            raise ConfigError(f"track={self.track}", f"must be one of {', '.join(TRACKS)}", "Name the track of this test set.")

    @property
    def title(self) -> str:
        """Its name and track."""
        return f"MosaicMRI ({self.track})"

    @property
    def max_bytes(self) -> int | None:
        """The track's limit."""
        return TRACKS[self.track]

    def expect(self, like: str) -> list[ExpectedFile]:
        """Read names and sizes from the test set; see ``Challenge.expect``."""
        return expect_volumes(like, _shape)

    def misfit(self, expected: ExpectedFile, images: Images) -> str:
        """Say which reconstruction is wanted instead, or ""."""
        return volume_misfit(expected, images)

    def write(self, expected: ExpectedFile, images: Images, path: Path) -> None:
        """Write the test file's header and the centre of a reconstruction."""
        write_volume(path, _KEY, images, expected.shape, header=read_header(expected.source))

    def check(self, expected: ExpectedFile, path: Path) -> Iterator[Problem]:
        """Yield everything that is wrong with one file."""
        return check_volume(expected, path, _KEY, frozenset({HEADER}))


def _shape(volume: VolumeFacts) -> tuple[int, ...]:
    if volume.target is not None:
        return volume.target
    if volume.kspace is None:
        return ()
    height, width = volume.kspace[-2:]
    return (volume.kspace[0], min(volume.recon[0], height), min(volume.recon[1], width))
