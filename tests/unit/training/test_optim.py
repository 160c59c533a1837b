"""Schedules as pure functions, parameters in groups, and the average of weights."""

import math

import pytest
import torch
from torch import nn

from echotrain.config import from_dict, override, to_dict
from echotrain.errors import ConfigError
from echotrain.tasks.progress import Progress
from echotrain.training.ema import Ema
from echotrain.training.experiment import Experiment, changed_keys, science
from echotrain.training.optim import OptimConfig, ParameterGroup, ScheduleConfig


def factors_of(schedule, epochs, steps):
    """Return the factor at every step."""
    where = [(epoch, step) for epoch in range(epochs) for step in range(steps)]
    return [
        schedule.factor(Progress(epoch=epoch, step=step, steps_per_epoch=steps, global_step=epoch * steps + step)) for epoch, step in where
    ]


def test_the_step_schedule_equals_torch():
    config = OptimConfig(lr=0.1, schedule=ScheduleConfig(step_epochs=3, gamma=0.5))
    optimizer = config.build(nn.Linear(1, 1))
    reference = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    for epoch in range(10):
        ours = config.lr * config.schedule.factor(Progress(epoch=epoch, step=0, steps_per_epoch=5, global_step=epoch * 5))
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()


def test_the_cosine_schedule_falls_from_one_to_zero_and_stays():
    factors = factors_of(ScheduleConfig(kind="cosine", cosine_epochs=4), 6, 2)
    assert factors[0] == 1
    assert factors == sorted(factors, reverse=True)
    assert factors[8:] == pytest.approx([0] * 4)


def test_warm_up_climbs_linearly_and_then_leaves_the_schedule_alone():
    factors = factors_of(ScheduleConfig(kind="constant", warmup_steps=3), 1, 6)
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


@pytest.mark.parametrize("kind", ["constant", "step", "cosine"])
def test_warm_up_is_a_factor_of_every_schedule(kind):
    plain, warmed = (factors_of(ScheduleConfig(kind=kind, step_epochs=2, cosine_epochs=5, warmup_steps=n), 4, 3) for n in (0, 9))
    assert warmed == pytest.approx([factor * min(1, (step + 1) / 10) for step, factor in enumerate(plain)])


def test_the_cosine_falls_at_every_step_and_is_half_way_in_the_middle():
    factors = factors_of(ScheduleConfig(kind="cosine", cosine_epochs=2), 2, 4)
    assert factors == pytest.approx([(1 + math.cos(math.pi * share / 8)) / 2 for share in range(8)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimConfig(clip_norm=-1), "optim.clip_norm=-1, .*must not be negative"),
        (lambda: OptimConfig(weight_decay=-1), "optim.weight_decay=-1: must not be negative"),
        (lambda: OptimConfig(lr=0), "optim.lr=0: must be positive"),
        (lambda: ScheduleConfig(gamma=1.1), r"gamma=1.1: must lie in \(0, 1\]"),
        (lambda: ScheduleConfig(gamma=0), r"gamma=0: must lie in"),
        (lambda: ScheduleConfig(step_epochs=0), "step_epochs=0: must be at least 1"),
        (lambda: ScheduleConfig(cosine_epochs=0), "cosine_epochs=0: must be at least 1"),
        (lambda: ScheduleConfig(warmup_steps=-1), "warmup_steps=-1: must not be negative"),
    ],
)
def test_a_setting_of_the_optimiser_that_cannot_be_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_adamw_without_decay_warns():
    with pytest.warns(UserWarning, match="plain Adam"):
        OptimConfig(kind="adamw")


@pytest.mark.parametrize(("kind", "cls"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_the_optimiser_has_what_was_configured_and_only_trainable_parameters(kind, cls):
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimizer = OptimConfig(kind=kind, lr=0.5, weight_decay=0.1, betas=(0.5, 0.75)).build(model)
    assert type(optimizer) is cls
    assert optimizer.param_groups[0]["params"] == [model.weight]
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (0.5, 0.1)
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.75)


def test_the_average_follows_its_recurrence_and_is_lent_only():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    ema = Ema(model, 0.9)
    expected = 1.0
    for value in (2.0, -1.0, 4.0):
        with torch.no_grad():
            model.weight.fill_(value)
        ema.update(model)
        expected = 0.9 * expected + 0.1 * value
    with ema.applied_to(model):
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 4.0


class Tied(nn.Module):
    """Has every kind of state: parameters, one of them under two names and one frozen, and buffers of floats and of counts."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.second.bias.requires_grad_(False)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("route", torch.zeros(2, dtype=torch.complex64))

    def forward(self, x):
        return self.norm(self.second(self.first(x)))


def moved(model, seed):
    """Train a step, as far as the average can tell: weights, running statistics and counts move."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        model.train()(torch.randn(8, 3, generator=generator))
        model.route.add_(1 + 2j)


def test_the_average_is_of_parameters_and_buffers_are_copied():
    model = Tied()
    ema = Ema(model, 0.9)
    names = dict(model.named_parameters(remove_duplicate=False))
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for seed in range(3):
        moved(model, seed)
        ema.update(model)
        for name, value in model.state_dict().items():
            expected[name] = 0.9 * expected[name] + 0.1 * value if name in names else value.clone()
    state = ema.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=1e-6 if name in names else 0, atol=1e-6 if name in names else 0)
    assert not torch.allclose(state["first.weight"], model.first.weight)
    assert torch.equal(state["norm.running_mean"], model.norm.running_mean)
    assert torch.equal(state["route"], model.route)


def test_an_average_whose_buffers_were_averaged_loads_and_has_the_models_after_a_step():
    model = Tied()
    moved(model, 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    before["norm.running_mean"] += 5
    ema = Ema(model, 0.9)
    ema.load_state_dict(before)
    assert torch.equal(ema.state_dict()["norm.running_mean"], before["norm.running_mean"])
    moved(model, 1)
    ema.update(model)
    assert torch.equal(ema.state_dict()["norm.running_mean"], model.norm.running_mean)
    torch.testing.assert_close(ema.state_dict()["first.weight"], 0.9 * before["first.weight"] + 0.1 * model.first.weight.detach())


def test_the_average_is_lent_whole_and_the_models_own_state_returns_also_after_an_error():
    model = Tied()
    ema = Ema(model, 0.5)
    moved(model, 0)
    ema.update(model)
    moved(model, 1)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    lent = {}
    with pytest.raises(KeyError, match="in the middle"), ema.applied_to(model):
        raise KeyError(lent.update({name: value.clone() for name, value in model.state_dict().items()}) or "in the middle")
    for name, value in own.items():
        assert torch.equal(lent[name], ema.state_dict()[name]), name
        assert torch.equal(model.state_dict()[name], value), name
    assert not torch.equal(lent["first.weight"], own["first.weight"])


class Grouped(nn.Module):
    """An encoder and a head whose weights are tied, a frozen scale."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
        self.head = nn.Linear(3, 3)
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.head.weight
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)


SLOW = ParameterGroup(names=("encoder.*.weight",), lr=0.1, weight_decay=0.5)
BARE = ParameterGroup(names=("*.bias",), weight_decay=0.0, schedule=ScheduleConfig(kind="cosine", cosine_epochs=4))


def grouped(*groups, **changes):
    return OptimConfig(kind="adamw", lr=0.2, weight_decay=0.4, schedule=ScheduleConfig(kind="constant"), groups=groups, **changes)


def test_without_groups_the_optimisers_state_is_torchs_own_over_all_parameters():
    model = Grouped()
    state = OptimConfig(lr=0.5, weight_decay=0.1).build(model).state_dict()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert state == torch.optim.Adam(trainable, lr=0.5, weight_decay=0.1).state_dict()


def test_each_parameter_is_in_its_group_once_and_has_its_decay():
    model = Grouped()
    optimizer = grouped(SLOW, BARE).build(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parts = [[names[id(parameter)] for parameter in part["params"]] for part in optimizer.param_groups]
    assert parts == [
        ["head.weight"],
        ["encoder.0.weight", "encoder.1.weight"],
        ["encoder.0.bias", "encoder.1.bias", "head.bias", "tied.bias"],
    ]
    assert [part["weight_decay"] for part in optimizer.param_groups] == pytest.approx([0.4, 0.2, 0.0])


def test_groups_that_hold_all_parameters_leave_no_empty_rest():
    optimizer = grouped(ParameterGroup(names=("encoder.*", "head.*", "tied.bias"), lr=0.5)).build(Grouped())
    assert [len(part["params"]) for part in optimizer.param_groups] == [7]
    assert (
        grouped(ParameterGroup(names=("*",), lr=0.5)).set_rates(optimizer, Progress(epoch=0, step=0, steps_per_epoch=1, global_step=0))
        == 0.2
    )
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_a_step_has_each_groups_own_rate_and_schedule():
    config = grouped(SLOW, BARE)
    optimizer = config.build(Grouped())
    for epoch in range(5):
        rate = config.set_rates(optimizer, Progress(epoch=epoch, step=0, steps_per_epoch=3, global_step=3 * epoch))
        assert rate == 0.2
        rates = [part["lr"] for part in optimizer.param_groups]
        assert rates == pytest.approx([0.2, 0.02, 0.2 * (1 + math.cos(math.pi * epoch / 4)) / 2])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            [SLOW, ParameterGroup(names=("heads.*",), lr=0.5)],
            r"pattern 'heads\.\*': matches no parameter that is trained. Did you mean head\.",
        ),
        ([ParameterGroup(names=("head.*", "scale"), lr=0.5)], "'scale': matches no parameter that is trained"),
        ([ParameterGroup(names=("encoder.0.*",), lr=2), SLOW], r"encoder\.0\.weight: is matched by more than one group"),
        (
            [ParameterGroup(names=("head.weight",), lr=2), ParameterGroup(names=("tied.weight",), lr=3)],
            r"head\.weight, tied\.weight: is matched",
        ),
    ],
)
def test_a_pattern_that_matches_nothing_and_a_parameter_of_two_groups_are_refused(groups, message):
    with pytest.raises(ConfigError, match=message):
        grouped(*groups).build(Grouped())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ParameterGroup(lr=2), "names no parameter"),
        (lambda: ParameterGroup(names=("a",), lr=0), "lr=0: must be positive"),
        (lambda: ParameterGroup(names=("a",), weight_decay=-1), "weight_decay=-1: must not be negative"),
    ],
)
def test_a_group_that_cannot_be_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": (ParameterGroup(names=("a",)),), "weight_decay": 0.1}, "it is as the rest"),
        ({"groups": (ParameterGroup(names=("a",), lr=0.5, weight_decay=0),)}, "optim.weight_decay=0 has no factors"),
    ],
)
def test_a_group_without_effect_warns(changes, message):
    with pytest.warns(UserWarning, match=message):
        OptimConfig(**changes)


def test_groups_are_typed_written_as_one_list_and_part_of_the_science():
    written = "optim.groups=[{names: ['*.bias'], weight_decay: 0, schedule: {kind: cosine, cosine_epochs: 4}}]"
    experiment = override(Experiment(), ["optim.weight_decay=0.4", written])
    assert experiment.optim.groups == (BARE,)
    assert from_dict(Experiment, to_dict(experiment)) == experiment
    assert changed_keys(science(experiment), science(Experiment())).keys() == {"optim.weight_decay", "optim.groups"}
    with pytest.raises(ConfigError, match=r"Did you mean 'optim\.groups\.0\.names'"):
        override(Experiment(), ["optim.groups=[{nmaes: [a]}]"])


def test_a_checkpoint_from_before_there_were_groups_had_none():
    before = {path: value for path, value in science(Experiment()).items() if path not in ("optim.groups", "model.drop_prob")}
    assert changed_keys(before, science(Experiment())) == {}
