"""One step of an exponential moving average of a network's state: of the weights that are kept, and of a teacher's."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from echotrain.errors import TrainingError

__all__ = ["move_average"]


@torch.no_grad()
def move_average(average: Mapping[str, Tensor], network: nn.Module, decay: float) -> None:
    """Do ``average = decay * average + (1 - decay) * weights`` in place, of every parameter; buffers are copied.

    Args:
        average: By the network's own names; a teacher's ``state_dict()`` will do, whose tensors are the teacher's.
        network: What is averaged.
        decay: In [0, 1]; it may be another one at every step.

    Raises:
        TrainingError: The average is of another network, or the decay cannot be.
    """
    if not 0 <= decay <= 1:
        raise TrainingError(f"a decay of {decay}", "must lie in [0, 1]", "Use 0.999 where in doubt.")
    state = network.state_dict(keep_vars=True)
    foreign = sorted(average.keys() ^ state.keys())
    if foreign:
        raise TrainingError(
            f"{foreign[0]}", f"is one of {len(foreign)} names that only one of average and network has", "Copy the network."
        )
    moved = set()
    for name, value in state.items():
        place = average[name].data_ptr()
        if not isinstance(value, nn.Parameter):
            average[name].copy_(value)
        elif place not in moved:  # A tied weight has several names, and is moved once.
            average[name].lerp_(value, 1 - decay)
        moved.add(place)
