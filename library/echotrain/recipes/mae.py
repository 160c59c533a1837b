"""Masked autoencoding of MRI slices, and a sibling that a laptop runs in seconds."""

import dataclasses

from echotrain.data.samples.image import ImageData
from echotrain.models.mae.network import MaeNetworkConfig
from echotrain.recipes.debug import cut_to_seconds
from echotrain.tasks.mae import MaeConfig
from echotrain.training.experiment import Experiment
from echotrain.training.optim import OptimConfig, ParameterGroup, ScheduleConfig

__all__ = ["mae", "mae_debug"]


def mae() -> Experiment:
    """A ViT-B/16 pre-trained on MRI slices by masked autoencoding, on whatever images a catalog has: RSS targets, DICOM, NIfTI.

    Reproduces: the method of He et al. (arXiv:2111.06377): 75% of the patches hidden, decoder of 8 blocks of 512, crops of 20 to 100% of
    the area and flips, AdamW (0.9, 0.95) with weight decay 0.05, a base rate of 1.5e-4 per 256 images. MRI-CORE names it among its
    ablations, up to 100 epochs, without its settings. Deviations: one channel (111,251,968 parameters); slices scaled by their own range,
    as MRI-CORE does, and brought to 256 x 256 before they are cropped; 512 images per step, as MRI-CORE's own training has; a warm-up
    counted in steps.
    Expected: no number is published for such data; the encoder is what counts (``ray_jobs.export``), and how well it serves.
    Hardware: 4 GPUs of 40 GB. The full size was never run here; its debug sibling is.
    """
    return Experiment(
        name="mae",
        data=ImageData(scaling="slice", side=256),
        task=MaeConfig(),
        model=MaeNetworkConfig(),
        optim=OptimConfig(
            kind="adamw",
            lr=3e-4,
            betas=(0.9, 0.95),
            weight_decay=0.05,
            schedule=ScheduleConfig(kind="cosine", cosine_epochs=100, warmup_steps=20_000),
            groups=(ParameterGroup(names=("*.bias", "*norm*.weight", "*_token"), weight_decay=0.0),),
        ),
        precision="bf16",
        epochs=100,
        batch_size=512,
        workers=4,
    )


def mae_debug() -> Experiment:
    """``mae`` cut to seconds on a laptop, on the targets of simulated scans."""
    tiny = MaeNetworkConfig(side=32, patch=8, width=16, depth=2, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    small = cut_to_seconds(mae(), tiny)
    optim = dataclasses.replace(small.optim, lr=1e-3, schedule=ScheduleConfig(kind="constant"))
    return dataclasses.replace(small, data=ImageData(catalog=small.data.catalog, side=tiny.side), optim=optim, precision="fp32")
