"""Latent bridge matching: MosaicMRI's baseline without data consistency, and a sibling that a laptop runs in seconds."""

import dataclasses

from echotrain.data.samples.kspace_lines import LinesData
from echotrain.models.bridge.network import BridgeNetworkConfig
from echotrain.physics.masks import MaskConfig
from echotrain.recipes.debug import cut_to_seconds
from echotrain.tasks.bridge import BridgeConfig
from echotrain.training.experiment import Experiment
from echotrain.training.optim import OptimConfig, ScheduleConfig

__all__ = ["lbm_mosaic_x4", "lbm_mosaic_x4_debug"]


def lbm_mosaic_x4() -> Experiment:
    """LBM on all anatomies of MosaicMRI, 4x, on an autoencoder's latents; give ``model.autoencoder=`` (and ``model.init=``).

    Reproduces: MosaicMRI (arXiv:2604.11762), Table 3, so far as it is known: zero-filled image to RSS image, 4x, no data consistency, with
    the mask of ``varnet_mosaic_x4``. UNKNOWN, and assumed: everything else. Network, times, noise, AdamW 4e-5 and batch of 4 are those of
    LBM's public surface-normals configuration: the U-Net of Stable Diffusion XL without text (2,426,231,044 parameters), whose weights
    ``model.init`` takes, and its autoencoder. Epochs, weight decay and scale of the images are ours; the paper's LPIPS term is left out
    (``task.ssim_weight`` puts SSIM in its place).
    Expected: by the paper about 34 dB PSNR and 0.86 SSIM over the test volumes, well below E2E-VarNet's.
    Hardware: 4 GPUs of 80 GB, since weights, gradients and the optimiser's state take 39 GB on each. The full size was never run here; its
    debug sibling is.
    """
    return Experiment(
        name="lbm_mosaic_x4",
        data=LinesData(mask=MaskConfig(kind="random", accelerations=(4,), center_fractions=(0.08,))),
        task=BridgeConfig(),
        model=BridgeNetworkConfig(space="latent", activation_checkpointing=True),
        optim=OptimConfig(kind="adamw", lr=4e-5, weight_decay=0.01, schedule=ScheduleConfig(kind="constant")),
        precision="bf16",
        epochs=50,
        batch_size=4,
        workers=4,
    )


def lbm_mosaic_x4_debug() -> Experiment:
    """``lbm_mosaic_x4`` cut to seconds on a laptop, and to pixels, which need no autoencoder."""
    small = cut_to_seconds(lbm_mosaic_x4(), BridgeNetworkConfig(widths=(8, 8), transformers=(0, 0), blocks=1, groups=4))
    return dataclasses.replace(small, optim=dataclasses.replace(small.optim, lr=1e-3), precision="fp32")
