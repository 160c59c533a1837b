"""Tables that a spreadsheet opens: what strangers named is text, what was measured is a number."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.csv_text import csv_of, plain_cell

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def cells(*row):
    (found,) = csv.reader(io.StringIO(csv_of([row]), newline=""))
    return found


@pytest.mark.parametrize(
    "name",
    [
        "=1+1",
        "=cmd|' /C calc'!A0",
        "+cmd",
        "-2+3+cmd|' /C calc'!A0",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "-",
        "+",
        "--1",
        "-1-1",
        "+1 1",
        "'=1",
        "-3.2x",
        "=a,b",
        '="a"',
        "-3\r",
    ],
)
def test_a_cell_that_would_be_a_formula_is_text_and_can_be_read_back(name):
    (cell,) = cells(name)
    assert cell == f"'{name}"
    assert plain_cell(cell) == name


@pytest.mark.parametrize(
    "number", ["-3.2", "+0.5", "-1e-05", "-inf", "nan", "+inf", "-12", "-.5", "-3.", "−0.12", "+0.34\n[+0.10, +0.58]", "-1.2 ± 0.3", "-5%"]
)
def test_a_number_stays_a_number(number):
    assert cells(number) == [number]


@pytest.mark.parametrize("value", [-3.2, -7, True, None])
def test_values_that_are_no_text_are_written_as_ever(value):
    assert csv_of([[value, "x"]]) == f"{'' if value is None else value},x\n"


@given(st.text())
def test_any_name_comes_back_and_none_is_a_formula(name):
    text = name.replace("\x00", "")
    (cell,) = cells(text) if text else [""]
    assert plain_cell(cell) == text or cell == text
    assert not cell.startswith(FORMULA) or set(cell) <= set("0123456789.eE+-−% ±[],\ninfa")
