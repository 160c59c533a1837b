"""Readers of scanner files: each yields a ``Volume`` with the same typed, de-identified header."""

from echotrain.data.formats.checks import ExaminedVolume, measured_range
from echotrain.data.formats.deidentify import Deidentifier
from echotrain.data.formats.limits import ReadLimits
from echotrain.data.formats.open import open_volume
from echotrain.data.formats.volume import ByteRange, Volume

__all__ = ["ByteRange", "Deidentifier", "ExaminedVolume", "ReadLimits", "Volume", "measured_range", "open_volume"]
