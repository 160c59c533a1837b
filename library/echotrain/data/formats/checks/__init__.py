"""What a scan claims, held against what its samples say; every reader's volume passes through here."""

from echotrain.data.formats.checks.examined import ExaminedVolume, examine, measured_range

__all__ = ["ExaminedVolume", "examine", "measured_range"]
