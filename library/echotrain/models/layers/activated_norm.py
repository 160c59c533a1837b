"""Instance norm and leaky ReLU as one operation."""

import torch.nn.functional as F

from echotrain.shapes import Channels

__all__ = ["NEGATIVE_SLOPE", "norm_leaky_relu"]

NEGATIVE_SLOPE = 0.2


def norm_leaky_relu(x: Channels) -> Channels:
    """Normalise each channel of each sample to mean 0 and variance 1 (eps 1e-5), then leaky ReLU with slope 0.2."""
    return F.leaky_relu(F.instance_norm(x), NEGATIVE_SLOPE)
