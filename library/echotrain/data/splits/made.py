"""Patient-level splits that are balanced in slices and cover every category.

A patient is never divided. Each goes, largest first, to the split where the objective grows least; then single patients
are moved for as long as that lowers it. The outcome depends on the patients alone: not on the order of files, and not
on chance.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from echotrain.data.catalog.rows import SPLITS
from echotrain.errors import ConfigError, LeakageError

__all__ = ["PatientSummary", "SplitConfig", "assign_splits", "summarize_patients"]


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """What a good split is.

    Attributes:
        ratios: Shares of the slices for train, val and test.
        balance_weight: Weight of the deviation of each split's slices from its share.
        coverage_weight: Weight of the same deviation within each category, a category counting by its slices.
        absence_weight: Penalty for an anatomy that a split lacks though enough patients have it.
        seed: Decides between patients who are alike.
    """

    ratios: tuple[float, float, float] = (0.70, 0.15, 0.15)
    balance_weight: float = 1.0
    coverage_weight: float = 0.5
    absence_weight: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.ratios) < 0 or abs(sum(self.ratios) - 1) > 1e-6:
            raise ConfigError(f"ratios={self.ratios}", "must be shares that sum to 1", "Use 0.70, 0.15, 0.15.")


@dataclass(frozen=True, kw_only=True)
class PatientSummary:
    """What the split sees of one patient.

    Attributes:
        patient: Pseudonym.
        slices: Slices per category, a category being (dataset, anatomy, contrast).
    """

    patient: str
    slices: Mapping[tuple[str, str, str], int] = field(default_factory=dict)

    @property
    def anatomies(self) -> frozenset[str]:
        """The patient's anatomies."""
        return frozenset(category[1] for category in self.slices)


def summarize_patients(table: pa.Table) -> list[PatientSummary]:
    """Count each patient's slices by category, from catalog rows."""
    counts = table.group_by(["patient", "dataset", "anatomy", "contrast"]).aggregate([([], "count_all")])
    found: dict[str, dict[tuple[str, str, str], int]] = defaultdict(dict)
    for row in counts.to_pylist():
        found[row["patient"]][row["dataset"], row["anatomy"], row["contrast"]] = row["count_all"]
    return [PatientSummary(patient=patient, slices=found[patient]) for patient in sorted(found)]


def assign_splits(
    patients: Sequence[PatientSummary], config: SplitConfig | None = None, existing: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Give every patient a split.

    Args:
        patients: All patients, known and new.
        config: The objective.
        existing: Splits of earlier catalogs; these patients keep theirs.

    Returns:
        Split by patient, for every patient given.

    Raises:
        LeakageError: A patient is given twice.
    """
    config = config or SplitConfig()
    existing = existing or {}
    names = [patient.patient for patient in patients]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise LeakageError(f"patient {twice!r}", "is summarised twice and could land in two splits", "Join the summaries of a patient.")
    tally = _Tally(patients, config)
    assigned = np.full(len(patients), -1)
    for index, patient in enumerate(patients):
        if patient.patient in existing:
            assigned[index] = SPLITS.index(existing[patient.patient])
            tally.add(index, int(assigned[index]), 1)

    sizes = tally.counts.sum(axis=1)
    order = sorted(np.flatnonzero(assigned < 0).tolist(), key=lambda i: (-sizes[i], _tie(config.seed, patients[i].patient)))
    for index in order:
        assigned[index] = tally.best(index)
        tally.add(index, int(assigned[index]), 1)
    _improve(tally, assigned, order)
    return {patient.patient: SPLITS[int(split)] for patient, split in zip(patients, assigned, strict=True)}


class _Tally:
    """Running sums of a partial assignment, and the objective as a function of them."""

    def __init__(self, patients: Sequence[PatientSummary], config: SplitConfig) -> None:
        categories = sorted({category for patient in patients for category in patient.slices})
        anatomies = sorted({category[1] for category in categories})
        self.counts = np.zeros((len(patients), len(categories)))
        has = np.zeros((len(patients), len(anatomies)))
        column = {category: i for i, category in enumerate(categories)}
        for i, patient in enumerate(patients):
            for category, slices in patient.slices.items():
                self.counts[i, column[category]] = slices
                has[i, anatomies.index(category[1])] = 1
        self._has = has
        self._ratios = np.array(config.ratios)
        self._config = config
        self._totals = np.maximum(self.counts.sum(axis=0), 1)
        self._slices = np.zeros((3, len(categories)))
        self._patients = np.zeros((3, len(anatomies)))
        # Train must have an anatomy first, then val, then test; no split can miss what too few patients have.
        self._required = (self._ratios[:, None] > 0) & (np.arange(3)[:, None] < has.sum(axis=0)[None, :])

    def add(self, index: int, split: int, sign: int) -> None:
        self._slices[split] += sign * self.counts[index]
        self._patients[split] += sign * self._has[index]

    def cost(self) -> float:
        """The weighted objective of what is assigned so far, relative to all there is."""
        total = self._totals.sum()
        balance = np.abs(self._slices.sum(axis=1) / total - self._ratios).sum()
        per_category = np.abs(self._slices / self._totals - self._ratios[:, None]).sum(axis=0)
        coverage = (per_category * self._totals).sum() / total
        absent = float((self._required & (self._patients == 0)).sum())
        config = self._config
        return float(config.balance_weight * balance + config.coverage_weight * coverage + config.absence_weight * absent)

    def best(self, index: int) -> int:
        """Return the split where one more patient costs least; the earlier split where two are equal."""
        costs = []
        for split in range(len(SPLITS)):
            self.add(index, split, 1)
            costs.append(self.cost())
            self.add(index, split, -1)
        return int(np.argmin(np.round(costs, 12)))


def _improve(tally: _Tally, assigned: np.ndarray, movable: Sequence[int], rounds: int = 3) -> None:
    """Move single patients while that lowers the objective; a few rounds settle it."""
    for _ in range(rounds):
        moved = False
        for index in movable:
            before = int(assigned[index])
            tally.add(index, before, -1)
            after = tally.best(index)
            tally.add(index, after, 1)
            assigned[index] = after
            moved = moved or after != before
        if not moved:
            return


def _tie(seed: int, patient: str) -> bytes:
    return hashlib.blake2b(f"{seed}\x1f{patient}".encode(), digest_size=8).digest()
