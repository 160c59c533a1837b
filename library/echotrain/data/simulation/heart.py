"""A beating heart, drawn: blood pools that contract within their muscle over the cycle, in a chest that is at rest.

It is not anatomy. It shares with a cine what matters to a reconstruction over time: the cycle closes, so that the frame after the last is
the first; a part of the image moves and most of it does not; the wall thickens as the pool shrinks, for muscle keeps its volume.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from echotrain.data.simulation.canvas import Canvas, random_field

__all__ = ["SIGNALS", "Heart", "contraction", "draw_heart", "relaxed_signals"]

# End of systole, as a part of the cycle.
_SYSTOLE = 0.35
# Parts of the relaxed pool's radius and length that contraction takes.
_SQUEEZE, _SHORTENING = 0.36, 0.18

SIGNALS: dict[str, Mapping[str, float]] = {
    "cine": {"fat": 0.85, "muscle": 0.3, "lung": 0.05, "bone": 0.2, "blood": 1.0, "myocardium": 0.42, "liver": 0.5},
    "black blood": {"fat": 0.9, "muscle": 0.4, "lung": 0.04, "bone": 0.2, "blood": 0.06, "myocardium": 0.6, "liver": 0.5},
}
# T1 in milliseconds at 3 T, rounded, and the density of protons; only that they differ matters.
_T1_MS = {"fat": 380.0, "muscle": 1100.0, "lung": 1200.0, "bone": 500.0, "blood": 1850.0, "myocardium": 1150.0, "liver": 800.0}
_DENSITY = {"lung": 0.06, "bone": 0.25}
_FIRST_MS, _LAST_MS = 120.0, 3500.0


@dataclass(frozen=True, kw_only=True)
class Heart:
    """A person's heart and chest.

    Attributes:
        radius_mm, wall_mm: Of the left pool and of its wall, relaxed.
        rotation: Of the chest against the image, radians.
        shift_mm: Likewise.
        strength: How much of an average contraction this heart has.
        texture_seed: Of the tissues' texture.
    """

    radius_mm: float
    wall_mm: float
    rotation: float
    shift_mm: tuple[float, float]
    strength: float
    texture_seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Heart":
        """Draw a person."""
        return cls(
            radius_mm=rng.uniform(24, 30),
            wall_mm=rng.uniform(8, 11),
            rotation=rng.normal(0, 0.08),
            shift_mm=(rng.normal(0, 4), rng.normal(0, 4)),
            strength=rng.uniform(0.75, 1.1),
            texture_seed=int(rng.integers(2**63)),
        )


def contraction(phase: float) -> float:
    """Return how far a heart has contracted, 0 to 1, at a phase of its cycle; the cycle closes at 1."""
    phase %= 1.0
    part = phase / _SYSTOLE if phase < _SYSTOLE else 1 + (phase - _SYSTOLE) / (1 - _SYSTOLE)
    return (1 - math.cos(math.pi * part)) / 2


def relaxed_signals(num_times: int) -> list[dict[str, float]]:
    """Return the tissues' signals at several times after an inversion, as a T1 map is measured: at one phase of the cycle."""
    times = np.geomspace(_FIRST_MS, _LAST_MS, num_times)
    return [
        {tissue: _DENSITY.get(tissue, 1.0) * abs(1 - 2 * math.exp(-time / t1)) for tissue, t1 in _T1_MS.items()} for time in times.tolist()
    ]


def draw_heart(
    heart: Heart,
    view: str,
    shape: tuple[int, int],
    fov_mm: tuple[float, float],
    z: float,
    moments: Sequence[tuple[float, Mapping[str, float]]],
) -> np.ndarray:
    """Draw one slice at several moments: float32 (moments, y, x), signals around 0 to 1.

    Args:
        heart: The person.
        view: ``sax``, across the heart; ``lax``, along it.
        shape: Pixels (readout, phase).
        fov_mm: Field of view (readout, phase).
        z: Position of the slice, -1 (apex) to 1 (base).
        moments: Of each the phase of the cycle and the signals of the tissues.
    """
    rng = np.random.default_rng((heart.texture_seed, round(1000 * (z + 1))))
    pixel = max(fov_mm[0] / shape[0], fov_mm[1] / shape[1])
    texture = random_field(rng, shape, max(8.0 / pixel, 2.2))
    images = []
    for phase, signals in moments:
        canvas = Canvas(shape, fov_mm, signals, rotation=heart.rotation, shift_mm=heart.shift_mm)
        _draw_chest(canvas, texture)
        squeeze = heart.strength * contraction(phase)
        (_draw_across if view == "sax" else _draw_along)(canvas, heart, z, squeeze, texture)
        images.append(canvas.image)
    return np.stack(images)


def _draw_chest(canvas: Canvas, texture: np.ndarray) -> None:
    canvas.paint(canvas.box(0, 0, 95, 112, corner=70), "fat", texture, 0.05)
    canvas.paint(canvas.box(0, 0, 86, 103, corner=64), "muscle", texture, 0.12)
    for side in (-1.0, 1.0):
        canvas.paint(canvas.ellipse(-5, side * 54, 64, 38), "lung", texture, 0.3)
    canvas.paint(canvas.ellipse(58, 46, 20, 36, 0.2), "liver", texture, 0.1)
    canvas.paint(canvas.ellipse(66, 0, 14, 16), "bone", texture, 0.2)
    canvas.paint(canvas.ellipse(50, -22, 11, 11), "blood")


def _draw_across(canvas: Canvas, heart: Heart, z: float, squeeze: float, texture: np.ndarray) -> None:
    size = math.sqrt(1 - (0.35 * (1 - z)) ** 2)
    relaxed = heart.radius_mm * size
    pool = relaxed * (1 - _SQUEEZE * squeeze)
    # The wall keeps its area.
    outside = math.sqrt(pool**2 + (relaxed + heart.wall_mm) ** 2 - relaxed**2)
    right = 1 - 0.6 * _SQUEEZE * squeeze
    canvas.paint(canvas.ellipse(-8, 36, 34 * size * right, 27 * size * right, 0.3), "myocardium", texture, 0.05)
    canvas.paint(canvas.ellipse(-8, 36, 30 * size * right, 23 * size * right, 0.3), "blood")
    canvas.paint(canvas.ellipse(0, 0, outside, outside), "myocardium", texture, 0.08)
    canvas.paint(canvas.ellipse(0, 0, pool, pool), "blood")
    for angle in (0.9, 2.6):
        canvas.paint(canvas.ellipse(0.6 * pool * math.sin(angle), 0.6 * pool * math.cos(angle), 5.0, 5.0), "myocardium")


def _draw_along(canvas: Canvas, heart: Heart, z: float, squeeze: float, texture: np.ndarray) -> None:
    relaxed, length = heart.radius_mm * (1 - 0.1 * abs(z)), 46.0
    pool, long = relaxed * (1 - _SQUEEZE * squeeze), length * (1 - _SHORTENING * squeeze)
    outside = math.sqrt(pool**2 + (relaxed + heart.wall_mm) ** 2 - relaxed**2)
    # The base moves towards the apex, which stays.
    apex, angle = 50.0, 0.5 + 0.2 * z
    y, x = (apex - long) * math.cos(angle), -(apex - long) * math.sin(angle)
    canvas.paint(canvas.ellipse(y - 8, x + 44, long * 0.8, 20 * (1 - 0.5 * _SQUEEZE * squeeze), angle), "blood")
    canvas.paint(canvas.ellipse(y, x, long + heart.wall_mm, outside, angle), "myocardium", texture, 0.08)
    canvas.paint(canvas.ellipse(y, x, long, pool, angle), "blood")
    # The atrium fills while the chamber empties.
    fill = 1 + 0.5 * _SQUEEZE * squeeze
    canvas.paint(canvas.ellipse(y - (long + 20) * math.cos(angle), x + (long + 20) * math.sin(angle), 20 * fill, 22 * fill), "blood")
