"""What is typed for a setting is what the setting is: a text to the character, a number as a person sees it, or it is refused."""

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from echotrain.config import from_dict, override, parse_arguments, to_dict
from echotrain.errors import ConfigError
from echotrain.recipes.registry import RECIPES
from echotrain.setting_text import as_typed
from echotrain.training.experiment import Experiment, flatten


@dataclass(frozen=True, kw_only=True)
class Part:
    names: tuple[str, ...] = ()
    note: str = ""
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class Near:
    kind: Literal["near"] = "near"
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Far:
    kind: Literal["far"] = "far"
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, kw_only=True)
class All:
    text: str = ""
    maybe: str | None = None
    maybes: tuple[str | None, ...] = ()
    folder: Path = Path()
    count: int = 0
    limit: int | None = 3
    rate: float = 0.0
    flag: bool = False
    perhaps: bool | None = None
    mode: Literal["on", "off", "12:30"] = "on"
    level: Literal[1, 2] = 1
    names: tuple[str, ...] = ()
    pair: tuple[int, str] = (0, "")
    grid: tuple[tuple[float, float], ...] = ()
    part: Part = field(default_factory=Part)
    parts: tuple[Part, ...] = ()
    by_name: Mapping[str, Part] = field(default_factory=dict)
    places: tuple[Annotated[Near | Far, Field(discriminator="kind")], ...] = ()
    free: tuple[Mapping[str, Any], ...] = ()


WORDS = (
    "/data/runs #2",
    "#",
    "on",
    "no",
    "NO",
    "null",
    " null",
    "~",
    "",
    " ",
    " a ",
    "true",
    "010",
    "007",
    "0x10",
    "0b1",
    "1_000",
    "12:30",
    "1:30:00",
    "1e3",
    ".5",
    "1.10",
    ".inf",
    "2026-01-05",
    "2026-01-05 10:00:00",
    "a: b",
    "a:",
    "- a",
    "? a",
    "[a]",
    "[",
    "{a}",
    "{a: b}",
    "]",
    "'quoted'",
    '"quoted"',
    "''",
    "*x",
    "&x",
    "!x",
    "%x",
    "@x",
    "`x`",
    "|",
    ">",
    "=",
    "a=b",
    "---",
    "...",
    "\\n",
    "a\nb",
    "\t",
    "ü",
    "s3://lab/a//b?c#d",
)


def value_of(assignment, path):
    found = override(All(), [assignment])
    for name in path.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("path", ["text", "part.note"])
@given(st.one_of(st.sampled_from(WORDS), st.text()))
def test_a_text_is_what_was_typed_to_the_character(path, text):
    assert value_of(f"{path}={text}", path) == text


@given(st.one_of(st.sampled_from(WORDS), st.text()))
def test_a_text_that_may_be_none_is_none_for_null_alone(text):
    assert value_of(f"maybe={text}", "maybe") == (None if text == "null" else text)
    assert value_of(f"folder={text}", "folder") == Path(text)


def test_a_text_called_null_is_written_in_quotes_inside_of_brackets():
    assert value_of("maybes=[null, \"null\", 'null', None]", "maybes") == (None, "null", "null", "None")


@pytest.mark.parametrize("text", WORDS)
def test_each_word_that_yaml_reads_otherwise_is_a_text(text):
    assert value_of(f"text={text}", "text") == text
    assert value_of(f"maybe={text}", "maybe") == (None if text == "null" else text)


def quoted(texts):
    return "[" + ", ".join(json.dumps(text, ensure_ascii=False) for text in texts) + "]"


@given(st.lists(st.one_of(st.sampled_from(WORDS), st.text())))
def test_texts_in_a_list_are_what_was_typed_in_quotes(texts):
    assert value_of(f"names={quoted(texts)}", "names") == tuple(texts)
    assert value_of(f"parts=[{{names: {quoted(texts)}}}]", "parts") == (Part(names=tuple(texts)),)
    singly = ",".join("'" + text.replace("'", "''") + "'" for text in texts)
    assert value_of(f"names=[{singly}]", "names") == tuple(texts)


is_plain = st.text(st.characters(exclude_characters=",[]{}"), min_size=1).map(str.strip).filter(lambda text: text and text[0] not in "\"'")


@given(st.lists(st.one_of(st.sampled_from([word for word in map(str.strip, WORDS) if word and not set(word) & set("[]{}'\"")]), is_plain)))
def test_words_in_a_list_are_what_was_typed_between_its_commas(words):
    assert value_of(f"names=[{', '.join(words)}]", "names") == tuple(words)
    assert value_of(f"part={{count: 3, names: [{','.join(words)}]}}", "part") == Part(count=3, names=tuple(words))


def test_a_list_as_people_write_it():
    assert value_of("names=[s3://a, on, 12:30, /data #2, it's, a: b]", "names") == ("s3://a", "on", "12:30", "/data #2", "it's", "a: b")
    assert value_of("names= [ a , ]", "names") == ("a",)
    assert value_of("pair=[1, 010]", "pair") == (1, "010")
    assert value_of("grid=[[4, 0.08], [8, 4e-2]]", "grid") == ((4.0, 0.08), (8.0, 0.04))


def test_several_settings_at_once_are_texts_where_they_are_texts():
    changed = override(All(), ["part={note: /data #2, names: [on, no], count: 1_0}", 'by_name={on: {note: null}, "a: b": {note: "x, y"}}'])
    assert changed.part == Part(note="/data #2", names=("on", "no"), count=10)
    assert changed.by_name == {"on": Part(note="null"), "a: b": Part(note="x, y")}


def test_texts_of_dataclasses_in_lists_and_of_members_of_unions_are_texts():
    changed = override(All(), ["places=[{kind: far, parts: [{note: 12:30}, {names: [on]}]}, {count: 1e1}]"])
    assert changed.places == (Far(parts=(Part(note="12:30"), Part(names=("on",)))), Near(count=10))


def test_a_value_of_no_type_is_what_json_writes_or_text():
    (free,) = override(All(), ['free=[{a: 3, b: 0.5, c: true, d: null, e: on, f: 010, g: 1e3, h: "3", i: [x #1, 2], j: NaN}]']).free
    assert free == {"a": 3, "b": 0.5, "c": True, "d": None, "e": "on", "f": "010", "g": "1e3", "h": "3", "i": ["x #1", 2], "j": "NaN"}


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("rate=1e-3", 1e-3),
        ("rate=1E3", 1000.0),
        ("rate=.5", 0.5),
        ("rate=5.", 5.0),
        ("rate=-1_000.25", -1000.25),
        ("rate=+3", 3.0),
        ("rate= 3 ", 3.0),
        ("count=1_000", 1000),
        ("count=1e3", 1000),
        ("count=4.0", 4),
        ("count=-0", 0),
        ("count=9223372036854775807", 2**63 - 1),
        ("limit=null", None),
        ("limit=None", None),
        ("limit=7", 7),
        ("perhaps=null", None),
        ("perhaps=off", False),
        ("level=2", 2),
        ("mode=12:30", "12:30"),
        *((f"flag={word}", True) for word in ("true", "True", "yes", "ON", "1")),
        *((f"flag={word}", False) for word in ("false", "FALSE", "no", "off", "0")),
    ],
)
def test_a_number_or_a_choice_is_what_a_person_sees(assignment, value):
    found = value_of(assignment, assignment.partition("=")[0])
    assert (found, type(found)) == (value, type(value))


@given(
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: value == 0 or abs(value) > 1e-300),
    st.integers(-(2**63) + 1, 2**63 - 1),
)
def test_every_number_that_python_writes_is_read_as_itself(rate, count):
    changed = override(All(), [f"rate={rate}", f"count={count}"])
    assert (changed.rate, changed.count) == (rate, count)
    assert override(All(), [f"count={count:_}"]).count == count


@given(st.text("0123456789_.eE+-:x", max_size=12))
def test_what_could_be_another_number_is_refused_or_is_pythons_decimal(text):
    try:
        found = value_of(f"rate={text}", "rate")
    except ConfigError as error:
        assert error.value in (f"rate={text}", f"rate={text!r}")  # noqa: PT017
    else:
        assert math.isfinite(found)
        assert found == float(text)
        assert text.lstrip("+-")[:2] not in {f"0{digit}" for digit in "0123456789_"}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("count=010", "count=010: has a leading zero, which some read as octal. Write it as count=10."),
        ("count=-007", "Write it as count=-7."),
        ("rate=00.5", "Write it as rate=0.5."),
        ("count=0x10", "count='0x10': is not a number in decimal digits"),
        ("count=1:30", "count='1:30': is not a number"),
        ("count=1.5", "count=1.5: must be a whole number"),
        ("count=1__0", "is not a number"),
        ("count=", "count='': is not a number"),
        ("count=.", "is not a number"),
        ("count=e3", "is not a number"),
        ("count=4 #2", "is not a number"),
        ('count="4"', "is not a number"),
        ("count=٣", "is not a number"),
        ("count=null", "count='null': is not a number"),
        ("count=9223372036854775808", "must be below 2^63"),
        ("count=1e999999999", "is beyond the numbers"),
        (f"count={'9' * 5000}", "is beyond the numbers"),
        ("count=1e-999999999", "is beyond the numbers"),
        ("rate=nan", "rate='nan': is not a finite number"),
        ("rate=-.inf", "is not a finite number"),
        ("rate=Infinity", "is not a finite number"),
        ("rate=1e999", "is beyond the numbers"),
        ("rate=1:30", "is not a number"),
        ("rate=2026-01-05", "is not a number"),
        ("flag=2", "flag=2: must be true or false"),
        ("flag=", "must be true or false"),
        ("flag=null", "must be true or false"),
        ("level=3", "level=3: must be one of 1, 2"),
        ("mode=of", "mode='of': must be one of on, off, 12:30. Did you mean off?"),
        ("names=a", "Write it as 'names=[a]'"),
        ("names=", "Write it as 'names=[]'"),
        ("names=[a", "is not a YAML list or mapping: it has no end"),
        ("names=[a]]", "']' comes after its end"),
        ("names=[a] #b", "'#b' comes after its end"),
        ("names=[a,,b]", "it has an empty item"),
        ("names=[a[0]]", "'a' is followed by a bracket"),
        ('names=["a" b]', "comes where a comma or ] is due"),
        ("names=['a]", "a quote has no end"),
        ("names=[{a: b}]", "names.0={'a': 'b'}: Input should be a valid string"),
        (f"names={'[' * 5000}", "is deeper than 32 brackets"),
        ("part={count: 1, count: 2}", "'count' is named twice"),
        ("part={count:1}", "'count:1' is not 'key: value'"),
        ("part={}", "part={}: sets nothing"),
        ("part=3", "part=3: is a group of settings"),
        ("parts=[3]", "parts.0=3: is a group of settings"),
        ("parts=[{count: 010}]", "parts.0.count=010: has a leading zero"),
        ('parts=[{count: "010"}]', "parts.0.count=010: has a leading zero"),
        ("grid=[[1, nan]]", "grid.0.1='nan': is not a finite number"),
    ],
)
def test_what_could_be_taken_for_another_thing_is_refused_by_name(assignment, message):
    with pytest.raises(ConfigError) as caught:
        override(All(), [assignment])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "key", "nearest"),
    [
        ("parts=[{names: [a]}, {name: [b]}]", "parts.1.name", "parts.1.names"),
        ("places=[{kind: far, parts: [{counts: 1}]}]", "places.0.parts.0.counts", "places.0.parts.0.count"),
        ("places=[{kind: near, parts: []}]", "places.0.parts", "places.0."),
        ("by_name={knee: {nots: a}}", "by_name.knee.nots", "by_name.knee.note"),
        ("part={nots: a}", "part.nots", "part.note"),
    ],
)
def test_an_unknown_key_is_refused_wherever_dataclasses_nest(assignment, key, nearest):
    with pytest.raises(ConfigError, match=f"unknown key '{key}'.*Did you mean '{nearest}"):
        override(All(), [assignment])


def test_an_unknown_key_in_a_list_of_stored_values_is_refused_too():
    values = to_dict(All(parts=(Part(count=1),), places=(Far(parts=(Part(),)),), by_name={"a": Part()}))
    assert from_dict(All, values) == All(parts=(Part(count=1),), places=(Far(parts=(Part(),)),), by_name={"a": Part()})
    values["places"][0]["parts"][0]["names_"] = ["a"]
    with pytest.raises(ConfigError, match=r"'places\.0\.parts\.0\.names_'.*Did you mean 'places\.0\.parts\.0\.names'"):
        from_dict(All, values)
    with pytest.raises(ConfigError, match=r"places\.0\.kind='fra': is none of near, far"):
        from_dict(All, {"places": [{"kind": "fra"}]})
    with pytest.raises(ConfigError, match=r"parts\.0\.count='many'"):
        from_dict(All, {"parts": [{"count": "many"}]})


def test_a_list_is_no_group_whose_settings_could_be_named():
    with pytest.raises(ConfigError, match=r"unknown key 'parts\.count'"):
        override(All(parts=(Part(),)), ["parts.count=3"])


def test_arguments_of_a_function_are_read_as_settings_are():
    def run(*, folder: str = "", trusted: tuple[str, ...] = (), parts: tuple[Part, ...] = (), workers: int = 1) -> None: ...

    given = ["folder=/data #2", "trusted=[s3://a, on]", "parts=[{note: 12:30}]", "workers=1_0"]
    assert parse_arguments(run, given) == {
        "folder": "/data #2",
        "trusted": ("s3://a", "on"),
        "parts": (Part(note="12:30"),),
        "workers": 10,
    }
    for wrong, message in (("workers=010", "leading zero"), ("parts=[{nots: a}]", r"'parts\.0\.nots'.*'parts\.0\.note'")):
        with pytest.raises(ConfigError, match=message):
            parse_arguments(run, [wrong])


@given(st.sampled_from(WORDS))
def test_a_shell_gives_on_what_its_user_quoted(text):
    (assignment,) = shlex.split(f"text={shlex.quote(text)}")
    assert value_of(assignment, "text") == text


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_what_an_experiment_says_of_itself_can_be_typed(name):
    # As evaluation does, which names the model's settings of a run.
    experiment = RECIPES[name]()
    values = {path: value for path, value in flatten(to_dict(experiment)).items() if value is not None}
    assert override(Experiment(), [f"{path}={as_typed(value)}" for path, value in values.items()]) == experiment
