"""What every reader of images yields: a volume of magnitude slices without k-space, read slice by slice."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from echotrain.data.formats.deidentify import Identity
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.protocol import Protocol as ScanProtocol
from echotrain.errors import ScanError

__all__ = ["ImageHeader", "ImageVolume", "OpenedImages", "Unusable", "check_size"]

# A row of a catalog has about a kilobyte.
_MOST_IMAGES = 100_000


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """The typed header of one volume of images, de-identified; unknown text is ``""``, an unknown number ``0`` or None.

    Attributes:
        volume: Id of the volume, unique in its dataset.
        patient: Pseudonym of the patient; splits are made by it.
        protocol: What the protocol's words say.
        vendor, field_strength, center, sex, weight_bin_kg: As ``VolumeHeader`` has them.
        num_slices: Of the volume, at every time.
        num_frames: Times that each slice was measured at; None where it was measured once.
        height, width: Matrix of an image.
        spacing_mm: Between rows, between columns, and between slices.
    """

    volume: str
    patient: str
    protocol: ScanProtocol = field(default_factory=ScanProtocol)
    vendor: str = ""
    field_strength: float = 0.0
    center: str = ""
    sex: str | None = None
    weight_bin_kg: int | None = None
    num_slices: int
    num_frames: int | None = None
    height: int
    width: int
    spacing_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


class ImageVolume(Protocol):
    """One volume of images.

    Attributes:
        header: De-identified.
        identity: Whom the file's header names; it leaves the reader for pseudonyms and key files alone.
        is_by_place: Whether a file's name or folder said whose it is, and not its header.
        findings: What of it was taken, corrected or taken on trust, a phrase each, free of names and identifiers.
        part: Tells it from other volumes of its source; "" where that has no other.
    """

    @property
    def header(self) -> ImageHeader:
        """De-identified header."""

    @property
    def identity(self) -> Identity:
        """Whom the file's header names."""

    @property
    def is_by_place(self) -> bool:
        """Whether a file's name or folder said whose it is."""

    @property
    def findings(self) -> tuple[str, ...]:
        """What was taken, corrected or taken on trust."""

    @property
    def part(self) -> str:
        """Tells it from other volumes of its source."""

    def read_image(self, index: int, frame: int) -> NDArray[np.float32]:
        """Return one image, float32 (height, width), not necessarily finite; ``ScanError`` where the file is damaged."""


class Unusable(NamedTuple):
    """Something of a source that is no volume.

    Attributes:
        part: Tells it from the source's other parts.
        reason: Why, free of names and identifiers.
    """

    part: str
    reason: str


class OpenedImages(NamedTuple):
    """All that a source holds."""

    volumes: list[ImageVolume]
    unusable: list[Unusable]


def check_size(name: str, shape: tuple[int, int, int, int], itemsize: int, limits: ReadLimits) -> None:
    """Refuse a volume that is empty or larger than the limits, before anything of it is read.

    Args:
        name: Of the file, for messages.
        shape: (frame, slice, height, width), as a header declares it.
        itemsize: Bytes of a value in the file; in memory it takes four.
        limits: Memory limits.

    Raises:
        ScanError: It is.
    """
    if min(shape) < 1:
        raise ScanError(f"{name}: images of shape {shape}", "must have a positive size along each axis", "Export the images again.")
    limits.check_array(name, shape, max(itemsize, np.dtype(np.float32).itemsize), slice_axes=2)
    if math.prod(shape[:2]) > _MOST_IMAGES:
        raise ScanError(f"{name}: {math.prod(shape[:2])} images", f"at most {_MOST_IMAGES} of a volume are read", "Export it in parts.")
