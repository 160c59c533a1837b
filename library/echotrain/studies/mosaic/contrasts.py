"""Transfer between protocols (5.4, Figure 4)."""

from dataclasses import dataclass
from typing import ClassVar

from echotrain.studies.mosaic.anatomy_groups import contrast_family
from echotrain.studies.mosaic.transfer import ByColumn

__all__ = ["Contrasts"]


@dataclass(frozen=True, kw_only=True)
class Contrasts(ByColumn):
    """Models of each family of contrasts (5.4)."""

    name: ClassVar[str] = "contrasts"
    column: ClassVar[str] = "contrast"
    title: ClassVar[str] = "Transfer between protocols"
    text: ClassVar[str] = (
        "A model of each contrast and one of all of them, tested on every contrast; those with most training volumes come first "
        "(MosaicMRI, 5.4 and Figure 4)."
    )

    def group(self, value: str) -> str:
        """Return the family of a contrast."""
        return contrast_family(value)
