"""From what coils see to what they measure: k-space with receiver noise."""

import math

import numpy as np
import torch

from echotrain.physics.fft import fft2c

__all__ = ["measured"]


def measured(coil_images: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Return k-space, complex64 (coils, ky, kx), of coil images (coils, y, x), with complex Gaussian noise of a standard deviation."""
    kspace: np.ndarray = fft2c(torch.from_numpy(coil_images)).numpy()
    sigma = np.float32(noise * math.sqrt(0.5))
    shape = coil_images.shape
    kspace += sigma * (rng.standard_normal(shape, np.float32) + 1j * rng.standard_normal(shape, np.float32))
    return kspace
