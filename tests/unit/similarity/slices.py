"""Simple slices to compare."""

import numpy as np
from scipy.ndimage import gaussian_filter


def disc(radius, *, side=96, at=(0.5, 0.5)):
    y, x = np.mgrid[:side, :side] / side
    return gaussian_filter(((y - at[0]) ** 2 + (x - at[1]) ** 2 < radius**2).astype(np.float32), 1.0)


def bars(width, *, side=96):
    x = np.mgrid[:side, :side][1] / side
    return np.broadcast_to(np.abs(x - 0.5) < width, (side, side)).astype(np.float32)
