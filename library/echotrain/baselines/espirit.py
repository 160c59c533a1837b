"""ESPIRiT: coil maps from the centre of k-space, then a SENSE reconstruction with total variation, both by BART.

Source: Uecker et al., MRM 71:990, 2014, with the settings of MosaicMRI (arXiv:2604.11762, A.2), which are those of fastMRI's
``run_bart.py`` (MIT): ``ecalib -m1 -r num_low_frequencies``, then ``pics -S -R T:7:0:0.01 -i 200``. Where we deviate:

- Along the readout, the calibration region is never smaller than BART's default of 24 samples. With ``-r 11`` BART would calibrate
  on 11 x 11 samples, fewer equations than a kernel has unknowns; the readout is fully sampled, so more of it costs nothing.
- The kernel, 6 x 6, is narrowed to half of the centre's lines where those are fewer than 12: BART's own assertions fail below 6.
- Where fastMRI's masks put the centre a line beside the one where BART searches (an odd number of lines in an even matrix, or the
  reverse), ``ecalib`` would lose two lines. It gets k-space moved by a line: a calibration matrix knows no absolute position, so
  the maps stay the same.
- Along axes of odd size, ``pics`` of BART 0.7 to 0.9 moves the data by a pixel against the maps (it modulates both in one direction;
  mended in 1.0), which costs 30 dB. Whether the BART at hand does so is tried once, and its maps moved along.

Scale: BART's Fourier transform is orthonormal, ESPIRiT's maps have an RSS of 1, and ``-S`` undoes the scaling that ``pics`` chooses from
the data. So the result is the RSS image itself where the maps are, less what noise adds to an RSS; where the maps are cut off it is
next to 0, while an RSS of many coils has its noise floor there. SSIM against an RSS target pays for that.
"""

import functools
import logging
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from echotrain.baselines.bart import Bart, find_bart
from echotrain.baselines.cfl import ComplexArray
from echotrain.errors import ConfigError, ScanError

__all__ = ["EspiritConfig", "reconstruct"]

logger = logging.getLogger(__name__)

_KERNEL = 6
_MIN_READOUT = 24
_MIN_LINES = 2
_MIN_MATRIX = 16
_LINES_AXIS = 2


@dataclass(frozen=True, kw_only=True)
class EspiritConfig:
    """How ESPIRiT reconstructs.

    Attributes:
        regularization: Weight of the total variation, relative to BART's own scaling of the data; 0 leaves it out.
        iterations: Of ``pics`` (ADMM).
        maps: Sets of coil maps. One is the paper's; two are for objects larger than the field of view, which one cannot describe.
        timeout_s: Longest run of either tool, in seconds.
    """

    regularization: float = 0.01
    iterations: int = 200
    maps: int = 1
    timeout_s: float = 1800.0

    def __post_init__(self) -> None:
        if not 0 <= self.regularization < math.inf:
            raise ConfigError(f"regularization={self.regularization:g}", "must be 0 or a positive number", "The paper's is 0.01.")
        for name in ("iterations", "maps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}", "must be at least 1", f"The paper's is {getattr(EspiritConfig, name)}.")
        if not 0 < self.timeout_s < math.inf:
            raise ConfigError(f"timeout_s={self.timeout_s:g}", "must be a positive number of seconds", "1800 is the default.")


def reconstruct(kspace: ComplexArray, num_low_frequencies: int, config: EspiritConfig | None = None) -> NDArray[np.float32]:
    """Reconstruct one slice on one core.

    The time grows with coils x pixels x iterations; BART's memory is about ``4 * coils * (coils + 1) * pixels`` bytes.

    Args:
        kspace: complex64 (coils, height, width), centred, zero where not acquired; coils that are zero everywhere are left out.
        num_low_frequencies: Fully sampled centre lines, of which those are used that k-space has.
        config: Settings; None for the paper's.

    Returns:
        Magnitude, float32 (height, width), in units of the RSS of the orthonormal inverse FFT. Zeros for k-space of zeros, and, with a
        warning, where the centre's samples are too few to find any map.

    Raises:
        ScanError: k-space is of another shape or type, or not finite.
        ConfigError: The centre has fewer than 2 lines, or there are more sets of maps than coils.
        ResourceError: BART is not there.
        BartError: BART failed or took too long.
        StorageError: There is no room for the files that BART is given.
    """
    config = config or EspiritConfig()
    scale = _scale(kspace)
    if scale == 0:
        return np.zeros(kspace.shape[1:], np.float32)
    coils = kspace[kspace.any(axis=(1, 2))]
    if config.maps > len(coils):
        raise ConfigError(f"maps={config.maps}", f"cannot exceed the {len(coils)} coils", "Lower maps.")
    start, num_lines = _center_lines(coils, num_low_frequencies)
    # BART's dimensions: an empty readout, two phase encodes, coils; its maps and image keep this order.
    data = (coils / np.float32(scale)).transpose(1, 2, 0)[None]
    bart = Bart(executable=find_bart(), timeout_s=config.timeout_s)
    centered = np.roll(data, (data.shape[_LINES_AXIS] - num_lines) // 2 - start, axis=_LINES_AXIS)
    (maps,) = bart.run("ecalib", ["-d0", f"-m{config.maps}", *_calibration(data.shape[1], num_lines)], [centered])
    if not maps.any():
        logger.warning("ESPIRiT found no coil maps in k-space %s with %d centre lines; the image is 0", kspace.shape, num_lines)
        return np.zeros(kspace.shape[1:], np.float32)
    image = _solve(bart, data, maps, config)
    # Sets of maps add up like coils.
    magnitude = np.linalg.norm(image.reshape(*kspace.shape[1:], config.maps), axis=-1)
    return np.asarray(magnitude * np.float32(scale), dtype=np.float32)


def _solve(bart: Bart, data: ComplexArray, maps: ComplexArray, config: EspiritConfig) -> ComplexArray:
    """Return the image that explains the data through the maps, one for each set of maps."""
    penalty = f"T:7:0:{config.regularization}"
    moved = [_slip(bart) if size % 2 and size > 1 else 0 for size in data.shape[:3]]
    shifted = np.roll(maps, moved, axis=(0, 1, 2))
    (image,) = bart.run("pics", ["-d0", "-S", "-R", penalty, "-i", str(config.iterations)], [data, shifted])
    return np.roll(image, [-pixels for pixels in moved], axis=(0, 1, 2))


@functools.lru_cache
def _slip(bart: Bart) -> int:
    """Return by how many pixels ``pics`` moves an image along axes of odd size, tried on a point at the centre."""
    flat = np.ones((1, 5, 5, 1), np.complex64)
    (image,) = bart.run("pics", ["-d0", "-i", "5"], [flat, flat])
    return int(np.abs(image).argmax()) // 5 - 2


def _scale(kspace: ComplexArray) -> float:
    """Return the power of two next to the largest sample, 0 for zeros: in its units nothing under- or overflows when BART squares it."""
    if kspace.dtype != np.complex64 or kspace.ndim != 3 or 0 in kspace.shape or min(kspace.shape[1:]) < _MIN_MATRIX:
        raise ScanError(
            f"k-space of {kspace.dtype} {kspace.shape}",
            f"must be complex64 (coils, height, width), at least {_MIN_MATRIX} x {_MIN_MATRIX}",
            "Pass one slice at a time.",
        )
    peak = float(np.abs(kspace).max())
    if not math.isfinite(peak):
        raise ScanError(f"k-space with a sample of {peak}", "must be finite", "Leave this slice out; prepare does.")
    return 2.0 ** math.frexp(peak)[1] if peak else 0.0


def _center_lines(kspace: ComplexArray, num_low_frequencies: int) -> tuple[int, int]:
    """Return the first and the number of the lines around the centre that are acquired without a gap."""
    width = kspace.shape[-1]
    center, first = width // 2, max((width - num_low_frequencies + 1) // 2, 0)
    is_center = np.zeros(width, dtype=bool)
    is_center[first : first + max(num_low_frequencies, 0)] = True
    gaps = np.flatnonzero(~(is_center & kspace.any(axis=(0, 1))))
    start = int(max(gaps[gaps <= center], default=-1)) + 1
    stop = int(min(gaps[gaps >= center], default=width))
    if stop - start < _MIN_LINES:
        raise ConfigError(
            f"{max(stop - start, 0)} fully sampled centre lines (num_low_frequencies={num_low_frequencies})",
            f"ESPIRiT calibrates on at least {_MIN_LINES}, and well on 24",
            "Use a mask with a larger center_fraction.",
        )
    return start, stop - start


def _calibration(height: int, num_lines: int) -> list[str]:
    """Return the size of the calibration region and of the kernel as options of ``ecalib``; the first dimension is empty."""
    rows = min(max(num_lines, _MIN_READOUT), height)
    narrow = min(_KERNEL, max(num_lines // 2, 2))
    return ["-r", f"1:{rows}:{num_lines}", "-k", f"1:{_KERNEL}:{narrow}"]
