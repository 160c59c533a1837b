"""What is published of a cluster's groups: read strictly, whoever wrote it."""

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echotrain.errors import ConfigError
from echotrain.worker_groups import (
    GROUPS_VARIABLE,
    NODE_TIMEOUT_VARIABLE,
    PublishedGroups,
    WorkerGroup,
    parse_groups,
    published_groups,
)

NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=30)
SIZE = {"cpus": 15, "gpus": 1, "memory": 58 * 2**30, "min": 0, "max": 16}
VALID = {"format": 1, "nodeTimeoutSeconds": 1800, "groups": {"a10g": SIZE, "data": {**SIZE, "gpus": 0}}}
MISSING = object()


@st.composite
def groups(draw: st.DrawFn) -> list[WorkerGroup]:
    names = draw(st.lists(NAMES, unique=True, max_size=4))
    counts = st.integers(0, 1000)
    made = []
    for name in names:
        low, high = sorted((draw(counts), draw(counts)))
        made.append(WorkerGroup(name=name, cpus=draw(counts), gpus=draw(counts), memory=draw(st.integers(0, 2**50)), min=low, max=high))
    return made


def written(values: Any) -> bytes:
    return json.dumps(values).encode()


def changed(path: str, value: Any) -> dict[str, Any]:
    values = json.loads(json.dumps(VALID))
    *above, last = path.split("/")
    here = values
    for key in above:
        here = here[key]
    if value is MISSING:
        del here[last]
    else:
        here[last] = value
    return values


@given(groups(), st.integers(0, 30 * 86400))
def test_what_is_written_is_what_is_read(published, timeout_s):
    sizes = {g.name: {"cpus": g.cpus, "gpus": g.gpus, "memory": g.memory, "min": g.min, "max": g.max} for g in published}
    read = parse_groups(written({"format": 1, "nodeTimeoutSeconds": timeout_s, "groups": sizes}), place="x")
    assert read == PublishedGroups(groups=tuple(published), node_timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("format", 2, "format 2"),
        ("format", True, "format True"),
        ("format", 1.0, "format 1.0"),
        ("format", MISSING, "format None"),
        ("groups", MISSING, "'groups': is missing"),
        ("nodeTimeoutSeconds", MISSING, "'nodeTimeoutSeconds': is missing"),
        ("extra", 1, "'extra': is none of format"),
        ("groups", [], r"groups \[\]"),
        ("nodeTimeoutSeconds", -1, "nodeTimeoutSeconds -1"),
        ("nodeTimeoutSeconds", 30 * 86400 + 1, "whole number from 0 to 2592000"),
        ("nodeTimeoutSeconds", "1800", "nodeTimeoutSeconds '1800'"),
        ("nodeTimeoutSeconds", float("nan"), "nodeTimeoutSeconds nan"),
        ("groups/A10G", SIZE, "group 'A10G': is no name"),
        ("groups/", SIZE, "group '': is no name"),
        ("groups/a\n", SIZE, "is no name"),
        ("groups/data", 7, "group 'data' 7: must be a map"),
        ("groups/data/cpu", 7, "'cpu': is none of"),
        ("groups/data/cpus", MISSING, "'cpus': is missing"),
        ("groups/data/cpus", 1.5, "cpus 1.5"),
        ("groups/data/gpus", True, "gpus True"),
        ("groups/data/gpus", 1025, "gpus 1025"),
        ("groups/data/memory", None, "memory None"),
        ("groups/data/min", 17, "min 17: is more than max 16"),
        ("groups/data/max", 10**30, "max 1000000"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(path, value, said):
    with pytest.raises(ConfigError, match=said) as error:
        parse_groups(written(changed(path, value)), place="FILE")
    assert str(error.value).startswith("FILE")
    assert "Ask the operator" in error.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe\xff",
        written(VALID)[:-1] + b', "format": 1}',
        b"[" * 100_000,
        b'{"format":' + b"[" * 900 + b"]" * 900 + b"}",
        b"9" * 5000,
        written(VALID) + b" " * 2**18,
        b"null",
    ],
    ids=["empty", "cut off", "no text", "a key twice", "too deep", "deep", "a long number", "too long", "no map"],
)
def test_hostile_text_gets_a_short_typed_error(text):
    with pytest.raises(ConfigError) as error:
        parse_groups(text, place="FILE")
    assert len(str(error.value)) < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from([*VALID, *SIZE]), inner, max_size=4),
    max_leaves=20,
)


@given(st.sampled_from(["format", "nodeTimeoutSeconds", "groups", "groups/data", "groups/data/max", "groups/x"]), JSON)
def test_no_text_is_read_as_something_that_it_does_not_say(path, value):
    try:
        read = parse_groups(written(changed(path, value)), place="FILE")
    except ConfigError:
        return
    for group in read.groups:
        counts = (group.cpus, group.gpus, group.memory, group.min, group.max)
        assert all(type(count) is int and count >= 0 for count in counts)
        assert group.min <= group.max


def test_nothing_is_known_where_nothing_is_published(monkeypatch):
    monkeypatch.delenv(GROUPS_VARIABLE, raising=False)
    assert published_groups() is None


def test_a_job_may_wait_longer_than_its_operator_says(monkeypatch, tmp_path):
    (tmp_path / "groups.json").write_bytes(written(VALID))
    monkeypatch.setenv(GROUPS_VARIABLE, str(tmp_path / "groups.json"))
    monkeypatch.delenv(NODE_TIMEOUT_VARIABLE, raising=False)
    assert published_groups().node_timeout_s == 1800
    monkeypatch.setenv(NODE_TIMEOUT_VARIABLE, "7200")
    assert published_groups().node_timeout_s == 7200
    for wrong in ("1h", "-1", "1e3", "٣", "9" * 7):
        monkeypatch.setenv(NODE_TIMEOUT_VARIABLE, wrong)
        with pytest.raises(ConfigError, match="must be whole seconds"):
            published_groups()


@pytest.mark.parametrize("name", ["nowhere.json", "", "\0"])
def test_a_file_that_cannot_be_read_is_named(monkeypatch, tmp_path, name):
    # A null cannot stand in an environment.
    monkeypatch.setattr("os.environ", {GROUPS_VARIABLE: f"{tmp_path}/{name}"})
    with pytest.raises(ConfigError, match=f"{GROUPS_VARIABLE}=.*cannot be read"):
        published_groups()
