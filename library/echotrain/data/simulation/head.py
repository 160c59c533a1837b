"""Real head volumes as the object of a simulation: NIfTI files such as Colin27 or the MNI template."""

import math
from pathlib import Path

import numpy as np
from scipy.ndimage import rotate, zoom

from echotrain.errors import ConfigError, ScanError

__all__ = ["load_head", "section_head"]

_MAX_VOXELS = 1 << 28
_NUM_AXES = 3
# The part of a head volume, from neck to crown, whose axial sections show mostly brain.
_LOWEST, _HIGHEST = 0.35, 0.85


def load_head(path: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Return a head as float32 (left-right, back-front, foot-head) scaled to 0..1, and its voxel size in mm.

    Raises:
        ConfigError: nibabel is not installed.
        ScanError: The file is no readable three-dimensional NIfTI volume, or too large.
    """
    try:
        import nibabel
    except ImportError as error:
        raise ConfigError(f"head={path}", "needs nibabel", "Install echotrain[formats].") from error
    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        shape = image.shape
        if len(shape) != _NUM_AXES or math.prod(shape) > _MAX_VOXELS or min(shape) < _NUM_AXES:
            raise ScanError(
                f"{path.name}: volume of shape {shape}", f"must be three-dimensional, at most {_MAX_VOXELS} voxels", "Give a head volume."
            )
        voxels = np.asarray(image.dataobj, dtype=np.float32)
    except ScanError:
        raise
    except Exception as error:  # nibabel raises what its many formats raise
        raise ScanError(f"{path.name}: {error}", "must be a NIfTI volume", "Give a .nii or .nii.gz file.") from error
    if not np.isfinite(voxels).all():
        raise ScanError(f"{path.name}: not finite", "voxels must be finite", "Give another volume.")
    low, high = np.percentile(voxels, [1, 99.8])
    zooms = tuple(float(size) for size in image.header.get_zooms()[:_NUM_AXES])
    return np.clip((voxels - low) / max(float(high - low), 1e-12), 0, 1), (zooms[0], zooms[1], zooms[2])


def section_head(
    head: tuple[np.ndarray, tuple[float, float, float]],
    shape: tuple[int, int],
    fov_mm: tuple[float, float],
    num_slices: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Cut axial sections: float32 (slices, y, x) with the front of the head at the top.

    Args:
        head: Voxels and voxel size from ``load_head``.
        shape: Pixels (readout, phase).
        fov_mm: Field of view.
        num_slices: Sections, evenly spread over the brain with a random offset.
        rng: Small rotation and offset, so that two scans of one head differ.
    """
    voxels, size_mm = head
    levels = np.linspace(_LOWEST, _HIGHEST, num_slices + 2)[1:-1] + rng.uniform(-0.02, 0.02)
    angle = rng.normal(0, 4.0)
    sections = []
    for level in levels:
        axial = voxels[:, ::-1, round(float(level) * (voxels.shape[2] - 1))].T
        factors = (size_mm[1] * shape[0] / fov_mm[0], size_mm[0] * shape[1] / fov_mm[1])
        scaled = zoom(rotate(axial, angle, reshape=False, order=1), factors, order=1)
        sections.append(np.clip(_fit(scaled, shape), 0, 1))
    return np.stack(sections).astype(np.float32)


def _fit(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Centre an image in ``shape``, cropping or padding with zeros."""
    result = np.zeros(shape, dtype=np.float32)
    to, of = [], []
    for have, want in zip(image.shape, shape, strict=True):
        size = min(have, want)
        to.append(slice((want - size) // 2, (want - size) // 2 + size))
        of.append(slice((have - size) // 2, (have - size) // 2 + size))
    result[tuple(to)] = image[tuple(of)]
    return result
