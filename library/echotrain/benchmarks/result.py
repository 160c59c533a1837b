"""The one line every benchmark ends in."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BenchResult"]


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """Both sides of a comparison, measured in one run.

    Attributes:
        name: The benchmark.
        ours, baseline: The same quantity on each side, in ``unit``.
        ratio: The figure that the target speaks of; ``detail`` says what it divides where that is not ours / baseline.
        detail: Everything else that was seen: conditions, further ratios, sizes.
    """

    name: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    detail: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return one JSON line; the entries of ``detail`` stay nested."""
        return json.dumps(dataclasses.asdict(self))
