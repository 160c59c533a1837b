"""Dataset shift (5.5, Table 4)."""

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from echotrain.data.catalog.selection import Where
from echotrain.studies.mosaic.transfer import Transfer, several_parts
from echotrain.studies.parts import part_name, require_volumes
from echotrain.studies.study import Study

__all__ = ["Shift"]


@dataclass(frozen=True, kw_only=True)
class Shift(Transfer):
    """Models of one data set or a part of it (5.5).

    Attributes:
        shift: Parts of the data; empty takes each dataset of the catalog.
    """

    name: ClassVar[str] = "shift"
    title: ClassVar[str] = "Dataset shift"
    text: ClassVar[str] = "Models of one data set or a part of it, tested on the others (MosaicMRI, 5.5 and Table 4)."

    shift: tuple[Where, ...] = ()

    def parts(self, study: Study, table: pa.Table) -> dict[str, Where]:
        """Return the parts that were named, each with volumes in every split."""
        listed = self.shift or tuple(Where(dataset=(name,)) for name in sorted(set(table["dataset"].to_pylist())))
        for part in listed:
            require_volumes(table, part, study)
        return several_parts(self.name, "of parts of the data", {part_name(part): part for part in listed}, "")
