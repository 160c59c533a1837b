"""Anatomy classes, drawn: brain-like, knee-like and spine-like slices with detail down to a pixel.

They are not anatomy. They share with it what matters to a reconstruction: a bright rim of fat, thin dark
boundaries, folded or trabecular texture near the resolution limit, a background of air, and contrast that
moves with the sequence. Every slice of a volume is a section through the same slowly varying object.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from echotrain.data.simulation.canvas import Canvas, random_field

__all__ = ["ANATOMIES", "Anatomy", "draw_volume"]


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """A class of simulated scans.

    Attributes:
        draw: Paints one slice; ``z`` runs from -1 to 1 through the volume.
        orientation: As in ``VolumeHeader``.
        fov_mm: Field of view (readout, phase).
        slice_mm: Slice thickness.
        aspect: Matrix (readout, phase) relative to the configured size.
        num_coils: Receive coils.
        coil_arc: Part of the circle, in radians, on which the coils stand; 2 pi surrounds the object.
        signals: Signal of every tissue for every contrast.
    """

    draw: Callable[[Canvas, float, "Fields"], None]
    orientation: str
    fov_mm: tuple[float, float]
    slice_mm: float
    aspect: tuple[float, float]
    num_coils: int
    coil_arc: float
    signals: Mapping[str, Mapping[str, float]]


class Fields:
    """Random fields of one patient that turn slowly into each other from slice to slice."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], pixel_mm: float) -> None:
        self._rng, self._shape, self._pixel = rng, shape, pixel_mm
        self._pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def at(self, name: str, z: float, wavelength_mm: float, *, speed: float = 1.0, anisotropy: float = 1.0) -> np.ndarray:
        """Return the field ``name`` in the slice at ``z``; its structures are about ``wavelength_mm`` wide."""
        if name not in self._pairs:
            wavelength = max(wavelength_mm / self._pixel, 2.2)
            first = random_field(self._rng, self._shape, wavelength, anisotropy=anisotropy)
            self._pairs[name] = (first, random_field(self._rng, self._shape, wavelength, anisotropy=anisotropy))
        first, second = self._pairs[name]
        angle = np.float32(speed * z)
        return np.asarray(np.cos(angle) * first + np.sin(angle) * second)


def draw_volume(name: str, contrast: str, shape: tuple[int, int], num_slices: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a volume: float32 (slices, y, x), tissue signals around 0 to 1.

    Args:
        name: Key of ``ANATOMIES``.
        contrast: Key of the anatomy's ``signals``.
        shape: Pixels (readout, phase).
        num_slices: Slices.
        rng: The patient: the same generator state draws the same person under every contrast.
    """
    anatomy = ANATOMIES[name]
    rotation, scale = rng.normal(0, 0.08), rng.uniform(0.9, 1.05)
    shift = (rng.normal(0, 4.0), rng.normal(0, 4.0))
    pixel = max(anatomy.fov_mm[0] / shape[0], anatomy.fov_mm[1] / shape[1])
    fields = Fields(rng, shape, pixel)
    slices = []
    for z in np.linspace(-1, 1, num_slices) if num_slices > 1 else [0.0]:
        canvas = Canvas(shape, anatomy.fov_mm, anatomy.signals[contrast], rotation=rotation, shift_mm=shift, scale=scale)
        anatomy.draw(canvas, float(z), fields)
        slices.append(canvas.image)
    return np.stack(slices)


def _draw_brain(canvas: Canvas, z: float, fields: Fields) -> None:
    size = float(np.sqrt(1 - (0.55 * z) ** 2))
    wobble = 1.5 * fields.at("outline", z, 60, speed=0.5)
    head = canvas.ellipse(0, 0, 92 * size, 72 * size) + wobble
    fine = fields.at("fine", z, 3.0, speed=3.0)
    canvas.paint(head, "fat", fine, 0.10)
    canvas.paint(head + 5, "bone", fine, 0.15)
    canvas.paint(head + 10, "csf")
    surface = head + 12.5
    folds = fields.at("folds", z, 24.0, speed=1.0)
    # Sulci: the zero lines of a random field, widest at the surface; the grey ribbon follows them on both sides.
    valley = (np.abs(folds) - 0.24 + np.maximum(-surface - 4, 0) * 0.013) * 5.5
    canvas.paint(surface, "gray", fine, 0.06)
    canvas.paint(np.maximum(surface + 3.5, 3.0 - valley), "white", fine, 0.05)
    canvas.paint(np.maximum(surface, valley), "csf")
    canvas.paint(canvas.box(0, 0, 80 * size, 0.9, corner=0.5), "csf")
    for side in (-1.0, 1.0):
        canvas.paint(canvas.ellipse(4, side * 24, 17 * size, 9 * size, side * 0.3), "gray", fine, 0.08)
        canvas.paint(canvas.ellipse(-6 + 4 * z, side * 11, (22 - 6 * abs(z)) * size, (6.5 - 2 * z) * size, side * 0.25), "csf")
        canvas.paint(canvas.ellipse(26, side * 14, 9 * size, 4 * size, side * -0.5), "csf")
    vessels = fields.at("vessels", z, 9.0, speed=1.0)
    canvas.paint(np.maximum(surface + 1, (2.75 - vessels) * 4), "vessel")


def _draw_knee(canvas: Canvas, z: float, fields: Fields) -> None:
    width = 62 * float(np.sqrt(1 - (0.4 * z) ** 2))
    fine, marrow = fields.at("fine", z, 2.0, speed=3.0), fields.at("marrow", z, 2.6, speed=2.0, anisotropy=1.7)
    leg = canvas.box(0, 0, 95, width, corner=30) + 1.5 * fields.at("outline", z, 50, speed=0.5)
    canvas.paint(leg, "fat", fine, 0.08)
    canvas.paint(np.maximum(leg + 4, np.abs(fields.at("septa", z, 16)) * 6 - 0.5), "ligament")
    canvas.paint(leg + 11, "muscle", fields.at("fibres", z, 3.2, anisotropy=2.5), 0.14)
    canvas.paint(np.maximum(leg + 12, np.abs(fields.at("strands", z, 14, anisotropy=2.2)) * 7 - 0.7), "fat")
    gap, condyle = 3.2 + 0.8 * z, 25 + 3 * z
    shaft = canvas.box(-52, 0, 42, 19 + 3 * z, corner=8)
    femur = np.minimum(
        shaft, np.minimum(canvas.ellipse(-gap - 23, -19, 23, condyle * 0.9), canvas.ellipse(-gap - 23, 19, 23, condyle * 0.9))
    )
    tibia = np.minimum(canvas.box(gap + 17, 0, 14, 41, corner=7), canvas.box(58, 1, 42, 18, corner=8))
    cartilage = np.minimum(femur, tibia) - 2.2
    canvas.paint(np.maximum(cartilage, np.abs(canvas.y) - 17), "cartilage", fine, 0.06)
    canvas.paint(np.maximum(canvas.box(0, 0, gap + 1, 42, corner=1), -cartilage - 0.5), "fluid")
    for bone in (femur, tibia, canvas.ellipse(38, 43, 26, 7)):
        canvas.paint(bone, "bone")
        canvas.paint(bone + 1.3, "marrow", marrow, 0.20)
    for side in (-1.0, 1.0):
        canvas.paint(np.maximum(canvas.ellipse(0, side * 41, 4.6, 14), np.abs(canvas.y) - 4), "ligament")
        canvas.paint(canvas.box(6, side * 47, 34, 1.7, corner=1, angle=side * 0.05), "ligament")
    canvas.paint(canvas.box(-8, 2, 14, 2.6, corner=1.5, angle=0.5 + 0.3 * z), "ligament", fine, 0.3)
    canvas.paint(np.maximum(leg + 12, (2.6 - fields.at("vessels", z, 8)) * 4), "vessel")


def _draw_spine(canvas: Canvas, z: float, fields: Fields) -> None:
    fine, marrow = fields.at("fine", z, 2.6, speed=3.0), fields.at("marrow", z, 3.4, speed=2.0)
    body = canvas.box(0, 2, 160, 88 - 6 * abs(z), corner=30) + 3 * fields.at("outline", z, 90, speed=0.4)
    canvas.paint(body, "fat", fine, 0.06)
    canvas.paint(np.maximum(body + 14, 0.2 - fields.at("organs", z, 26, speed=1.5)), "muscle", fields.at("bowel", z, 6, speed=2), 0.25)
    bend = np.float32(10) * np.sin(canvas.y / np.float32(65))
    axis, canvas.x = canvas.x, canvas.x - bend
    canvas.paint(np.maximum(canvas.box(0, 50, 150, 22, corner=8), body + 12), "muscle", fields.at("fibres", z, 5, anisotropy=3), 0.2)
    canvas.paint(np.maximum(canvas.box(0, 50, 150, 22, corner=8), np.abs(fields.at("strands", z, 18, anisotropy=3)) * 8 - 0.8), "fat")
    canvas.paint(canvas.box(0, 17, 155, 9.5 - 2 * abs(z)), "csf", fine, 0.05)
    canvas.paint(canvas.box(-25, 17, 105, 4.6 - 1.5 * abs(z)), "cord", fine, 0.05)
    roots = np.abs(canvas.x - 17 - 2.5 * fields.at("roots", z, 40)) - 0.6
    canvas.paint(np.maximum(roots, canvas.box(110, 17, 45, 8)), "cord")
    canvas.paint(canvas.box(0, 27, 155, 1.2, corner=1), "ligament")
    for level in range(-4, 5):
        y = level * 33.0
        canvas.paint(canvas.box(y, -10, 16.5, 17, corner=4), "ligament")
        canvas.paint(canvas.box(y, -10, 12.2, 16.2, corner=4), "marrow", marrow, 0.14)
        canvas.paint(canvas.ellipse(y + 1, -20, 5, 1.3), "vessel")
        canvas.paint(canvas.ellipse(y + 16.5, -10, 4.2, 16), "disc", fine, 0.08)
        canvas.paint(canvas.ellipse(y + 16.5, -10, 2.0, 10), "nucleus")
        canvas.paint(canvas.box(y + 10, 38, 6.5, 9, corner=4, angle=0.35), "bone")
        canvas.paint(canvas.box(y + 10, 38, 4.8, 7.4, corner=3, angle=0.35), "marrow", marrow, 0.14)
    canvas.x = axis
    canvas.paint(canvas.box(0, -40, 150, 7, corner=5, angle=0.05), "vessel", fine, 0.2)


_BRAIN = {
    "T1": {"fat": 1.0, "bone": 0.08, "csf": 0.16, "gray": 0.5, "white": 0.72, "vessel": 0.9},
    "T2": {"fat": 0.62, "bone": 0.06, "csf": 1.0, "gray": 0.55, "white": 0.38, "vessel": 0.08},
    "FLAIR": {"fat": 0.7, "bone": 0.06, "csf": 0.1, "gray": 0.66, "white": 0.48, "vessel": 0.12},
}
_KNEE_PD = {"fat": 0.85, "bone": 0.05, "marrow": 0.7, "muscle": 0.4, "cartilage": 0.62, "fluid": 0.9, "ligament": 0.1, "vessel": 0.15}
_KNEE = {
    "PD": _KNEE_PD,
    "PD_FS": {**_KNEE_PD, "fat": 0.14, "marrow": 0.17, "muscle": 0.42, "cartilage": 0.7, "fluid": 1.0, "vessel": 0.8},
    "T1": {**_KNEE_PD, "fat": 1.0, "marrow": 0.85, "muscle": 0.35, "cartilage": 0.45, "fluid": 0.2},
}
_SPINE_T2 = {"fat": 0.75, "bone": 0.1, "marrow": 0.42, "muscle": 0.25, "csf": 1.0, "cord": 0.42}
_SPINE_T2 |= {"disc": 0.3, "nucleus": 0.75, "ligament": 0.06, "vessel": 0.08}
_SPINE = {
    "T2": _SPINE_T2,
    "T1": {**_SPINE_T2, "fat": 1.0, "marrow": 0.6, "muscle": 0.35, "csf": 0.18, "cord": 0.5, "disc": 0.4, "nucleus": 0.35},
    "STIR": {**_SPINE_T2, "fat": 0.12, "marrow": 0.2, "muscle": 0.35, "csf": 1.0, "cord": 0.5, "nucleus": 0.8},
}
ANATOMIES: dict[str, Anatomy] = {
    "brain": Anatomy(
        draw=_draw_brain,
        orientation="AX",
        fov_mm=(220, 220),
        slice_mm=5.0,
        aspect=(1.0, 1.0),
        num_coils=8,
        coil_arc=2 * np.pi,
        signals=_BRAIN,
    ),
    "knee": Anatomy(
        draw=_draw_knee,
        orientation="COR",
        fov_mm=(170, 153),
        slice_mm=3.0,
        aspect=(1.0, 0.9),
        num_coils=6,
        coil_arc=2 * np.pi,
        signals=_KNEE,
    ),
    "spine": Anatomy(
        draw=_draw_spine,
        orientation="SAG",
        fov_mm=(300, 200),
        slice_mm=4.0,
        aspect=(1.2, 0.8),
        num_coils=4,
        coil_arc=np.pi * 1.5,
        signals=_SPINE,
    ),
}
