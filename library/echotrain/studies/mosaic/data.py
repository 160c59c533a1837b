"""The data: what the catalog holds (Tables 2 and 6, Figures 1 and 5, A.3)."""

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from echotrain.evaluation.study_page import Exhibit, StudySection
from echotrain.evaluation.tables import Table
from echotrain.studies.mosaic.composition import anatomy_table, geometry_table, split_table, subject_caption, subject_table, volumes_of
from echotrain.studies.mosaic.composition_figures import composition_chart, diversity_chart
from echotrain.studies.mosaic.montage import Montage, montage_chart, read_montage
from echotrain.studies.section import Findings, Section

__all__ = ["Dataset", "dataset_section"]


@dataclass(frozen=True, kw_only=True)
class Dataset(Section):
    """What the catalog holds; nothing is trained for it."""

    name: ClassVar[str] = "dataset"

    def render(self, findings: Findings) -> StudySection:
        """Show the catalog in tables, figures and examples."""
        return dataset_section(findings.catalog.table, read_montage(findings.catalog))


def dataset_section(table: pa.Table, montage: Montage | None = None) -> StudySection:
    """Return what the catalog holds (Tables 2 and 6, Figures 1 and 5, A.3).

    Args:
        table: All rows of the catalog.
        montage: Examples of it; None shows none.
    """
    volumes = volumes_of(table)
    exhibits = [
        Exhibit(name="volumes", title="Volumes by anatomy group", content=composition_chart(volumes), caption="By split."),
        Exhibit(name="splits", title="Splits", content=split_table(volumes), caption="No patient is in two of them."),
        Exhibit(
            name="diversity",
            title="Diversity",
            content=diversity_chart(volumes),
            caption="Boxes span the quartiles; the area of a dot is the share of the group’s volumes.",
        ),
        Exhibit(name="anatomies", title="Anatomy groups", content=anatomy_table(volumes), caption="Coils and slices: median (least–most)."),
        Exhibit(
            name="geometry",
            title="Geometry",
            content=geometry_table(volumes),
            caption="Mean in-plane field of view and resolution; x is the readout, y the phase-encode direction.",
        ),
        Exhibit(name="subjects", title="Sex and weight", content=subject_table(volumes), caption=subject_caption(volumes)),
    ]
    if montage is not None and montage.tiles:
        exhibits.insert(1, Exhibit(name="montage", title="Examples", content=montage_chart(montage.tiles), caption=montage.caption))
    text = "What the catalog holds, by the headers of its scans (MosaicMRI, Tables 2 and 6, Figures 1 and 5, and A.3)."
    kept = tuple(exhibit for exhibit in exhibits if not isinstance(exhibit.content, Table) or any(s.rows for s in exhibit.content.sections))
    return StudySection(name="dataset", title="The data", text=text, exhibits=kept)
