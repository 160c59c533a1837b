"""Target images: the root sum of squares of fully sampled k-space."""

import numpy as np
import torch

from echotrain.physics.coils import rss
from echotrain.physics.crop import center_crop
from echotrain.physics.fft import ifft2c

__all__ = ["rss_target"]


def rss_target(kspace: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Reconstruct one slice as fastMRI does: inverse FFT, root sum of squares over coils, central crop.

    Args:
        kspace: complex64 (coils, height, width).
        shape: Reconstruction matrix.

    Returns:
        float32 of ``shape``.
    """
    images = ifft2c(torch.from_numpy(kspace)[None])
    return np.ascontiguousarray(center_crop(rss(images)[0].numpy(), shape), dtype=np.float32)
