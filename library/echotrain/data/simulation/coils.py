"""Receive coils: loops around the object, their sensitivities by the law of Biot and Savart."""

from functools import lru_cache

import numpy as np
from scipy.ndimage import zoom

__all__ = ["loop_sensitivities", "smooth_phase"]

_COARSE = 28
_SEGMENTS = 24


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
        maps.append(field * np.exp(1j * rng.uniform(0, 2 * np.pi)))
    coarse = np.stack(maps)
    full = _interpolation(shape[0]) @ coarse.astype(np.complex64) @ _interpolation(shape[1]).T
    middle = full[:, shape[0] // 4 : -(shape[0] // 4), shape[1] // 4 : -(shape[1] // 4)]
    return np.asarray(full / np.sqrt((np.abs(middle) ** 2).sum(0)).mean(), dtype=np.complex64)


def smooth_phase(shape: tuple[int, int], rng: np.random.Generator, strength: float = 1.2) -> np.ndarray:
    """Return a unit-magnitude complex64 field (y, x) with a random polynomial phase of second order."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    terms = np.stack([np.ones_like(y), y, x, y * x, y * y, x * x])
    phase = np.tensordot(rng.normal(0, strength, len(terms)), terms, axes=1)
    return np.asarray(np.exp(1j * phase), dtype=np.complex64)


@lru_cache(maxsize=16)
def _interpolation(size: int) -> np.ndarray:
    """Return the matrix (size, _COARSE) of cubic spline interpolation, the same along every axis."""
    matrix = zoom(np.eye(_COARSE, dtype=np.float32), (size / _COARSE, 1), order=3, grid_mode=True, mode="nearest")
    return np.asarray(matrix, dtype=np.float32)


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
    offset = points[..., None, :] - wire
    distance = np.maximum(np.linalg.norm(offset, axis=-1, keepdims=True), 0.15 * radius)
    field = (np.cross(direction, offset) / distance**3).sum(axis=-2)
    return np.asarray(field[..., 0] + 1j * field[..., 1])
