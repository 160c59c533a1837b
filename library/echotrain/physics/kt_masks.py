"""What is acquired of each frame of a slice: sampling masks over (frame, ky, kx) as pure functions.

The kinds are those of the CMRxRecon challenges, made by rule for any matrix and number of frames: no bank of masks is needed.
NumPy only, as ``physics.masks``.
"""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from echotrain.errors import ConfigError
from echotrain.physics.masks import central
from echotrain.seeding import derive_seed

__all__ = ["KtMaskConfig", "KtMaskKind", "KtSampling", "check_kt_mask", "kt_mask"]

KtMaskKind = Literal["uniform", "kt_uniform", "kt_gaussian", "kt_radial"]
Mask = NDArray[np.bool_]

# Share of the angle between two spokes by which a frame is turned against the one before: no two frames ever lie alike.
_GOLDEN = (math.sqrt(5) - 1) / 2
# What the line density of kt-Gaussian has everywhere, and its width as a share of the matrix.
_FLOOR, _WIDTH = 0.1, 0.2


@dataclass(frozen=True, kw_only=True)
class KtMaskConfig:
    """How the frames of a slice are undersampled.

    R counts what is acquired **besides** the fully sampled centre (ACS), as the challenges count it, and holds in every frame. So the
    rate over all of k-space is lower: 128 lines at R = 4 with an ACS of 20 are 32 + 20 lines of kt-Gaussian, 2.5x.

    Attributes:
        kinds: ``uniform``: every R-th line, the same in every frame; ``kt_uniform``: every R-th line, one further with each frame;
            ``kt_gaussian``: width / R lines outside of the ACS, denser near the centre, each as evenly over the
            frames as can be;
            ``kt_radial``: height * width / R points outside of the ACS, along spokes that turn from frame to frame. One is drawn for each
            mask.
        accelerations: R, 4 to 24 in the challenges; one is drawn for each mask, independently of its kind.
        acs_lines: Lines of the ACS; for ``kt_radial`` the side of its square.
        random_start: Draw the line, or the angle, that the pattern of frames begins at; else it is the first one, as in the challenges
            (``1:R:end``), and patterns but kt-Gaussian's are the same for every sample of one R and size.
        alpha: Weight of the Gaussian in the density of kt-Gaussian's lines; 0.2 in the challenge of 2025, 0.28 by default in its code.
    """

    kinds: tuple[KtMaskKind, ...] = ("uniform",)
    accelerations: tuple[float, ...] = (8,)
    acs_lines: int = 20
    random_start: bool = False
    alpha: float = 0.2

    def __post_init__(self) -> None:
        if not self.kinds or not self.accelerations:
            raise ConfigError("a mask without kind or acceleration", "at least one of each is needed", "Say, uniform and 8.")
        if self.acs_lines < 1:
            raise ConfigError(f"acs_lines={self.acs_lines}", "must be at least 1: coils are estimated from them", "Use 20, as CMRxRecon.")
        if not 0 <= self.alpha < 1:
            raise ConfigError(f"alpha={self.alpha:g}", "must lie in [0, 1)", "Use 0.2, as CMRxRecon 2025.")
        for kind, acceleration in self.combinations():
            if not math.isfinite(acceleration) or acceleration < 1 or (kind in ("uniform", "kt_uniform") and acceleration % 1 != 0):
                raise ConfigError(f"acceleration={acceleration:g}", f"cannot be sampled by {kind}", "Use a whole number of at least 1.")

    @property
    def kinds_of_points(self) -> tuple[KtMaskKind, ...]:
        """Those of its kinds that do not acquire whole lines of a frame."""
        return tuple(kind for kind in self.kinds if kind == "kt_radial")

    def combinations(self) -> list[tuple[KtMaskKind, float]]:
        """Return every kind with every acceleration."""
        return list(itertools.product(self.kinds, self.accelerations))


class KtSampling(NamedTuple):
    """The masks of all frames of a slice, and how they came about.

    Attributes:
        mask: True where k-space is acquired: (frame, 1, width) of whole lines, (frame, height, width) of anything else.
        kind, acceleration: What was drawn.
        acs_lines: Lines of the fully sampled centre, or the side of its square.
    """

    mask: Mask
    kind: KtMaskKind
    acceleration: float
    acs_lines: int

    @property
    def has_whole_lines(self) -> bool:
        """Whether each frame is sampled by whole phase-encode lines, and its ACS is of lines."""
        return bool(self.mask.shape[1] == 1)


def kt_mask(
    config: KtMaskConfig,
    shape: tuple[int, int, int],
    *,
    seed: int,
    dataset: str,
    volume: str,
    epoch: int | None,
    slice: int | None = None,
    padding_left: int = 0,
    padding_right: int | None = None,
) -> KtSampling:
    """Draw the masks of all frames of a slice together, so that their pattern over frames is one.

    Args:
        config: What to draw.
        shape: (frame, height, width) of the slice's k-space.
        seed: The run's seed; it matters in training only.
        dataset: Collection the volume belongs to.
        volume: Id of the volume in it.
        epoch: The training epoch, or None in validation and test, where masks depend on the volume alone.
        slice: In training, gives each slice its own masks; None gives a volume one pattern per epoch.
        padding_left: Lines before this one were never measured (partial Fourier) and leave the masks.
        padding_right: Lines from this one on were never measured; None where all were.

    Raises:
        ConfigError: A mask of the configuration does not fit the matrix.
    """
    frames, height, width = shape
    check_kt_mask(config, height, width)
    identity = () if epoch is None else (epoch,) if slice is None else (epoch, slice)
    # NumPy's frozen legacy interface, whose streams never change between releases.
    seed = derive_seed(seed if epoch is not None else 0, "kt_mask", dataset, volume, *identity)
    rng = np.random.RandomState(np.random.PCG64(seed))
    kind = config.kinds[rng.randint(len(config.kinds))]
    acceleration = config.accelerations[rng.randint(len(config.accelerations))]
    start = rng.uniform() if config.random_start else 0.0
    if kind == "kt_radial":
        mask = _radial(frames, height, width, acceleration, config.acs_lines, start).copy()
    else:
        if kind == "kt_gaussian":
            lines = _gaussian(frames, width, acceleration, config, rng)
        else:
            lines = _lattice(frames, width, int(acceleration), int(start * acceleration), shear=int(kind == "kt_uniform"))
        lines[:, central(width, config.acs_lines)] = True
        mask = lines[:, None, :]
    mask[..., :padding_left] = False
    mask[..., width if padding_right is None else padding_right :] = False
    return KtSampling(mask, kind, acceleration, config.acs_lines)


def check_kt_mask(config: KtMaskConfig, height: int, width: int) -> None:
    """Refuse a configuration of which some mask does not fit a matrix.

    Raises:
        ConfigError: The ACS is larger than the matrix, or the matrix has too few lines or points for a rate.
    """
    acs = config.acs_lines
    for kind, acceleration in config.combinations():
        is_radial = kind == "kt_radial"
        if acs > width or (is_radial and acs > height):
            raise ConfigError(
                f"acs_lines={acs}", f"is more than a matrix of {height}x{width} has for {kind}", "Use fewer, or leave such data out."
            )
        wanted = _num_samples(height * width if is_radial else width, acceleration)
        there = height * width - acs * acs if is_radial else width - acs
        if wanted < 1 or (kind in ("kt_gaussian", "kt_radial") and wanted > there):
            raise ConfigError(
                f"{kind} at acceleration={acceleration:g} with acs_lines={acs}",
                f"takes {wanted} of the {there} {'points' if is_radial else 'lines'} outside of the ACS of a {height}x{width} matrix",
                "Use a higher acceleration or fewer ACS lines." if wanted else "Use a lower acceleration.",
            )


def _num_samples(total: int, acceleration: float) -> int:
    return math.floor(total / acceleration + 0.5)


def _lattice(frames: int, width: int, spacing: int, start: int, *, shear: int) -> Mask:
    """Sample every ``spacing``-th line, ``shear`` lines further with each frame: ``1:R:end``, or a sheared lattice."""
    first = start + shear * np.arange(frames)
    return np.asarray((np.arange(width)[None, :] - first[:, None]) % spacing == 0)


def _gaussian(frames: int, width: int, acceleration: float, config: KtMaskConfig, rng: np.random.RandomState) -> Mask:
    """Acquire each line outside of the ACS as often as a density says, evenly over the frames, from a drawn phase on.

    Density ``0.1 + alpha / (1 - alpha) exp(-p^2 / sigma^2)`` with ``sigma = width / 5``: CMRxReconMaskGeneration's ktGaussian, after
    Ahmad et al., MRM 2015 (VISTA). Deviation: there each frame is drawn on its own, and Moero then moves lines that an earlier frame has to
    the nearest that none has, by which later frames lose lines and lie at the edges. Here each frame takes the lines that are most
    overdue: R is exact and the density holds in every frame, and a line that is due every n frames comes about every n frames.
    """
    outside = np.ones(width, bool)
    outside[central(width, config.acs_lines)] = False
    candidates, count = np.flatnonzero(outside), _num_samples(width, acceleration)
    offset = candidates - width // 2
    per_frame = _rates(_FLOOR + config.alpha / (1 - config.alpha) * np.exp(-((offset / (_WIDTH * width)) ** 2)), count)
    lines = np.zeros((frames, width), bool)
    due = rng.uniform(size=len(candidates))
    for frame in lines:
        due += per_frame
        taken = np.argsort(-due, kind="stable")[:count]
        due[taken] -= 1
        frame[candidates[taken]] = True
    return lines


def _rates(density: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return rates in proportion to a density, none above 1, that sum to ``count``."""
    rates: NDArray[np.float64] = density * (count / density.sum())
    while rates.max() > 1:
        full = rates >= 1
        rates[full] = 1
        rates[~full] *= (count - full.sum()) / rates[~full].sum()
    return rates


@functools.lru_cache(maxsize=16)
def _radial(frames: int, height: int, width: int, acceleration: float, acs: int, start: float) -> Mask:
    """Sample the points nearest to equally spaced spokes through the centre, and the square around it; not to be written to.

    There are as many spokes, about one point wide, as the rate allows. Deviations from CMRxReconMaskGeneration's ktRadial: the number of
    points is that of the rate, for any matrix, where there ``floor(180 / (0.6 R))`` spokes are drawn; and a frame turns by the golden
    section of the angle between two spokes, where there it turns by 137.5 degrees, which for some numbers of spokes is nearly none.
    """
    y, x = np.arange(height)[:, None] - height // 2, np.arange(width)[None, :] - width // 2
    count = _num_samples(height * width, acceleration)
    spacing = math.pi / max(1, round(count / _points_per_spoke(height, width, acs)))
    radius, turns = np.hypot(y, x), np.arctan2(y, x) / spacing
    square = np.zeros((height, width), bool)
    square[central(height, acs), central(width, acs)] = True
    masks = np.empty((frames, height, width), bool)
    for frame, mask in enumerate(masks):
        from_spoke = turns - (start + _GOLDEN * frame)
        from_spoke -= np.rint(from_spoke)
        # Rounded, points that are equally far are so on every machine.
        distance = np.rint(radius * np.abs(np.sin(spacing * from_spoke)) * 1e6).astype(np.int32)
        distance[square] = np.iinfo(np.int32).max
        limit = np.partition(distance, count - 1, axis=None)[count - 1]
        mask[:] = (distance < limit) | square
        at_limit = np.flatnonzero(distance == limit)
        mask.reshape(-1)[at_limit[: count - np.count_nonzero(distance < limit)]] = True
    return masks


def _points_per_spoke(height: int, width: int, acs: int) -> float:
    """Return how many points of a grid a line through its centre has outside of the square, on average over its angle."""
    angles = (np.arange(180) + 0.5) * math.pi / 180
    across, down = np.abs(np.cos(angles)), np.abs(np.sin(angles))
    lengths = np.minimum(width / across, height / down) * np.maximum(across, down)
    return max(1.0, float(np.mean(np.maximum(lengths - acs, 0))))
