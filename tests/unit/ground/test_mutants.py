"""The lists of mutants fit the code: whoever changes a line that one breaks changes the entry too."""

import pytest

from tests.mutants.run import ROOT, Mutant, mutants_of


def test_every_mutant_breaks_a_line_that_is_there_and_names_tests_that_are():
    mutants = mutants_of()
    names = [mutant.name for mutant in mutants]
    assert len(set(names)) == len(names) > 0
    for mutant in mutants:
        text = (ROOT / mutant.path).read_text()
        assert mutant.applied(text) != text, mutant.name
        compile(mutant.applied(text), mutant.path, "exec")
        assert all((ROOT / test).is_file() for test in mutant.tests), mutant.name
        assert mutant.tests, mutant.name


@pytest.mark.parametrize("text", ["b = 1", "a = 1\na = 1"])
def test_a_mutant_that_fits_nowhere_or_twice_is_refused(text):
    with pytest.raises(ValueError, match=r"fits: a\.py has [02] times 'a = 1', and 1 is needed"):
        Mutant(name="fits", path="a.py", old="a = 1", new="a = 2", tests=()).applied(text)


def test_lists_are_named_by_what_they_hold():
    assert mutants_of(["issue"])
    assert len(mutants_of(["issue"])) < len(mutants_of())
    with pytest.raises(FileNotFoundError):
        mutants_of(["none"])
