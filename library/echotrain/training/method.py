"""A task and its network, built one way wherever weights are begun with or loaded."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from echotrain.tasks.task import Task
from echotrain.training.experiment import Science

__all__ = ["Method", "build_method"]


class Method(NamedTuple):
    """What is trained.

    Attributes:
        task: What a step means.
        network: The model, and what the task owns around it.
    """

    task: Task[Any]
    network: nn.Module


def build_method(science: Science, begin: Callable[[nn.Module], object] | None = None) -> Method:
    """Build the model and the task's network around it, their weights drawn from torch's global generator.

    Args:
        science: Says which.
        begin: Loads the weights that the model begins with; before the task builds on it, since a teacher is a copy of them.
    """
    model = science.model.build()
    if begin is not None:
        begin(model)
    task = science.task.build()
    return Method(task, task.network(model))
