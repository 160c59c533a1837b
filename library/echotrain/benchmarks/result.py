"""The one line every benchmark ends in."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BenchResult"]

_BESIDE_THE_RATIO = ("max_weight_difference",)


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """Both sides of a comparison, measured in one run.

    Attributes:
        name: The benchmark.
        ours, baseline: The same quantity on each side, in ``unit``.
        ratio: The figure that the target speaks of; ``detail`` says what it divides where that is not ours / baseline.
        detail: Everything else that was seen: conditions, further ratios, sizes. ``max_weight_difference`` stands beside the ratio
            as well: a fast resume that ends elsewhere is worth nothing.
    """

    name: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    detail: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return one JSON line; the entries of ``detail`` stay nested."""
        beside = {name: self.detail[name] for name in _BESIDE_THE_RATIO if name in self.detail}
        return json.dumps({**dataclasses.asdict(self), **beside})
