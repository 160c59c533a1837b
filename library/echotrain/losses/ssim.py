"""Structural similarity as a training loss."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from echotrain.errors import ConfigError
from echotrain.shapes import Magnitude, PerSample

__all__ = ["SSIMLoss"]


class SSIMLoss(nn.Module):
    """``1 - mean(SSIM)`` over the valid windows of each sample.

    The definition is fastMRI's (``fastmri.losses.SSIMLoss``; Wang et al., IEEE TIP 13:600, 2004): uniform windows,
    k1 = 0.01, k2 = 0.03, sample (co)variances, and the maximum of the target volume as data range. We return a value per
    sample instead of the batch mean, so that a step can weight its samples; and we divide both images by the data range
    first, which changes nothing in exact arithmetic and keeps float32 products of small magnitudes from underflowing.
    """

    def __init__(self, window: int = 7, k1: float = 0.01, k2: float = 0.03) -> None:
        super().__init__()
        self.window = window
        self.k1 = k1
        self.k2 = k2

    def forward(self, output: Magnitude, target: Magnitude, data_range: PerSample) -> PerSample:
        """Compare magnitudes of one shape; under autocast, too, this is computed in float32.

        Raises:
            ConfigError: The images differ in shape or are smaller than the window.
        """
        if output.shape != target.shape or min(output.shape[-2:]) < self.window:
            raise ConfigError(
                f"images of {tuple(output.shape)} and {tuple(target.shape)}",
                f"SSIM compares images of one shape, at least {self.window} pixels each way",
                "Crop both to the reconstruction matrix.",
            )
        dtype = torch.promote_types(output.dtype, torch.float32)
        scale = data_range.to(dtype)[:, None, None]
        x, y = output.to(dtype) / scale, target.to(dtype) / scale

        mean_x, mean_y, mean_xx, mean_yy, mean_xy = self._local_means(x, y, x * x, y * y, x * y)
        unbiased = self.window**2 / (self.window**2 - 1)
        var_x = unbiased * (mean_xx - mean_x * mean_x)
        var_y = unbiased * (mean_yy - mean_y * mean_y)
        cov_xy = unbiased * (mean_xy - mean_x * mean_y)

        c1, c2 = self.k1**2, self.k2**2
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        structure = (2 * cov_xy + c2) / (var_x + var_y + c2)
        return 1 - (luminance * structure).mean(dim=(-2, -1))

    def _local_means(self, *images: Tensor) -> tuple[Tensor, ...]:
        """Average over every window: pooling along columns, then rows, which autocast leaves in full precision."""
        stacked = torch.stack(images, dim=1)
        columns = functional.avg_pool2d(stacked, (self.window, 1), stride=1)
        return functional.avg_pool2d(columns, (1, self.window), stride=1).unbind(dim=1)
