"""Volume-level image quality by the definitions of the public fastMRI evaluation (``fastmri.evaluate``, MIT).

Volumes are magnitude arrays (slices, y, x). The data range is the maximum of the target **volume** everywhere, in
training too. Arrays keep their dtype, so that float32 volumes score as the public code scores them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from echotrain.errors import NotFiniteError, ScanError
from echotrain.metrics.table import Quality
from echotrain.physics.crop import center_crop, center_crop_to_smallest

__all__ = ["SSIM_WINDOW", "evaluation_crop", "nmse", "psnr", "score_volume", "ssim"]

Magnitudes = NDArray[np.floating[Any]]

SSIM_WINDOW = 7


def score_volume(target: Magnitudes, reconstruction: Magnitudes) -> Quality:
    """Return NMSE, PSNR and SSIM of a whole volume, cropped by ``evaluation_crop``, with the maximum of the target as the data range."""
    target, reconstruction = evaluation_crop(target, reconstruction)
    return {"nmse": nmse(target, reconstruction), "psnr": psnr(target, reconstruction), "ssim": ssim(target, reconstruction)}


def evaluation_crop(target: Magnitudes, reconstruction: Magnitudes) -> tuple[Magnitudes, Magnitudes]:
    """Crop both to the smaller of the two; a reconstruction narrower than its target is compared on a square.

    That square is how fastMRI treats a few FLAIR files with 203 phase encodes for 320 columns. Its ``evaluate.py`` crops
    every target to a square of its width; we keep the whole of a target that is rectangular to begin with.
    """
    is_narrow = reconstruction.shape[-1] < target.shape[-1]
    target, reconstruction = center_crop_to_smallest(target, reconstruction)
    if is_narrow:
        side = target.shape[-1]
        square = (min(side, target.shape[-2]), side)
        target, reconstruction = center_crop(target, square), center_crop(reconstruction, square)
    return target, reconstruction


def nmse(target: Magnitudes, reconstruction: Magnitudes) -> float:
    """Return ``||target - reconstruction||^2 / ||target||^2``."""
    _check(target, reconstruction)
    _peak(target)
    return float(np.linalg.norm(target - reconstruction) ** 2 / np.linalg.norm(target) ** 2)


def psnr(target: Magnitudes, reconstruction: Magnitudes, data_range: float | None = None) -> float:
    """Return ``10 log10(range^2 / mean squared error)`` in dB; infinite where there is no error."""
    _check(target, reconstruction)
    if np.array_equal(target, reconstruction):
        return float("inf")
    return float(peak_signal_noise_ratio(target, reconstruction, data_range=data_range or _peak(target)))


def ssim(target: Magnitudes, reconstruction: Magnitudes, data_range: float | None = None) -> float:
    """Return the mean over slices of the structural similarity with uniform 7 x 7 windows."""
    _check(target, reconstruction)
    peak = data_range or _peak(target)
    slices = zip(target, reconstruction, strict=True)
    return float(np.mean([structural_similarity(first, second, data_range=peak, win_size=SSIM_WINDOW) for first, second in slices]))


def _check(target: Magnitudes, reconstruction: Magnitudes) -> None:
    if target.shape != reconstruction.shape or target.ndim != 3 or min(target.shape[1:]) < SSIM_WINDOW:
        raise ScanError(
            f"target {target.shape} and reconstruction {reconstruction.shape}",
            f"must be volumes (slices, y, x) of one shape with at least {SSIM_WINDOW} pixels each way",
            "Crop them with evaluation_crop.",
        )
    if not np.isfinite(target).all():
        raise ScanError("target volume", "has pixels that are not finite", "Leave this volume out of the catalog.")
    if not np.isfinite(reconstruction).all():
        raise NotFiniteError("reconstruction", "has pixels that are not finite", "The model has diverged; try a lower learning rate.")


def _peak(target: Magnitudes) -> float:
    peak = float(target.max())
    if peak <= 0:
        raise ScanError("target volume", "is zero everywhere", "Leave this volume out of the catalog.")
    return peak
