"""Balanced sampling."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.data.plan.balance import BalanceConfig, balance_weights
from echotrain.data.plan.order import epoch_order
from echotrain.errors import ConfigError

CENTERS = ["a"] * 60 + ["b"] * 12 + ["c"] * 3 + [None] * 5
VENDORS = (["x", "y", "x"] * 27)[:80]
ROWS = pa.table({"center": CENTERS, "vendor": VENDORS, "modality": (["cine", "map"] * 40)[:80]})
EVERY = np.arange(len(CENTERS))


def shares(weights, names):
    total = weights.sum()
    return {name: weights[[each == name for each in names]].sum() / total for name in set(names)}


def test_every_group_of_a_category_gets_the_same_share():
    weights = balance_weights(ROWS, EVERY, BalanceConfig(by=(("center",),)))
    assert shares(weights, CENTERS) == pytest.approx(dict.fromkeys(("a", "b", "c", None), 0.25))
    order = epoch_order(len(CENTERS), 3, 1, weights)
    assert sorted(np.bincount([["a", "b", "c", None].index(CENTERS[row]) for row in order])) == [20] * 4


def test_groups_may_be_of_several_columns():
    weights = balance_weights(ROWS, EVERY, BalanceConfig(by=(("vendor", "modality"),)))
    pairs = list(zip(VENDORS, ROWS["modality"].to_pylist(), strict=True))
    assert shares(weights, pairs) == pytest.approx(dict.fromkeys(set(pairs), 0.25))


def test_categories_are_multiplied_as_the_equation_has_it():
    strength, size = 0.7, len(CENTERS)
    weights = balance_weights(ROWS, EVERY, BalanceConfig(by=(("center",), ("vendor",)), strength=strength))
    for row in (0, 1, 60, 74, 79):
        expected = 1.0
        for column in (CENTERS, VENDORS):
            count = column.count(column[row])
            expected *= 1 + strength * (size / (len(set(column)) * count) - 1)
        assert weights[row] == pytest.approx(expected)


@given(strength=st.floats(0, 1), least=st.floats(0, 1), most=st.floats(1, 9))
def test_weights_stay_within_their_bounds(strength, least, most):
    weights = balance_weights(ROWS, EVERY, BalanceConfig(by=(("center",),), strength=strength, least=least, most=most))
    assert least <= weights.min()
    assert weights.max() <= most
    if strength == 0:
        assert (weights == 1).all()


def test_nothing_is_balanced_unless_it_is_asked_for():
    assert balance_weights(ROWS, EVERY, BalanceConfig()) is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"by": ((),)}, "empty category"),
        ({"by": (("center",),), "strength": 1.5}, r"strength=1.5: must lie in \[0, 1\]"),
        ({"by": (("center",),), "least": 3, "most": 2}, "least=3, data.balance.most=2"),
        ({"by": (("centre",),)}, "names centre: which the catalog has no column of"),
    ],
)
def test_what_cannot_be_balanced_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        balance_weights(ROWS, EVERY, BalanceConfig(**settings))


def test_groups_are_counted_in_the_selection_alone():
    chosen = np.flatnonzero(np.array(CENTERS) != "a")[::-1]
    weights = balance_weights(ROWS, chosen, BalanceConfig(by=(("center",),)))
    assert shares(weights, [CENTERS[row] for row in chosen]) == pytest.approx(dict.fromkeys(("b", "c", None), 1 / 3))
