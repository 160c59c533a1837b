"""Which phase-encode lines are acquired: Cartesian sampling masks as pure functions.

The five kinds are those of the public fastMRI code (``fastmri.data.subsample``, MIT), to the line: the same seed gives
the same mask. Two ways of seeding: fastMRI's, by file name, and the project's own, by a hash of the sample's identity.
NumPy only, so that whoever plans a fetch can ask for a mask without tensors.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from echotrain.errors import ConfigError
from echotrain.seeding import derive_seed

__all__ = [
    "LineSampling",
    "MaskConfig",
    "MaskKind",
    "central",
    "count_low_frequencies",
    "count_measured",
    "fewest_low_frequencies",
    "line_mask",
]

MaskKind = Literal["random", "equispaced", "equispaced_fraction", "magic", "magic_fraction"]
Lines = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """How phase-encode lines are undersampled.

    Attributes:
        kind: ``random``: each line outside the centre with equal probability; ``equispaced``: every R-th line;
            ``equispaced_fraction``: equally spaced such that the centre is paid for and the rate is R; ``magic`` and
            ``magic_fraction``: the same two, with offsets that use conjugate symmetry (Defazio, arXiv:1912.01101).
        accelerations: R; where there are several, one is drawn for each mask.
        center_fractions: Share of the lines that is fully sampled around the centre, drawn together with R.
        seeding: ``volume``: a hash of (seed, epoch, identity); ``fastmri``: validation and test masks are those that the
            public code makes for the volume's file name (its training masks have no seed; ours stay a hash).
        allow_any_combination: Draw R and the centre fraction independently of each other.
    """

    kind: MaskKind = "random"
    accelerations: tuple[float, ...] = (4,)
    center_fractions: tuple[float, ...] = (0.08,)
    seeding: Literal["volume", "fastmri"] = "volume"
    allow_any_combination: bool = False

    def __post_init__(self) -> None:
        if not self.accelerations or not self.center_fractions:
            raise ConfigError("a mask without acceleration or centre fraction", "at least one of each is needed", "Say, 4 and 0.08.")
        if len(self.accelerations) != len(self.center_fractions) and not self.allow_any_combination:
            raise ConfigError(
                f"{len(self.accelerations)} accelerations and {len(self.center_fractions)} center_fractions",
                "must pair up one to one",
                "Give as many of one as of the other, or set allow_any_combination=true.",
            )
        for acceleration in self.accelerations:
            if acceleration < 1 or (self.kind in ("equispaced", "magic") and acceleration % 1 != 0):
                raise ConfigError(
                    f"acceleration={acceleration:g}", f"cannot be sampled by kind={self.kind}", "Use a whole number of at least 1."
                )
        for center_fraction, acceleration in self.combinations():
            if not 0 <= center_fraction < 1 / acceleration:
                raise ConfigError(
                    f"center_fraction={center_fraction:g} at acceleration={acceleration:g}",
                    f"must lie in [0, {1 / acceleration:g}): the centre alone would exceed the lines that the acceleration allows",
                    "Lower the centre fraction or the acceleration.",
                )

    def combinations(self) -> list[tuple[float, float]]:
        """Return every centre fraction with the accelerations that it may be drawn with."""
        if self.allow_any_combination:
            return [(fraction, acceleration) for fraction in self.center_fractions for acceleration in self.accelerations]
        return list(zip(self.center_fractions, self.accelerations, strict=True))


class LineSampling(NamedTuple):
    """One mask, and how it came about.

    Attributes:
        mask: True where a line is acquired, shape (width,).
        num_low_frequencies: Lines of the fully sampled centre.
        acceleration: The nominal R that was drawn.
        offset: For ``equispaced`` alone, the first of the lines ``offset::R``; else None.
    """

    mask: Lines
    num_low_frequencies: int
    acceleration: float
    offset: int | None


def line_mask(
    config: MaskConfig,
    width: int,
    *,
    seed: int,
    dataset: str,
    volume: str,
    epoch: int | None,
    slice: int | None = None,
    padding_left: int = 0,
    padding_right: int | None = None,
) -> LineSampling:
    """Draw the mask of one volume, or of one slice of it.

    Args:
        config: What to draw.
        width: Phase-encode lines of the k-space matrix.
        seed: The run's seed; it matters in training only.
        dataset: Collection the volume belongs to.
        volume: Id of the volume in it.
        epoch: The training epoch, or None in validation and test, where the mask depends on the volume alone: every
            run, whatever its seed, is judged on the same lines.
        slice: In training, gives each slice its own mask; None gives a volume one mask per epoch.
        padding_left: Lines before this one were never measured (partial Fourier) and leave the mask.
        padding_right: Lines from this one on were never measured; None where all were.
    """
    rng = _generator(config, seed=seed, dataset=dataset, volume=volume, epoch=epoch, slice=slice)
    sampling = _draw(config, width, rng)
    sampling.mask[:padding_left] = False
    sampling.mask[width if padding_right is None else padding_right :] = False
    return sampling


def fewest_low_frequencies(config: MaskConfig, width: int) -> int:
    """Return how many central lines a mask has at least, before those go that were never measured."""
    return min(_num_low_frequencies(config.kind, width, *each) for each in config.combinations())


def central(size: int, num: int) -> slice:
    """Return where the ``num`` central lines of ``size`` lie, as masks and VarNet's sensitivity estimation have them."""
    first = (size - num + 1) // 2
    return slice(first, first + num)


def count_measured(size: int, num: int, padding_left: int, padding_right: int) -> int:
    """Return how many of the ``num`` central lines of ``size`` were measured, where partial Fourier begins or ends within them."""
    at = central(size, num)
    left: int = min(at.stop, padding_right) - max(at.start, padding_left)
    return max(0, left)


def count_low_frequencies(mask: Lines) -> int:
    """Return how many central lines of a given mask are acquired without a gap, symmetrically, at least 1.

    For files that bring their own mask. As fastMRI's VarNet counts them, except that a fully sampled half counts whole.
    """
    center = len(mask) // 2
    left = int(np.argmin(np.append(mask[:center][::-1], False)))
    right = int(np.argmin(np.append(mask[center:], False)))
    return max(2 * min(left, right), 1)


def _generator(config: MaskConfig, *, seed: int, dataset: str, volume: str, epoch: int | None, slice: int | None) -> np.random.RandomState:
    """Return NumPy's frozen legacy interface, whose streams never change between releases (over PCG64 where we are free: it seeds fast)."""
    if epoch is not None:
        identity = (dataset, volume, epoch) if slice is None else (dataset, volume, epoch, slice)
        return np.random.RandomState(np.random.PCG64(derive_seed(seed, "mask", *identity)))
    if config.seeding == "fastmri":
        file_name = volume if volume.endswith(".h5") else f"{volume}.h5"
        return np.random.RandomState([ord(character) for character in file_name])
    return np.random.RandomState(np.random.PCG64(derive_seed(0, "mask", dataset, volume)))


def _draw(config: MaskConfig, width: int, rng: np.random.RandomState) -> LineSampling:
    """Draw in fastMRI's order: first the rate, then the lines."""
    if config.allow_any_combination:
        center_fraction = float(rng.choice(config.center_fractions))
        acceleration = float(rng.choice(config.accelerations))
    else:
        choice = rng.randint(len(config.center_fractions))
        center_fraction, acceleration = config.center_fractions[choice], config.accelerations[choice]
    num_low = _num_low_frequencies(config.kind, width, center_fraction, acceleration)
    offset = None
    if config.kind == "random":
        lines = _random_lines(width, acceleration, num_low, rng)
    elif config.kind == "equispaced":
        offset = int(rng.randint(0, round(acceleration)))
        lines = np.zeros(width, dtype=bool)
        lines[offset :: int(acceleration)] = True
    elif config.kind == "equispaced_fraction":
        lines = _equispaced_fraction_lines(width, acceleration, num_low, rng)
    elif config.kind == "magic":
        lines = _magic_lines(width, int(acceleration), rng)
    else:
        remaining = round(width / acceleration) - num_low
        lines = _magic_lines(width, round(width / remaining), rng) if remaining > 0 else np.zeros(width, dtype=bool)

    lines[central(width, num_low)] = True
    return LineSampling(lines, num_low, acceleration, offset)


def _num_low_frequencies(kind: MaskKind, width: int, center_fraction: float, acceleration: float) -> int:
    num_low = round(width * center_fraction)
    return max(min(num_low, round(width / acceleration)), 1) if kind == "magic_fraction" else num_low


def _random_lines(width: int, acceleration: float, num_low: int, rng: np.random.RandomState) -> Lines:
    if num_low * acceleration >= width:  # rounding made the centre as large as the whole budget: no line is left to draw
        return np.zeros(width, dtype=bool)
    probability = (width / acceleration - num_low) / (width - num_low)
    return np.asarray(rng.uniform(size=width) < probability)


def _equispaced_fraction_lines(width: int, acceleration: float, num_low: int, rng: np.random.RandomState) -> Lines:
    lines = np.zeros(width, dtype=bool)
    if num_low * acceleration >= width:
        return lines
    spacing = acceleration * (num_low - width) / (num_low * acceleration - width)
    offset = rng.randint(0, round(spacing))
    lines[np.around(np.arange(offset, width - 1, spacing)).astype(int)] = True
    return lines


def _magic_lines(width: int, spacing: int, rng: np.random.RandomState) -> Lines:
    """Sample the two halves of k-space at offsets that complement each other under conjugate symmetry."""
    offset = int(rng.randint(0, spacing))
    offset_positive, offset_negative = (offset + 1, offset + 2) if offset % 2 == 0 else (offset + 2, offset - 1)
    positive = np.zeros((width + 1) // 2, dtype=bool)
    negative = np.zeros(width // 2, dtype=bool)
    positive[offset_positive::spacing] = True
    negative[offset_negative::spacing] = True
    return np.fft.fftshift(np.concatenate((positive, negative[::-1])))
