"""Receive coils: loops around the object, their sensitivities by the law of Biot and Savart."""

from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import zoom

__all__ = ["loop_sensitivities", "smooth_phase"]

_COARSE = 20
_SEGMENTS = 16


def loop_sensitivities(
    shape: tuple[int, int],
    fov_mm: tuple[float, float],
    z_mm: float,
    *,
    num_coils: int,
    arc: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return complex64 sensitivities (coils, y, x), scaled to an RSS near 1 at the centre.

    Every coil is a circular loop on an ellipse around the field of view, its axis pointing inwards; its sensitivity is the transverse
    field ``B_y + i B_x`` of a unit current (reciprocity). The maps are smooth, so they are integrated coarsely and interpolated.

    Args:
        shape: Pixels (readout, phase).
        fov_mm: Field of view (readout, phase).
        z_mm: Position of the slice along the slice direction.
        num_coils: Loops.
        arc: Angle in radians over which they spread, centred on +x; 2 pi surrounds the object.
        rng: Jitters position, size and phase of the loops; the same state for every slice of a volume.
    """
    points = np.stack(_coarse_grid(fov_mm, z_mm), axis=-1)
    is_ring = arc >= 2 * np.pi - 1e-6
    angles = (np.arange(num_coils) + 0.5) * arc / num_coils - (0 if is_ring else arc / 2)
    maps = []
    for index, angle in enumerate(angles + rng.normal(0, 0.08, num_coils)):
        radii = 0.62 * np.asarray(fov_mm) * rng.uniform(0.95, 1.08)
        center = np.array([radii[0] * np.sin(angle), radii[1] * np.cos(angle), 25.0 * (-1) ** index + rng.normal(0, 5)])
        loop_radius = 0.75 * max(np.hypot(*radii) * arc / (2 * np.pi) / num_coils * 4, 0.2 * max(fov_mm))
        field = _loop_field(points, center, loop_radius)
        maps.append(field * np.complex64(np.exp(1j * rng.uniform(0, 2 * np.pi))))
    coarse = np.stack(maps)
    middle = coarse[:, _COARSE // 4 : -(_COARSE // 4), _COARSE // 4 : -(_COARSE // 4)]
    coarse /= np.sqrt((np.abs(middle) ** 2).sum(0)).mean()
    # One product of complex matrices per coil: torch has a fast one for batches, NumPy has not.
    rows, columns = _interpolation(shape[0]), _interpolation(shape[1])
    return torch.matmul(torch.matmul(rows, torch.from_numpy(coarse)), columns.T).numpy()


def smooth_phase(shape: tuple[int, int], rng: np.random.Generator, strength: float = 1.2) -> np.ndarray:
    """Return a unit-magnitude complex64 field (y, x) with a random polynomial phase of second order."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    terms = np.stack([np.ones_like(y), y, x, y * x, y * y, x * x])
    phase = np.tensordot(rng.normal(0, strength, len(terms)), terms, axes=1)
    return np.asarray(np.exp(1j * phase), dtype=np.complex64)


@lru_cache(maxsize=16)
def _interpolation(size: int) -> torch.Tensor:
    """Return the matrix (size, _COARSE) of cubic spline interpolation, the same along every axis."""
    matrix = zoom(np.eye(_COARSE, dtype=np.float32), (size / _COARSE, 1), order=3, grid_mode=True, mode="nearest")
    return torch.from_numpy(matrix.astype(np.complex64))


def _coarse_grid(fov_mm: tuple[float, float], z_mm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, columns = (((np.arange(_COARSE) + 0.5) / _COARSE - 0.5) * size for size in fov_mm)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return y, x, np.full_like(y, z_mm)


def _loop_field(points: np.ndarray, center: np.ndarray, radius: float) -> np.ndarray:
    """Integrate ``dl x r / |r|^3`` around a loop whose axis points from ``center`` to the origin's axis."""
    axis = -np.array([center[0], center[1], 0.0])
    axis /= np.linalg.norm(axis)
    first = np.array([0.0, 0.0, 1.0])
    second = np.cross(axis, first)
    t = (np.arange(_SEGMENTS) + 0.5) * 2 * np.pi / _SEGMENTS
    wire = center + radius * (np.cos(t)[:, None] * first + np.sin(t)[:, None] * second)
    direction = radius * (-np.sin(t)[:, None] * first + np.cos(t)[:, None] * second)
    field = np.zeros(points.shape[:-1], dtype=np.complex64)
    for (wy, wx, wz), (dy, dx, dz) in zip(wire.tolist(), direction.tolist(), strict=True):
        ry, rx, rz = points[..., 0] - wy, points[..., 1] - wx, points[..., 2] - wz
        distance = np.maximum(np.sqrt(ry * ry + rx * rx + rz * rz), 0.15 * radius)
        # The first two components of the cross product.
        field += ((dx * rz - dz * rx) + 1j * (dz * ry - dy * rz)) / distance**3
    return field
