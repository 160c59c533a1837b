"""What a catalog holds, as MosaicMRI (arXiv:2604.11762) tells it: splits (Table 2), anatomies, geometry (Table 6), whom it shows (A.3)."""

import pandas as pd
import pyarrow as pa

from echotrain.data.catalog.rows import SPLITS
from echotrain.data.formats.subject import WEIGHT_BINS_KG
from echotrain.evaluation.tables import Section, Table
from echotrain.studies.mosaic.anatomy_groups import anatomy_group, contrast_family

__all__ = ["anatomy_table", "geometry_table", "split_table", "subject_caption", "subject_table", "volumes_of"]

_UNKNOWN = "unknown"
# What a header says, and what a reader is told; converters write O where nothing was told.
_SEXES = {"F": "Female", "M": "Male", "O": "Other or\nnot told"}


def volumes_of(table: pa.Table) -> pd.DataFrame:
    """Return a row per volume of a catalog, with its ``group``, ``family`` and number of ``slices``, the most frequent group first."""
    columns = [
        "dataset", "volume", "patient", "split", "anatomy", "contrast", "orientation", "coils", "recon_height", "recon_width",
        "fov_readout_mm", "fov_phase_mm", "sex", "weight_bin_kg",
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


def subject_table(volumes: pd.DataFrame) -> Table:
    """Return how many volumes show people of which sex and weight (A.3); no row where no header told either.

    The catalog holds weights in classes alone, so there is a median's class instead of a mean (``subject_caption``).
    """
    told = volumes[volumes["sex"].notna() | volumes["weight_bin_kg"].notna()]
    weights = {low: told[told["weight_bin_kg"] == low] for low in WEIGHT_BINS_KG}
    parts = [
        ("all that tell", told),
        *((_weight(low), part) for low, part in weights.items()),
        ("not told", told[told["weight_bin_kg"].isna()]),
    ]
    rows = [_subjects(name, part) for name, part in parts if len(part)]
    return Table(columns=("Weight, kg", *_SEXES.values(), "All"), sections=(Section(rows=tuple(rows)),))


def subject_caption(volumes: pd.DataFrame) -> str:
    """Say of how many volumes ``subject_table`` is, and in which class the median weight lies."""
    num_known = int(volumes["sex"].isin(["F", "M"]).sum())
    weights = volumes["weight_bin_kg"].dropna().sort_values()
    said = f"By volumes, as the paper counts. {num_known} of {len(volumes)} tell female or male, {len(weights)} a weight"
    if not len(weights):
        return f"{said}."
    low, high = (int(weights.iloc[at]) for at in ((len(weights) - 1) // 2, len(weights) // 2))
    median = _weight(low) if low == high else f"{_weight(low)} and {_weight(high)}"
    return f"{said}; the median weight is {median} kg. Weights are kept in classes alone."


def _subjects(name: str, part: pd.DataFrame) -> tuple[str, ...]:
    """Return a row of counts, and of shares among those whose sex is known."""
    known = max(1, int(part["sex"].isin(["F", "M"]).sum()))
    counts = {sex: int((part["sex"] == sex).sum()) for sex in ("F", "M")}
    shares = [f"{count} ({count / known:.1%})" if count else "0" for count in counts.values()]
    return name, *shares, str(len(part) - sum(counts.values())), str(len(part))


def _weight(low: int) -> str:
    if low == WEIGHT_BINS_KG[0]:
        return f"below {WEIGHT_BINS_KG[1]}"
    return f"{low} and more" if low == WEIGHT_BINS_KG[-1] else f"{low}–{WEIGHT_BINS_KG[WEIGHT_BINS_KG.index(low) + 1]}"


def _counts(name: str, part: pd.DataFrame, whole: pd.DataFrame) -> tuple[str, ...]:
    share = part["slices"].sum() / whole["slices"].sum()
    return name, str(part["patient"].nunique()), str(len(part)), str(part["slices"].sum()), f"{share:.1%}"


def _range(values: "pd.Series[int]") -> str:
    return f"{values.median():g} ({values.min()}–{values.max()})"
