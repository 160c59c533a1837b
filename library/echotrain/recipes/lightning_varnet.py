"""fastMRI's own Lightning module of VarNet, as Lightning 2 runs it: the example of a loop that is not echotrain's.

Its network, loss, optimiser and metrics are untouched::

    trainer = pytorch_lightning.Trainer(max_epochs=50)
    trainer.fit(LightningVarNet(num_cascades=8), datamodule=CatalogDataModule("s3://lab/knee"))

Importing this imports fastMRI and what its modules ask for: pytorch_lightning, torchmetrics and runstats.
"""

from typing import Any

import torch
import torch.distributed as dist
from fastmri.pl_modules import VarNetModule
from torch import Tensor

__all__ = ["LightningVarNet"]


class LightningVarNet(VarNetModule):  # type: ignore[misc]
    """The public module with what Lightning 2 no longer does for it: it hands nobody the outputs of all steps at an epoch's end.

    Fillers, which keep ranks in step, weigh nothing in it: gradients are those of the mean over all ranks' samples of a step, as in a run
    of echotrain, whether or not all ranks have as many. Arguments are those of ``fastmri.pl_modules.VarNetModule``.
    """

    # Lightning 2 refuses a module that has them; ``VarNetModule``'s are called below.
    validation_epoch_end = None
    test_epoch_end = None
    val_log_indices: list[int] | None

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return a batch's share of the step's loss: 0 of fillers alone, which are not logged and by which a rank only takes part.

        DDP takes the mean of the ranks' gradients, those of ranks without a sample included: of ``W`` ranks, one with ``n`` of the ``N``
        samples of the step weighs ``W n / N``.
        """
        is_real = batch.weight > 0
        share = _share(is_real.sum())
        if not is_real.any():
            image: Tensor = self(batch.masked_kspace, batch.mask, batch.num_low_frequencies)
            return image.sum() * 0
        loss: Tensor = super().training_step(_chosen(batch, is_real), batch_idx)
        return loss * share

    def on_validation_epoch_start(self) -> None:
        """Begin a validation; pictures need a logger that takes them."""
        self._shown: list[Any] = []
        if not hasattr(getattr(self.logger, "experiment", None), "add_image"):
            self.val_log_indices = []
        elif self.val_log_indices is None:
            num_batches = len(self.trainer.val_dataloaders)
            self.val_log_indices = torch.randperm(num_batches)[: self.num_log_images].tolist()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Keep the scores of a batch."""
        if batch.weight.all():
            self._shown.append(self.validation_step_end(super().validation_step(batch, batch_idx)))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of whole volumes."""
        VarNetModule.validation_epoch_end(self, self._shown)

    def on_test_epoch_start(self) -> None:
        """Begin a test."""
        self._shown = []

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Keep the images of a batch."""
        if batch.weight.all():
            self._shown.append(super().test_step(batch, batch_idx))

    def on_test_epoch_end(self) -> None:
        """Write the images, a file for each volume."""
        VarNetModule.test_epoch_end(self, self._shown)


def _share(num_samples: Tensor) -> Tensor:
    """Return what a rank's mean weighs in that over the samples of all ranks, each of which asks at once."""
    if not (dist.is_available() and dist.is_initialized()):
        return torch.ones(())
    total = num_samples.to(torch.float32)
    dist.all_reduce(total)
    return dist.get_world_size() * num_samples / total.clamp(min=1)


def _chosen(batch: Any, is_real: Tensor) -> Any:
    """Return the samples of a batch that are no fillers."""
    return batch if is_real.all() else type(batch)(*(value[is_real] if isinstance(value, Tensor) else value for value in batch))
