"""Drawing with tissues: soft-edged shapes in millimetres, and random fields for their texture."""

from collections.abc import Mapping

import numpy as np

__all__ = ["Canvas", "random_field"]


def random_field(rng: np.random.Generator, shape: tuple[int, int], wavelength: float, *, anisotropy: float = 1.0) -> np.ndarray:
    """Return a smooth periodic random field of unit standard deviation.

    Args:
        rng: Source of randomness.
        shape: Pixels (y, x).
        wavelength: Dominant wavelength in pixels.
        anisotropy: Above 1 stretches the structures along y, below 1 along x.
    """
    fy = np.fft.fftfreq(shape[0])[:, None] * anisotropy
    fx = np.fft.rfftfreq(shape[1])[None, :] / anisotropy
    radius = np.hypot(fy, fx) * wavelength
    # A ring in frequency: structures of one size, not only a blur.
    envelope = np.exp(-8 * (radius - 1) ** 2)
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * envelope, s=shape)
    return np.asarray(field / max(float(field.std()), 1e-12), dtype=np.float32)


class Canvas:
    """One slice under the brush: later shapes cover earlier ones, edges are a pixel soft.

    Attributes:
        y, x: Coordinates in millimetres of the patient's own axes: rotated and shifted against the image.
        image: Magnitude so far.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        fov_mm: tuple[float, float],
        signals: Mapping[str, float],
        *,
        rotation: float = 0.0,
        shift_mm: tuple[float, float] = (0.0, 0.0),
        scale: float = 1.0,
    ) -> None:
        self.pixel = max(fov_mm[0] / shape[0], fov_mm[1] / shape[1])
        rows = (np.arange(shape[0], dtype=np.float32) - shape[0] // 2) * (fov_mm[0] / shape[0]) - shift_mm[0]
        columns = (np.arange(shape[1], dtype=np.float32) - shape[1] // 2) * (fov_mm[1] / shape[1]) - shift_mm[1]
        cosine, sine = np.float32(np.cos(rotation) / scale), np.float32(np.sin(rotation) / scale)
        self.y = rows[:, None] * cosine + columns[None, :] * sine
        self.x = columns[None, :] * cosine - rows[:, None] * sine
        self.image = np.zeros(shape, dtype=np.float32)
        self._signals = signals

    def ellipse(self, y: float, x: float, radius_y: float, radius_x: float, angle: float = 0.0) -> np.ndarray:
        """Return the approximate signed distance in millimetres to an ellipse, negative inside."""
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        dy, dx = self.y - np.float32(y), self.x - np.float32(x)
        u, v = (dy * cosine + dx * sine) / np.float32(radius_y), (dx * cosine - dy * sine) / np.float32(radius_x)
        return (np.sqrt(u * u + v * v) - 1) * np.float32(min(radius_y, radius_x))

    def box(self, y: float, x: float, half_y: float, half_x: float, corner: float = 3.0, angle: float = 0.0) -> np.ndarray:
        """Return the signed distance in millimetres to a rounded rectangle, negative inside."""
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        dy, dx = self.y - np.float32(y), self.x - np.float32(x)
        u = np.abs(dy * cosine + dx * sine) - np.float32(half_y - corner)
        v = np.abs(dx * cosine - dy * sine) - np.float32(half_x - corner)
        return np.hypot(np.maximum(u, 0), np.maximum(v, 0)) + np.minimum(np.maximum(u, v), 0) - np.float32(corner)

    def paint(self, distance: np.ndarray, tissue: str, texture: np.ndarray | None = None, strength: float = 0.0) -> None:
        """Cover the inside of a shape with a tissue.

        Args:
            distance: Signed distance in millimetres, negative inside.
            tissue: Name in the contrast's table of signals.
            texture: Field that modulates the signal.
            strength: Modulation per standard deviation of ``texture``.
        """
        cover = np.clip(np.float32(0.5) - distance / np.float32(self.pixel), 0, 1)
        value: np.ndarray | float = self._signals[tissue]
        if texture is not None:
            value = value * np.clip(1 + np.float32(strength) * texture, 0.05, 3)
        self.image += cover * (value - self.image)
