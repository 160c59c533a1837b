"""Names of files and errors on a terminal and in logs: on one line, in no colour but ours."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.errors import ConfigError, SubmissionError, printable
from echotrain.log import setup_logging

HOSTILE = ["a\nb", "a\rb", "\x1b[2J\x1b[31mred", "\x9b31m", "\u202egpj.exe", "a\u2028b", "a\x00b", "a\u200bb", "\udcff", "a\x85b", "a\tb"]


@pytest.mark.parametrize("name", HOSTILE)
def test_what_moves_the_cursor_or_forges_a_line_is_escaped(name):
    shown = printable(name)
    assert shown.isprintable()
    assert len(shown.splitlines()) == 1
    assert "\\" in shown


@given(st.text())
def test_whatever_is_printed_can_be_printed(text):
    shown = printable(text)
    assert len(f"{shown}x".splitlines()) == 1
    assert f"{shown}x".encode()
    assert printable(shown) == shown


@pytest.mark.parametrize("name", ["[/x]", "Müller 脳.h5", "a b (1)", "50%", "a'b\"c"])
def test_a_harmless_name_is_left_as_it_is(name):
    assert printable(name) == name


def test_an_error_stays_on_its_line_save_for_the_problems_of_a_submission():
    assert str(ConfigError("a\nerror: b", "c\x1b[31m", "d")) == "a\\nerror: b: c\\x1b[31m. d"
    assert str(SubmissionError("x", "y", "one\ntwo\x1b[0m")).splitlines() == ["x: y. one", "two\\x1b[0m"]


def test_a_name_forges_no_record_of_a_log(capsys):
    logger = logging.getLogger("echotrain.test")
    try:
        setup_logging()
        logger.warning("read %s", "a\n12:00:00 INFO echotrain: all is well\x1b[2K")
    finally:
        logging.basicConfig(force=True)
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("WARNING echotrain.test: read a")
    assert second == "    12:00:00 INFO echotrain: all is well\\x1b[2K"
