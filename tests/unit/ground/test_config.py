import pickle
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from pydantic import Field

from echotrain.config import fingerprint, from_dict, override, parse_arguments, to_dict
from echotrain.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Model:
    num_cascades: int = 12
    chans: int = 18

    def __post_init__(self):
        if self.num_cascades < 1:
            raise ConfigError(f"num_cascades={self.num_cascades}", "must be at least 1", "Give 1 or more.")


@dataclass(frozen=True, kw_only=True)
class Whole:
    model: Model = field(default_factory=Model)
    lr: float = 1e-3
    anatomies: tuple[str, ...] = ()
    limit: int | None = None


def test_override_reaches_nested_fields_and_leaves_the_original_alone():
    original = Whole()
    changed = override(original, ["model.num_cascades=4", "lr=1e-4", "anatomies=[knee, spine]", "limit=3"])
    assert changed == Whole(model=Model(num_cascades=4), lr=1e-4, anatomies=("knee", "spine"), limit=3)
    assert original == Whole()


def test_a_configuration_survives_plain_values():
    config = Whole(model=Model(chans=8), anatomies=("knee",))
    assert from_dict(Whole, to_dict(config)) == config


@pytest.mark.parametrize(
    ("assignment", "fragment"),
    [
        ("model.num_cascade=4", "'model.num_cascades'"),
        ("cascades=4", "'model.num_cascades'"),
        ("chans=4", "'model.chans'"),
        ("model.num_cascades=twelve", "model.num_cascades='twelve'"),
        ("model.num_cascades=0", "num_cascades=0: must be at least 1"),
        ("lr", "dotted.path=value"),
        ("lr=[1", "YAML"),
        ("model.num_cascades=1.5", "model.num_cascades=1.5"),
    ],
)
def test_a_wrong_assignment_names_the_value_and_the_remedy(assignment, fragment):
    with pytest.raises(ConfigError) as caught:
        override(Whole(), [assignment])
    assert fragment in str(caught.value)


def test_unknown_keys_in_stored_values_are_refused():
    with pytest.raises(ConfigError, match="Did you mean"):
        from_dict(Whole, {"model": {"num_cascade": 3}})


def test_arguments_of_a_function_are_parsed_by_its_annotations():
    def run(*, gigabytes: float = 2.0, quick: bool = False) -> None: ...

    assert parse_arguments(run, ["gigabytes=1", "quick=true"]) == {"gigabytes": 1.0, "quick": True}
    with pytest.raises(ConfigError, match="'gigabytes'"):
        parse_arguments(run, ["gigabyte=1"])
    with pytest.raises(ConfigError, match="gigabytes='much'"):
        parse_arguments(run, ["gigabytes=much"])


def test_the_fingerprint_ignores_order_and_notices_values():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_errors_survive_pickling_between_processes():
    error = ConfigError("workers=0", "must be at least 1", "Set workers=1.")
    assert str(pickle.loads(pickle.dumps(error))) == "workers=0: must be at least 1. Set workers=1."


def test_a_mapping_sets_several_settings_of_a_group_and_leaves_the_others():
    changed = override(Whole(), ["model={num_cascades: 3}"])
    assert changed.model.num_cascades == 3
    assert changed == override(Whole(), ["model.num_cascades=3"])
    with pytest.raises(ConfigError, match=r"unknown key 'model\.num_cascade'"):
        override(Whole(), ["model={num_cascade: 3}"])


@dataclass(frozen=True, kw_only=True)
class Unrolled:
    kind: Literal["unrolled"] = "unrolled"
    cascades: int = 12
    sizes: tuple[int, ...] = (1,)


@dataclass(frozen=True, kw_only=True)
class Direct:
    kind: Literal["direct"] = "direct"
    depth: int = 3
    sizes: tuple[int, ...] = (2,)


@dataclass(frozen=True, kw_only=True)
class Choosing:
    lr: float = 1e-3
    net: Annotated[Unrolled | Direct, Field(discriminator="kind")] = field(default_factory=Unrolled)


@pytest.mark.parametrize("net", [Unrolled(cascades=2), Direct(depth=2)])
def test_a_member_of_a_union_survives_plain_values(net):
    config = Choosing(net=net)
    assert from_dict(Choosing, to_dict(config)) == config


def test_values_from_before_there_was_a_choice_are_of_the_first_member():
    assert from_dict(Choosing, {"net": {"sizes": [7]}}) == Choosing(net=Unrolled(sizes=(7,)))
    assert from_dict(Choosing, {"lr": 1.0}) == Choosing(lr=1.0)


@pytest.mark.parametrize(
    "assignments",
    [
        ["net.kind=direct", "net.depth=5"],
        ["net.depth=5", "net.kind=direct"],
        ["net={depth: 5, kind: direct}"],
    ],
)
def test_another_member_is_chosen_by_its_kind_and_begins_with_its_own_defaults(assignments):
    assert override(Choosing(net=Unrolled(sizes=(9,))), assignments) == Choosing(net=Direct(depth=5))


def test_naming_the_kind_that_it_is_changes_nothing():
    config = Choosing(net=Direct(depth=5))
    assert override(config, ["net.kind=direct"]) == config


@pytest.mark.parametrize(
    ("net", "assignment", "fragment"),
    [
        (Direct(), "net.cascades=3", "unknown key 'net.cascades': is not a setting of this recipe. Did you mean 'net."),
        (Unrolled(), "net.cascade=3", "Did you mean 'net.cascades'?"),
        (Unrolled(), "net.depth=3", "unknown key 'net.depth'"),
        (Unrolled(), "net.kind=dirct", "net.kind='dirct': is none of unrolled, direct. Did you mean 'direct'?"),
        (Unrolled(), "net.kind=[direct]", "is none of unrolled, direct"),
        (Direct(), "net.depth=deep", "net.depth='deep'"),
        (Direct(), "net.sizes=3", "Write it as 'net.sizes=[3]'"),
        (Direct(), "net.sizes=[1,x]", "net.sizes.1='x'"),
        (Direct(), "net=3", "net=3"),
    ],
)
def test_a_wrong_assignment_is_judged_by_the_chosen_member(net, assignment, fragment):
    with pytest.raises(ConfigError) as caught:
        override(Choosing(net=net), [assignment])
    assert fragment in str(caught.value)
