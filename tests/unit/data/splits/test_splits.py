"""Splits by patient: balanced, covering, deterministic, and stable when data are added."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.data.catalog.leaks import check_no_leakage
from echotrain.data.splits.made import PatientSummary, SplitConfig, assign_splits, summarize_patients
from echotrain.errors import ConfigError, LeakageError

RATIOS = {"train": 0.70, "val": 0.15, "test": 0.15}


def people(count: int, seed: int = 0) -> list[PatientSummary]:
    rng = np.random.default_rng(seed)
    return [
        PatientSummary(
            patient=f"p{i:04d}",
            slices={("d", str(rng.choice(["knee", "brain", "spine"])), str(rng.choice(["T1", "T2"]))): int(rng.integers(5, 40))},
        )
        for i in range(count)
    ]


def shares(patients: list[PatientSummary], splits: dict[str, str]) -> dict[str, float]:
    total = sum(sum(patient.slices.values()) for patient in patients)
    return {
        split: sum(sum(p.slices.values()) for p in patients if splits[p.patient] == split) / total for split in ("train", "val", "test")
    }


def test_slices_are_shared_70_15_15_and_every_split_has_every_anatomy() -> None:
    patients = people(200)
    splits = assign_splits(patients)
    found = shares(patients, splits)
    assert found["train"] == pytest.approx(0.70, abs=0.01)
    assert found["val"] == pytest.approx(0.15, abs=0.01)
    for split in ("train", "val", "test"):
        assert {a for p in patients if splits[p.patient] == split for a in p.anatomies} == {"knee", "brain", "spine"}


def test_each_category_is_shared_about_alike() -> None:
    patients = people(400)
    splits = assign_splits(patients)
    for category in {c for p in patients for c in p.slices}:
        own = [PatientSummary(patient=p.patient, slices={category: p.slices[category]}) for p in patients if category in p.slices]
        assert shares(own, splits)["train"] == pytest.approx(0.70, abs=0.06)


def test_slices_are_shared_where_nothing_but_their_balance_counts() -> None:
    patients = people(200)
    found = shares(patients, assign_splits(patients, SplitConfig(coverage_weight=0, absence_weight=0)))
    assert [found[split] for split in RATIOS] == pytest.approx(list(RATIOS.values()), abs=0.01)


def objective(patients: list[PatientSummary], splits: dict[str, str]) -> float:
    """The default objective, as ``SplitConfig`` describes it, of patients of whom every anatomy has at least three."""
    categories = {category for patient in patients for category in patient.slices}
    total, cost = sum(sum(patient.slices.values()) for patient in patients), 0.0
    for weight, chosen in [(1.0, categories)] + [(0.5, {category}) for category in categories]:
        own = [PatientSummary(patient=p.patient, slices={c: n for c, n in p.slices.items() if c in chosen}) for p in patients]
        part = sum(sum(patient.slices.values()) for patient in own)
        cost += weight * part / total * sum(abs(share - RATIOS[split]) for split, share in shares(own, splits).items())
    there = {(splits[patient.patient], anatomy) for patient in patients for anatomy in patient.anatomies}
    return cost + sum((split, anatomy) not in there for split in RATIOS for _, anatomy, _ in {(0, c[1], 0) for c in categories})


@pytest.mark.parametrize(("count", "seed"), [(20, 3), (30, 6), (25, 0), (40, 1)])
def test_no_single_patient_would_be_better_off_in_another_split(count: int, seed: int) -> None:
    patients = people(count, seed)
    splits = assign_splits(patients)
    cost = objective(patients, splits)
    assert all(objective(patients, {**splits, p.patient: split}) >= cost - 1e-9 for p in patients for split in RATIOS)


def test_the_seed_decides_between_patients_who_are_alike_and_nothing_else() -> None:
    patients = [PatientSummary(patient=f"p{i:02d}", slices={("d", "knee", "PD"): 20}) for i in range(30)]
    found = [assign_splits(patients, SplitConfig(seed=seed)) for seed in range(3)]
    assert len({tuple(sorted(splits.items())) for splits in found}) == 3
    assert len({tuple(sorted(splits.values())) for splits in found}) == 1
    unlike = [PatientSummary(patient=f"p{i:02d}", slices={("d", "knee", "PD"): 10 + i}) for i in range(30)]
    assert len({tuple(assign_splits(unlike, SplitConfig(seed=seed)).items()) for seed in range(3)}) == 1


@given(st.integers(1, 30), st.integers(0, 3))
def test_splits_do_not_depend_on_the_order_of_the_patients(count: int, seed: int) -> None:
    patients = people(count, seed)
    assert assign_splits(patients) == assign_splits(patients[::-1])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_first_patients_go_to_training_and_then_to_validation(count: int) -> None:
    patients = [PatientSummary(patient=f"p{i}", slices={("d", "knee", "PD"): 20}) for i in range(count)]
    used = set(assign_splits(patients).values())
    assert used >= ({"train"} if count == 1 else {"train", "val"} if count == 2 else {"train", "val", "test"})


def test_known_patients_keep_their_split_when_others_come() -> None:
    first = people(30)
    before = assign_splits(first)
    after = assign_splits(people(90), existing=before)
    assert {name: after[name] for name in before} == before
    assert shares(people(90), after)["train"] == pytest.approx(0.70, abs=0.03)


def test_a_patient_with_scans_of_two_anatomies_is_not_divided() -> None:
    rows = [
        {"patient": f"p{i % 7}", "dataset": "d", "anatomy": ["knee", "brain"][i % 2], "contrast": "T1", "volume": f"v{i}", "slice": 0}
        for i in range(70)
    ]
    table = pa.Table.from_pylist(rows)
    splits = assign_splits(summarize_patients(table))
    assert set(splits) == {f"p{i}" for i in range(7)}
    check_no_leakage(table.append_column("split", pa.array([splits[row["patient"]] for row in rows])))


def test_a_patient_in_two_splits_is_found_and_named() -> None:
    table = pa.table({"patient": ["p1", "p2", "p2", "p3"], "split": ["train", "train", "test", "val"]})
    with pytest.raises(LeakageError, match=r"patient 'p2'.*test and train"):
        check_no_leakage(table)


def test_a_patient_summarised_twice_is_refused() -> None:
    with pytest.raises(LeakageError, match="p0000"):
        assign_splits([*people(3), people(1)[0]])


def test_ratios_must_be_shares() -> None:
    with pytest.raises(ConfigError, match="sum to 1"):
        SplitConfig(ratios=(0.7, 0.2, 0.2))
