"""One step of a moving average serves averages and teachers."""

import copy

import pytest
import torch
from torch import nn

from echotrain.errors import TrainingError
from echotrain.models.averaging import move_average


class Tied(nn.Module):
    """A weight under two names, a frozen bias, statistics and a count."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3)
        self.second.weight = self.first.weight
        self.second.bias.requires_grad_(False)


def moved(network, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
        network.norm(torch.randn(5, 3, generator=generator))


def test_a_teacher_moves_as_an_average_does_and_a_tied_weight_once():
    student = Tied()
    teacher = copy.deepcopy(student)
    expected = {name: value.clone() for name, value in student.state_dict().items()}
    parameters = dict(student.named_parameters(remove_duplicate=False))
    for step, decay in enumerate((0.5, 0.9, 1.0, 0.0, 0.75)):
        moved(student, step)
        move_average(teacher.state_dict(), student, decay)
        for name, value in student.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value if name in parameters else value.clone()
        torch.testing.assert_close(dict(teacher.state_dict()), expected)
    assert teacher.first.weight is teacher.second.weight
    assert not any(parameter.grad_fn for parameter in teacher.parameters())


def test_an_average_of_another_network_or_decay_is_refused_before_anything_moves():
    student = Tied()
    teacher = {name: value.clone() for name, value in student.state_dict().items()}
    before = copy.deepcopy(teacher)
    moved(student, 0)
    with pytest.raises(TrainingError, match=r"norm\.weight: is one of 1 names"):
        move_average({name: value for name, value in teacher.items() if name != "norm.weight"}, student, 0.5)
    with pytest.raises(TrainingError, match=r"head: is one of 1 names"):
        move_average({**teacher, "head": torch.zeros(1)}, student, 0.5)
    for decay in (-0.1, 1.1, float("nan")):
        with pytest.raises(TrainingError, match="must lie in"):
            move_average(teacher, student, decay)
    torch.testing.assert_close(teacher, before, rtol=0, atol=0)
