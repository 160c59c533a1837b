"""A sweep file's words are what stands there, to every trial, whatever YAML 1.1 makes of them."""

import dataclasses

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from echotrain.errors import ConfigError
from echotrain.recipes.registry import find_recipe
from echotrain.sweeps.as_typed import load_as_typed
from echotrain.sweeps.spec import read_sweep
from echotrain.training.swept import check_sweep

SWEEP = """
name: 2026-01-05
method: grid
project: 007
command: ["${{env}}", python, -m, ray_jobs.train, varnet_mosaic_x4_debug, "wandb.group=/data #2", "${{args_no_hyphens}}"]
parameters:
  {path}: {{values: {values}}}
"""
WORDS = ("on", "no", "12:30", "010", "0x10", "1_000", "1e3", "1.10", "2026-01-05", ".inf", "a#b", "null_", "-.5", "1", "1.5")


def trials(tmp_path, path, values):
    (tmp_path / "sweep.yaml").write_text(SWEEP.format(path=path, values=values))
    base = dataclasses.replace(find_recipe("varnet_mosaic_x4_debug")(), storage="s3://b/runs")
    spec = read_sweep(tmp_path / "sweep.yaml")
    assert (spec.name, spec.project, spec.settings) == ("2026-01-05", "007", ("wandb.group=/data #2",))
    return check_sweep(spec, base)


@pytest.mark.parametrize("style", ["{}", "'{}'", '"{}"'])
def test_a_text_of_a_trial_is_what_stands_in_the_file(tmp_path, style):
    found = trials(tmp_path, "data.subset", f"[{', '.join(map(style.format, WORDS))}]")
    assert [experiment.data.subset for experiment in found] == list(WORDS)


def test_texts_in_lists_and_in_groups_of_a_trial_are_what_stands_in_the_file(tmp_path):
    found = trials(tmp_path, "data", "[{subset: 12:30, anatomies: [on, 1.10]}, {contrasts: [010, 'a, b']}]")
    assert [(e.data.subset, e.data.where.anatomy, e.data.where.contrast) for e in found] == [
        ("12:30", ("on", "1.10"), ()),
        ("", (), ("010", "a, b")),
    ]


def test_a_number_of_a_trial_is_what_a_person_sees_or_is_refused(tmp_path):
    assert [e.optim.lr for e in trials(tmp_path, "optim.lr", "[1e-3, .5, 1.0e-5, 0.10]")] == [1e-3, 0.5, 1e-5, 0.1]
    assert [e.seed for e in trials(tmp_path, "seed", "[1_000, 7]")] == [1000, 7]
    for word in ("010", "1:30", "0x10", ".nan"):
        with pytest.raises(ConfigError, match=f"trial seed={word}: seed="):
            trials(tmp_path, "seed", f"[{word}]")


@pytest.mark.parametrize("word", ["on", "12:30", "010", "2026-01-05", "~", "0b11", "1_0:30"])
def test_what_wandb_takes_for_something_else_is_said(word, caplog):
    assert load_as_typed(f"a:\n  b: [{word}]") == {"a": {"b": [word]}}
    assert f"line 2: W&B takes {word} for something else; write {word!r} in quotes" in caplog.text


@pytest.mark.parametrize("word", ["true", "1.0e-5", "1_000", ".5", "knee", "null", "1e-3"])
def test_nothing_is_said_of_what_wandb_takes_for_the_same(word, caplog):
    load_as_typed(f"a: {word}")
    assert not caplog.text


plain = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)


@given(plain)
def test_what_yaml_writes_is_read_back(value):
    # Numbers are texts where YAML does not write them as JSON does; their settings read them.
    written = yaml.safe_dump(value)
    assert as_text(load_as_typed(written)) == as_text(value)


def as_text(value):
    """Return values with every number, and every text that is one to Python, as one text: nan too is what it was."""
    if isinstance(value, dict):
        return {key: as_text(part) for key, part in value.items()}
    if isinstance(value, list):
        return [as_text(part) for part in value]
    if value is None or isinstance(value, bool):
        return value
    try:
        return f"number {float(value)!r}"
    except ValueError:
        return value
