"""Examples of what a catalog holds, as MosaicMRI's Figure 1 (right): one slice of each anatomy group and contrast."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from skimage.transform import resize

from echotrain.data.catalog.rows import Catalog, SliceRow
from echotrain.data.samples.reading import SliceReader
from echotrain.evaluation.figures import LIGHT, Chart
from echotrain.seeding import derive_seed
from echotrain.storage.ranged import RangeReader
from echotrain.studies.mosaic.anatomy_groups import CONTRAST_FAMILIES, anatomy_group, contrast_family

__all__ = ["Montage", "Tile", "choose_slices", "montage_chart", "read_montage"]

_MOST_GROUPS, _MOST_FAMILIES = 12, 8
_UNKNOWN = "unknown"
# A page holds every tile twice, for light and for dark ground.
_MOST_PIXELS = 192
_INCHES = 1.35
_COLUMNS = ("dataset", "volume", "slice", "anatomy", "contrast", "orientation", "target_nbytes")


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """One slice of the montage.

    Attributes:
        group, family: Anatomy group and contrast family that it stands for.
        row: Its row of the catalog.
        image: Its target, (y, x).
    """

    group: str
    family: str
    row: SliceRow
    image: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Montage:
    """The examples of a catalog.

    Attributes:
        tiles: Group by group, the most frequent first.
        num_left_out: Further groups and families, for which there is no room.
    """

    tiles: tuple[Tile, ...]
    num_left_out: int = 0

    @property
    def caption(self) -> str:
        """How to read it."""
        more = f" {self.num_left_out} rarer groups or contrasts are left out." if self.num_left_out else ""
        return (
            "The middle slice of one volume each, chosen by a hash of its name and for orientations that differ along a row; white at the "
            f"slice’s 99.8th percentile, matrix, coils and slices of the volume below.{more}"
        )


def choose_slices(table: pa.Table) -> tuple[dict[tuple[str, str], int], int]:
    """Choose a slice of each anatomy group and contrast family: before any is seen, so that nobody picks the prettiest.

    Args:
        table: All rows of a catalog; volumes without a target are passed over.

    Returns:
        Position in the table by group and family, row by row, and how many groups and families there was no room for.
    """
    volumes: dict[tuple[str, str], list[tuple[int, int]]] = {}
    kinds: dict[tuple[str, str], tuple[str, str, str]] = {}
    for position, row in enumerate(table.select(list(_COLUMNS)).to_pylist()):
        if row["target_nbytes"]:
            key = row["dataset"], row["volume"]
            volumes.setdefault(key, []).append((row["slice"], position))
            kinds[key] = anatomy_group(row["anatomy"]) or _UNKNOWN, contrast_family(row["contrast"]) or _UNKNOWN, row["orientation"]
    groups = _by_frequency(Counter(kind[0] for kind in kinds.values()))
    families = _by_frequency(Counter(kind[1] for kind in kinds.values()))
    shown = sorted(families[:_MOST_FAMILIES], key=_family_order)
    chosen: dict[tuple[str, str], int] = {}
    for group in groups[:_MOST_GROUPS]:
        seen: Counter[str] = Counter()
        for family in shown:
            fitting = [key for key, kind in kinds.items() if kind[:2] == (group, family)]
            if fitting:
                best = min(fitting, key=lambda key: (seen[kinds[key][2]], derive_seed(0, "montage", *key)))
                seen[kinds[best][2]] += 1
                slices = sorted(volumes[best])
                chosen[group, family] = slices[len(slices) // 2][1]
    return chosen, max(0, len(groups) - _MOST_GROUPS) + max(0, len(families) - _MOST_FAMILIES)


def read_montage(catalog: Catalog) -> Montage:
    """Read the targets of the chosen slices.

    Raises:
        PayloadError, StorageError: As ``SliceReader.read_target``.
    """
    chosen, num_left_out = choose_slices(catalog.table)
    reader = SliceReader(catalog.root, RangeReader())
    tiles = []
    for (group, family), row in zip(chosen, catalog.rows(np.array(list(chosen.values()), np.int64)), strict=True):
        image = np.empty((row.recon_height, row.recon_width), np.float32)
        reader.read_target(row, image)
        tiles.append(Tile(group=group, family=family, row=row, image=image))
    return Montage(tiles=tuple(tiles), num_left_out=num_left_out)


def montage_chart(tiles: Sequence[Tile]) -> Chart:
    """Draw the slices, a row per anatomy group and a column per contrast family, in the shape of their field of view on a black square."""
    groups = list(dict.fromkeys(tile.group for tile in tiles))
    families = sorted({tile.family for tile in tiles}, key=_family_order)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=(0.9 + _INCHES * len(families), 0.4 + _INCHES * len(groups)), layout=layout)
    panels = figure.subplots(len(groups), len(families), squeeze=False)
    places = {(tile.group, tile.family): tile for tile in tiles}
    for row, group in enumerate(groups):
        for column, family in enumerate(families):
            axes = panels[row, column]
            axes.set(xticks=[], yticks=[], facecolor="none", box_aspect=1)
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(group, fontsize=8.5, color=LIGHT.ink, parse_math=False)
            if row == 0:
                axes.set_title(family, fontsize=9, color=LIGHT.ink, parse_math=False)
            if (group, family) in places:
                _draw(axes, places[group, family])
    return Chart.of(figure)


def _draw(axes: Any, tile: Tile) -> None:
    row = tile.row
    white = float(np.percentile(tile.image, 99.8)) or 1.0
    shrink = max(1.0, max(tile.image.shape) / _MOST_PIXELS)
    small = resize(tile.image / white, [round(size / shrink) for size in tile.image.shape], anti_aliasing=shrink > 1)
    pixel = 1.0
    if row.fov_readout_mm and row.fov_phase_mm:
        pixel = (row.fov_readout_mm / small.shape[0]) / (row.fov_phase_mm / small.shape[1])
    axes.set(facecolor="black", adjustable="datalim")
    axes.imshow(np.clip(small, 0, 1), cmap="gray", vmin=0, vmax=1, aspect=pixel, interpolation="none")
    text: Mapping[str, Any] = {
        "transform": axes.transAxes,
        "fontsize": 5.5,
        "color": "white",
        "path_effects": [withStroke(linewidth=1.4, foreground="black")],
        "parse_math": False,
    }
    axes.text(0.03, 0.97, row.orientation, va="top", **text)
    axes.text(0.03, 0.03, f"{row.recon_height} × {row.recon_width}\n{row.coils} coils · {row.num_slices} slices", va="bottom", **text)


def _by_frequency(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda name: (-counts[name], name))


def _family_order(family: str) -> tuple[int, str]:
    """Return where a family stands: those of the paper's Figure 5 first, in its order."""
    return (CONTRAST_FAMILIES.index(family) if family in CONTRAST_FAMILIES else len(CONTRAST_FAMILIES), family)
