"""Numbers with units, as a person would write them."""

__all__ = ["human_bytes"]

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def human_bytes(size: int) -> str:
    """Write a number of bytes as a person would: ``1.1 TB``."""
    value = float(size)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
