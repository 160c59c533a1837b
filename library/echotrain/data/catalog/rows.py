"""The catalog: one row per slice, saying where its bytes are, what they mean and whom they belong to.

The catalog is what makes everything else cheap: splits, fractions, anatomies, orders and resumes are row selections,
and no byte of an unselected slice is ever read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np
import pyarrow as pa

from echotrain.data.catalog.columns import taken
from echotrain.data.catalog.identity import SampleId
from echotrain.data.formats.header import VolumeHeader
from echotrain.errors import CatalogError

__all__ = ["IMAGE_ONLY", "KINDS", "SCHEMA", "SPLITS", "Catalog", "SliceRow", "header_columns", "rows_of", "splits_of_volumes"]

SPLITS = ("train", "val", "test")
# What a row is whose only payload is its image, the target.
IMAGE_ONLY = "image"
KINDS = ("raw", "packed", "lines", IMAGE_ONLY)

SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("volume", pa.string()),
        ("slice", pa.int32()),
        ("num_slices", pa.int32()),
        ("frame", pa.int32()),
        ("num_frames", pa.int32()),
        ("patient", pa.string()),
        ("split", pa.string()),
        ("anatomy", pa.string()),
        ("contrast", pa.string()),
        ("fat_suppressed", pa.bool_()),
        ("orientation", pa.string()),
        ("acquisition", pa.string()),
        ("modality", pa.string()),
        ("vendor", pa.string()),
        ("field_strength", pa.float32()),
        ("center", pa.string()),
        ("sex", pa.string()),
        ("weight_bin_kg", pa.int32()),
        ("coils", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("recon_height", pa.int32()),
        ("recon_width", pa.int32()),
        ("fov_readout_mm", pa.float32()),
        ("fov_phase_mm", pa.float32()),
        ("thickness_mm", pa.float32()),
        ("padding_left", pa.int32()),
        ("padding_right", pa.int32()),
        ("max_value", pa.float64()),
        ("norm", pa.float64()),
        ("kind", pa.string()),
        ("uri", pa.string()),
        ("offset", pa.int64()),
        ("nbytes", pa.int64()),
        ("dtype", pa.string()),
        ("checksum", pa.uint64()),
        ("target_uri", pa.string()),
        ("target_offset", pa.int64()),
        ("target_nbytes", pa.int64()),
        ("target_checksum", pa.uint64()),
        ("acs_lines", pa.int32()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class SliceRow:
    """One slice of the catalog, in the order of ``SCHEMA``.

    Attributes:
        dataset, volume, slice: The sample's identity, together with ``frame``.
        num_slices: Slices of the whole volume, curated ones included.
        frame, num_frames: Which of the times that the slice was measured at, and how many there are; None where it was measured once.
        split: ``train``, ``val`` or ``test``; empty before splits are made.
        modality: Kind of examination in the words of its data set (``cine_sax``, ``T1map``); None where it has none, and in catalogs
            prepared before there was such a column.
        sex: One of ``formats.subject.SEXES``; None where the header does not say, and in catalogs prepared before there was such a column.
        weight_bin_kg: Lower end of the weight's class, one of ``formats.subject.WEIGHT_BINS_KG``; None likewise. No weight itself is kept.
        fov_readout_mm, fov_phase_mm, thickness_mm: Of the reconstructed image; None where the header does not say, and in catalogs
            that were prepared before there were such columns.
        max_value, norm: Of the target volume, all its frames together.
        kind: ``raw``: bytes of a scanner file, untouched; ``packed`` and ``lines``: see ``data.payloads.slices``. ``image``: there is no
            k-space, the target is all there is; then ``coils`` and ``nbytes`` are 0, ``uri`` is empty, ``height`` and ``width`` are the
            image's, and ``dtype`` says nothing.
        uri, offset, nbytes: Where the k-space lies; a relative URI is a key below the catalog's root.
        dtype: ``complex64`` or ``float16`` (pairs of halves with a scale per coil).
        checksum: xxh3_64 of those bytes (for ``lines``: of the payload's head, which holds the sums of the groups). None
            where a scanner file was indexed without being read.
        target_uri, target_offset, target_nbytes, target_checksum: The target image, float32; 0 bytes where there is none.
        acs_lines: Central lines that the ``lines`` layout holds twice.
    """

    dataset: str
    volume: str
    slice: int
    num_slices: int
    frame: int | None = None
    num_frames: int | None = None
    patient: str
    split: str = ""
    anatomy: str = ""
    contrast: str = ""
    fat_suppressed: bool | None = None
    orientation: str = ""
    acquisition: str = ""
    modality: str | None = None
    vendor: str = ""
    field_strength: float = 0.0
    center: str = ""
    sex: str | None = None
    weight_bin_kg: int | None = None
    coils: int
    height: int
    width: int
    recon_height: int
    recon_width: int
    fov_readout_mm: float | None = None
    fov_phase_mm: float | None = None
    thickness_mm: float | None = None
    padding_left: int = 0
    padding_right: int
    max_value: float = 0.0
    norm: float = 0.0
    kind: str
    uri: str
    offset: int
    nbytes: int
    dtype: str = "complex64"
    checksum: int | None = None
    target_uri: str = ""
    target_offset: int = 0
    target_nbytes: int = 0
    target_checksum: int | None = None
    acs_lines: int = 0

    @property
    def id(self) -> SampleId:
        """The sample's identity."""
        return SampleId(self.dataset, self.volume, self.slice, self.frame)


@dataclass(frozen=True)
class Catalog:
    """A loaded catalog.

    Attributes:
        table: One row per slice, columns as ``SCHEMA``.
        root: URI that relative payload URIs are below.
        version: The committed version; 0 before a commit.
        manifest: What the committer wrote beside it.
    """

    table: pa.Table
    root: str = ""
    version: int = 0
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def checksum(self) -> int:
        """Of the rows as they were committed; 0 before a commit."""
        return int(self.manifest.get("checksum", 0))

    @classmethod
    def from_rows(cls, rows: Iterable[SliceRow], root: str = "") -> Self:
        """Build an uncommitted catalog from rows."""
        return cls(pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA), root)

    def rows(self, indices: np.ndarray | None = None) -> list[SliceRow]:
        """Return rows as objects: those of the indices, or all."""
        return rows_of(self.table if indices is None else taken(self.table, indices))


def rows_of(table: pa.Table | pa.RecordBatch) -> list[SliceRow]:
    """Return the rows of an Arrow table that has at least the catalog's columns."""
    names = [f.name for f in fields(SliceRow)]
    missing = [name for name in names if name not in table.schema.names]
    if missing:
        raise CatalogError(f"columns {missing}", "are missing from the catalog", "Prepare the data again with this version of echotrain.")
    return [SliceRow(**row) for row in table.select(names).to_pylist()]


def header_columns(header: VolumeHeader) -> dict[str, Any]:
    """Return the columns of a row that its volume's header decides; ``slice``, ``frame`` and the payload's are the caller's."""
    readout, phase, thickness = (size or None for size in header.fov_mm)
    return {
        **{name: getattr(header, name) for name in _HEADER_COLUMNS},
        "fov_readout_mm": readout,
        "fov_phase_mm": phase,
        "thickness_mm": thickness,
        "coils": header.num_coils,
        "modality": header.modality or None,
        "frame": None,
    }


def splits_of_volumes(table: pa.Table) -> dict[tuple[str, str], str]:
    """Return the split of every volume (dataset, volume) of a catalog's rows."""
    columns = ["dataset", "volume", "split"]
    rows = table.select(columns).group_by(columns).aggregate([]).to_pylist()
    return {(row["dataset"], row["volume"]): row["split"] for row in rows}


_HEADER_COLUMNS = (
    "dataset", "volume", "num_slices", "num_frames", "patient", "anatomy", "contrast", "fat_suppressed", "orientation", "acquisition",
    "vendor", "field_strength", "center", "sex", "weight_bin_kg", "height", "width", "recon_height", "recon_width", "padding_left",
    "padding_right", "max_value", "norm",
)  # fmt: skip
