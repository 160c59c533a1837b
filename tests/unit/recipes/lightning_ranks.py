"""What a rank of a gloo group does with fastMRI's Lightning module."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from echotrain.data.torch_samples import KspaceSample

__all__ = ["SMALL", "quiet_module", "save_gradients"]

SMALL = {"num_cascades": 1, "pools": 2, "chans": 2, "sens_pools": 2, "sens_chans": 2, "lr": 3e-3}


def quiet_module():
    """Return a small module, the same each time, that needs no trainer."""
    from echotrain.recipes.lightning_varnet import LightningVarNet  # Not in the server of processes, which others use, too.

    torch.manual_seed(0)
    made = LightningVarNet(**SMALL)
    made.log = lambda *_, **__: None
    return made


def save_gradients(ranks, folder):
    """Compute the gradients of some steps, each on this rank's of their batches; the first rank saves them."""
    found = []
    for step in torch.load(f"{folder}/steps.pt"):
        made = quiet_module()
        # Not a temporary: with it the sum over ranks would go.
        parallel = DistributedDataParallel(_Step(made))
        parallel(KspaceSample(*step[ranks.rank])).backward()
        found.append({name: parameter.grad for name, parameter in made.named_parameters()})
    if ranks.rank == 0:
        torch.save(found, f"{folder}/gradients.pt")


class _Step(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, batch):
        return self.module.training_step(batch, 0)
