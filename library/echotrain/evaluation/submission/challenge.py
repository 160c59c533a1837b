"""What a challenge is to the exporter: the files it expects, how one of them is written, and what is wrong with one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from echotrain.data.formats.sources import ScanSource
from echotrain.evaluation.submission.reconstructions import Images

__all__ = ["Challenge", "ExpectedFile", "Problem"]

_MAX_WHAT = 500


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with a submission.

    Attributes:
        file: Which file, as the submission names it.
        what: What it is, or does.
        expected: What the challenge expects instead.
    """

    file: str
    what: str
    expected: str

    def __str__(self) -> str:
        # Names and keys of a stranger's file must neither steer the terminal that they are shown on nor fill it.
        what = self.what if len(self.what) <= _MAX_WHAT else f"{self.what[:_MAX_WHAT]}…"
        text = f"{self.file}: {what}; expected: {self.expected}"
        return "".join(character if character.isprintable() else "?" for character in text)


@dataclass(frozen=True, kw_only=True)
class ExpectedFile:
    """One file of a submission.

    Attributes:
        path: Where it lies in the submission.
        shape: Shape of its array as numpy reads it.
        images_shape: Shape of the reconstruction that it is made from: (frames, slices, height, width) of a CMRxRecon file,
            else (slices, height, width) that it must have at least.
        source: The test file that it answers.
        names: Where its reconstruction may lie below the folder of reconstructions, the likeliest first.
    """

    path: str
    shape: tuple[int, ...]
    images_shape: tuple[int, ...]
    source: ScanSource
    names: tuple[str, ...]


class Challenge(Protocol):
    """The rules of one challenge, without state."""

    @property
    def title(self) -> str:
        """Its name, for people."""

    @property
    def max_bytes(self) -> int | None:
        """Most bytes that all files together, and a zip of them, may have."""

    @property
    def is_zip(self) -> bool:
        """Whether it takes a zip and nothing else."""

    def expect(self, like: str) -> list[ExpectedFile]:
        """Read from the challenge's own test set which files are to be submitted.

        Raises:
            ConfigError: There is no test set.
            ScanError: One of its files is damaged.
        """

    def misfit(self, expected: ExpectedFile, images: Images) -> str:
        """Say which shape a reconstruction would have to have; "" where the file can be made from it."""

    def write(self, expected: ExpectedFile, images: Images, path: Path) -> None:
        """Write one file of the submission from a reconstruction that fits."""

    def check(self, expected: ExpectedFile, path: Path) -> Iterator[Problem]:
        """Yield everything that is wrong with one file.

        Raises:
            ScanError: It cannot be read any further.
        """
