"""Transfer between anatomies (5.3, Figure 3)."""

from dataclasses import dataclass
from typing import ClassVar

from echotrain.studies.mosaic.transfer import ByColumn

__all__ = ["Anatomies"]


@dataclass(frozen=True, kw_only=True)
class Anatomies(ByColumn):
    """Models of each anatomy (5.3)."""

    name: ClassVar[str] = "anatomies"
    column: ClassVar[str] = "anatomy"
    title: ClassVar[str] = "Transfer between anatomies"
    text: ClassVar[str] = (
        "A model of each anatomy and one of all of them, tested on every anatomy; those with most training volumes come first "
        "(MosaicMRI, 5.3 and Figure 3)."
    )
