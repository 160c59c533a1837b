"""Schedules as pure functions, and the average of weights."""

import pytest
import torch
from torch import nn

from echotrain.training.ema import Ema
from echotrain.training.optim import OptimConfig, ScheduleConfig


def test_the_step_schedule_equals_torch():
    config = OptimConfig(lr=0.1, schedule=ScheduleConfig(step_epochs=3, gamma=0.5))
    optimizer = config.build(nn.Linear(1, 1).parameters())
    reference = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    for epoch in range(10):
        ours = config.lr * config.schedule.factor(epoch=epoch, step=0, steps_per_epoch=5, global_step=epoch * 5)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()


def test_the_cosine_schedule_falls_from_one_to_zero_and_stays():
    schedule = ScheduleConfig(kind="cosine", cosine_epochs=4)
    factors = [schedule.factor(epoch=epoch, step=step, steps_per_epoch=2, global_step=0) for epoch in range(6) for step in range(2)]
    assert factors[0] == 1
    assert factors == sorted(factors, reverse=True)
    assert factors[8:] == pytest.approx([0] * 4)


def test_warm_up_climbs_linearly_and_then_leaves_the_schedule_alone():
    schedule = ScheduleConfig(kind="constant", warmup_steps=3)
    factors = [schedule.factor(epoch=0, step=step, steps_per_epoch=9, global_step=step) for step in range(6)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_adamw_without_decay_warns():
    with pytest.warns(UserWarning, match="plain Adam"):
        OptimConfig(kind="adamw")


@pytest.mark.parametrize(("kind", "cls"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_the_optimiser_has_what_was_configured_and_only_trainable_parameters(kind, cls):
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimizer = OptimConfig(kind=kind, lr=0.5, weight_decay=0.1).build(model.parameters())
    assert type(optimizer) is cls
    assert optimizer.param_groups[0]["params"] == [model.weight]
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (0.5, 0.1)


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
