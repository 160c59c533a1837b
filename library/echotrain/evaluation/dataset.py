"""What a catalog holds, as the tables of MosaicMRI (arXiv:2604.11762): its splits (Table 2), its anatomies, its geometry (Table 6)."""

import pandas as pd
import pyarrow as pa

from echotrain.data.anatomy_groups import anatomy_group, contrast_family
from echotrain.data.catalog import SPLITS
from echotrain.evaluation.tables import Section, Table

__all__ = ["anatomy_table", "geometry_table", "split_table", "volumes_of"]

_UNKNOWN = "unknown"


def volumes_of(table: pa.Table) -> pd.DataFrame:
    """Return a row per volume of a catalog, with its ``group``, ``family`` and number of ``slices``, the most frequent group first."""
    columns = [
        "dataset", "volume", "patient", "split", "anatomy", "contrast", "orientation", "coils", "recon_height", "recon_width",
        "fov_readout_mm", "fov_phase_mm",
    ]  # fmt: skip
    frame = table.select(columns).to_pandas()
    grouped = frame.groupby(["dataset", "volume"], sort=True)
    volumes = grouped.first().reset_index()
    volumes["slices"] = grouped.size().to_numpy()
    volumes["group"] = volumes["anatomy"].map(anatomy_group).replace("", _UNKNOWN)
    volumes["family"] = volumes["contrast"].map(contrast_family).replace("", _UNKNOWN)
    volumes["orientation"] = volumes["orientation"].replace("", _UNKNOWN)
    order = volumes["group"].value_counts()
    volumes["rank"] = volumes["group"].map(lambda name: (-order[name], name))
    ranked: pd.DataFrame = volumes.sort_values(by="rank", kind="stable", ignore_index=True).drop(columns="rank")
    return ranked


def split_table(volumes: pd.DataFrame) -> Table:
    """Return patients, volumes and slices of each split (Table 2)."""
    parts = [(split, volumes[volumes["split"] == split]) for split in SPLITS]
    rows = [_counts(name, part, volumes) for name, part in [*parts, ("all", volumes)] if len(part)]
    return Table(columns=("Split", "Patients", "Volumes", "Slices", "Share of slices"), sections=(Section(rows=tuple(rows)),))


def anatomy_table(volumes: pd.DataFrame) -> Table:
    """Return what each anatomy group is made of (Figures 1 and 5 in numbers)."""
    rows = []
    for name, part in volumes.groupby("group", sort=False):
        coils, slices = part["coils"], part["slices"]
        rows.append(
            (
                str(name),
                str(len(part)),
                f"{len(part) / len(volumes):.0%}",
                str(part["patient"].nunique()),
                str(slices.sum()),
                _range(coils),
                _range(slices),
                ", ".join(sorted(set(part["family"]))),
                ", ".join(sorted(set(part["orientation"]))),
            )
        )
    columns = ("Anatomy", "Volumes", "Share", "Patients", "Slices", "Coils\nmedian (range)", "Slices per volume\nmedian (range)")
    return Table(columns=(*columns, "Contrasts", "Orientations"), sections=(Section(rows=tuple(rows)),))


def geometry_table(volumes: pd.DataFrame) -> Table:
    """Return mean in-plane field of view and resolution by anatomy (Table 6); x is the readout, y the phase-encode direction.

    Volumes whose header does not tell their field of view are left out.
    """
    known = volumes.dropna(subset=["fov_readout_mm", "fov_phase_mm"])
    rows = []
    for name, part in known.groupby("group", sort=False):
        fov = part["fov_readout_mm"], part["fov_phase_mm"]
        resolution = fov[0] / part["recon_height"], fov[1] / part["recon_width"]
        rows.append((str(name), str(len(part)), *(f"{side.mean():.1f}" for side in fov), *(f"{side.mean():.3f}" for side in resolution)))
    return Table(columns=("Anatomy", "n", "FOV x\nmm", "FOV y\nmm", "Res x\nmm", "Res y\nmm"), sections=(Section(rows=tuple(rows)),))


def _counts(name: str, part: pd.DataFrame, whole: pd.DataFrame) -> tuple[str, ...]:
    share = part["slices"].sum() / whole["slices"].sum()
    return name, str(part["patient"].nunique()), str(len(part)), str(part["slices"].sum()), f"{share:.1%}"


def _range(values: "pd.Series[int]") -> str:
    return f"{values.median():g} ({values.min()}–{values.max()})"
