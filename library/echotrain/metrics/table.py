"""What every metric is: its name, its unit, in how many digits it is told, and which way is better.

Whatever shows metrics, or chooses by one, asks here, so that a further metric is an entry of ``METRICS`` and nothing besides.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from echotrain.errors import ConfigError

__all__ = ["METRICS", "MetricEntry", "Quality", "drawn", "find_metric", "in_order"]

# Metrics of one thing (a volume, say) by their names.
Quality = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class MetricEntry:
    """One metric.

    Attributes:
        title: As readers call it.
        unit: Of its values; "" for a plain number.
        is_higher_better: Which way is better.
        digits: Behind the point, in tables.
        headline_digits: Likewise, where a page begins with it.
        note_digits: Likewise, below a picture and in the cells of a heat map.
        near: What comes within this of the best is told as near to it; None where no paper says how near that would be.
        is_drawn: Whether charts show it where others are there; a metric that follows from another one is in tables alone.
    """

    title: str
    unit: str = ""
    is_higher_better: bool
    digits: int
    headline_digits: int
    note_digits: int
    near: float | None = None
    is_drawn: bool = True

    @property
    def heading(self) -> str:
        """Title and unit: ``PSNR (dB)``."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def goal(self) -> Literal["minimize", "maximize"]:
        """What a search does with it."""
        return "maximize" if self.is_higher_better else "minimize"

    @property
    def sign(self) -> int:
        """What a value is multiplied by so that more is better."""
        return 1 if self.is_higher_better else -1

    def with_unit(self, number: str) -> str:
        """Return a number, written already, with its unit behind it."""
        return f"{number} {self.unit}" if self.unit else number


# In the order of showing.
METRICS: dict[str, MetricEntry] = {
    # MosaicMRI's Figure 3 outlines what comes within 1 dB of the best.
    "psnr": MetricEntry(title="PSNR", unit="dB", is_higher_better=True, digits=2, headline_digits=2, note_digits=1, near=1.0),
    "ssim": MetricEntry(title="SSIM", is_higher_better=True, digits=4, headline_digits=3, note_digits=3),
    # Of one target it is PSNR in another unit.
    "nmse": MetricEntry(title="NMSE", is_higher_better=False, digits=4, headline_digits=4, note_digits=4, is_drawn=False),
    "masked_loss": MetricEntry(title="masked loss", is_higher_better=False, digits=4, headline_digits=4, note_digits=4),
    "accuracy": MetricEntry(title="accuracy", is_higher_better=True, digits=3, headline_digits=3, note_digits=3),
}


def find_metric(name: str) -> MetricEntry:
    """Return what a metric is; that of a further split, ``split/metric``, is what the metric is.

    Raises:
        ConfigError: No entry has this name, so that nobody knows which way is better; the nearest is named.
    """
    known = name.rpartition("/")[2]
    if known not in METRICS:
        (nearest,) = difflib.get_close_matches(known, METRICS, n=1, cutoff=0.0)
        remedy = f"Did you mean {nearest!r}? Else give it an entry in metrics/table.py."
        raise ConfigError(f"metric {name!r}", f"is none of {', '.join(METRICS)}", remedy)
    return METRICS[known]


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return metrics in the order of showing, each once.

    Raises:
        ConfigError: As ``find_metric``.
    """
    wanted = set(names)
    for name in sorted(wanted):
        find_metric(name)
    return tuple(name for name in METRICS if name in wanted)


def drawn(names: Sequence[str]) -> tuple[str, ...]:
    """Return those of some metrics that charts show: all of them where none is to be drawn."""
    return tuple(name for name in names if METRICS[name].is_drawn) or tuple(names)
