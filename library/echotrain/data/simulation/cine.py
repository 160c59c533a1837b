"""Simulated examinations of the heart of several centres, as MATLAB v7.3 files in CMRxRecon's folders.

They are called as that data set's, for its reader reads them; whoever prepares them names the collection ``simulated-cine``. The same
configuration writes the same bytes on any machine with the same libraries.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echotrain.data.formats.write import write_matlab
from echotrain.data.simulation.acquisition import measured
from echotrain.data.simulation.coils import loop_sensitivities, smooth_phase
from echotrain.data.simulation.heart import SIGNALS, Heart, draw_heart, relaxed_signals
from echotrain.errors import ConfigError
from echotrain.log import track
from echotrain.seeding import numpy_generator

__all__ = ["CINE_DATASET", "EXAMINATIONS", "CineConfig", "simulate_cine"]

CINE_DATASET = "simulated-cine"
_MIN_MATRIX, _MIN_FRAMES = 32, 3
_SLICE_MM = 10.0
_FOV_MM = 320.0
# All images of a T1 map are taken at rest, late in the cycle.
_AT_REST = 0.85


@dataclass(frozen=True, kw_only=True)
class _Scanner:
    """Where a person is examined.

    Attributes:
        center, vendor: Folders of CMRxRecon's.
        num_coils: Receive coils.
        aspect: Phase encodes over readout; also the field of view's.
        extra: Added to both sizes, so that some are odd.
    """

    center: str
    vendor: str
    num_coils: int
    aspect: float
    extra: tuple[int, int]


_SCANNERS = (
    _Scanner(center="Center001", vendor="UIH_30T_umr780", num_coils=4, aspect=0.8, extra=(0, 0)),
    _Scanner(center="Center002", vendor="Siemens_15T_Avanto", num_coils=5, aspect=0.75, extra=(1, 1)),
    _Scanner(center="Center003", vendor="GE_30T_Voyager", num_coils=3, aspect=0.9, extra=(2, 1)),
)


@dataclass(frozen=True, kw_only=True)
class _Examination:
    """What is examined.

    Attributes:
        folder: CMRxRecon's modality.
        view: Of the heart.
        kind: ``cine``, every phase of the cycle; ``mapping``, several times after an inversion; ``single``, one image.
    """

    folder: str
    view: str
    kind: str


EXAMINATIONS: dict[str, _Examination] = {
    "cine_sax": _Examination(folder="Cine", view="sax", kind="cine"),
    "cine_lax": _Examination(folder="Cine", view="lax", kind="cine"),
    "T1map": _Examination(folder="Mapping", view="sax", kind="mapping"),
    "blackblood": _Examination(folder="BlackBlood", view="sax", kind="single"),
}


@dataclass(frozen=True, kw_only=True)
class CineConfig:
    """What to simulate.

    Attributes:
        seed: Every file is a function of it.
        num_patients: People; they take turns over three centres.
        per_patient: Examinations of each; people take turns over ``examinations``.
        examinations: Names of ``EXAMINATIONS``.
        num_slices: Slices of each.
        num_frames: Of a cine; a T1 map has half of them and one more.
        matrix: Readout samples; the phase encodes are fewer, and some centres' sizes are odd.
        noise: Standard deviation of the noise of a coil image, relative to the signal of blood.
    """

    seed: int = 0
    num_patients: int = 9
    per_patient: int = 2
    examinations: tuple[str, ...] = ("cine_sax", "cine_lax", "T1map", "blackblood")
    num_slices: int = 2
    num_frames: int = 8
    matrix: int = 64
    noise: float = 0.01

    def __post_init__(self) -> None:
        for name, least in (("num_patients", 1), ("per_patient", 1), ("num_slices", 1), ("num_frames", _MIN_FRAMES)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}", f"must be at least {least}", f"Raise {name}.")
        if not _MIN_MATRIX <= self.matrix <= 512 or not 0 <= self.noise < 1:
            raise ConfigError(f"matrix={self.matrix}, noise={self.noise}", f"must lie in {_MIN_MATRIX} to 512 and [0, 1)", "64 and 0.01.")
        unknown = [name for name in self.examinations if name not in EXAMINATIONS]
        if unknown or not self.examinations or self.per_patient > len(self.examinations):
            raise ConfigError(
                f"examinations={list(self.examinations)}, per_patient={self.per_patient}",
                f"must be some of {list(EXAMINATIONS)}, and no fewer than each patient has",
                "Name more of them.",
            )


def simulate_cine(config: CineConfig, folder: Path) -> list[Path]:
    """Write every examination of a configuration below ``folder`` and return the files' paths.

    Raises:
        StorageError: The folder cannot be written.
    """
    jobs = [(patient, scan) for patient in range(config.num_patients) for scan in range(config.per_patient)]
    return [_simulate(config, folder, patient, scan) for patient, scan in track(jobs, "Simulating hearts")]


def _simulate(config: CineConfig, folder: Path, patient: int, scan: int) -> Path:
    # People of one centre differ in what they are examined for first.
    turn = sum(divmod(patient, len(_SCANNERS))) + scan
    name = config.examinations[turn % len(config.examinations)]
    examination, scanner = EXAMINATIONS[name], _SCANNERS[patient % len(_SCANNERS)]
    heart = Heart.draw(numpy_generator(config.seed, "simulated heart", patient))
    rng = numpy_generator(config.seed, "simulated cine", patient, scan)
    shape = (config.matrix + scanner.extra[0], round(config.matrix * scanner.aspect) + scanner.extra[1])
    fov_mm = (_FOV_MM, _FOV_MM * scanner.aspect)
    moments = _moments(examination, config.num_frames)
    heights = np.linspace(-0.8, 0.8, config.num_slices).tolist() if config.num_slices > 1 else [0.2]
    images = np.stack([draw_heart(heart, examination.view, shape, fov_mm, z, moments) for z in heights])
    kspace = _acquire(images, fov_mm, scanner.num_coils, config.noise, rng)
    place = f"MultiCoil/{examination.folder}/TrainingSet/FullSample/{scanner.center}/{scanner.vendor}/P{patient + 1:03d}/{name}.mat"
    # [nx, ny, nc, nz, nt]
    write_matlab(folder / place, {"kspace": kspace.transpose(3, 4, 2, 0, 1)})
    return folder / place


def _moments(examination: _Examination, num_frames: int) -> list[tuple[float, Mapping[str, float]]]:
    if examination.kind == "cine":
        return [(frame / num_frames, SIGNALS["cine"]) for frame in range(num_frames)]
    if examination.kind == "mapping":
        return [(_AT_REST, signals) for signals in relaxed_signals(num_frames // 2 + 1)]
    return [(_AT_REST, SIGNALS["black blood"])]


def _acquire(images: np.ndarray, fov_mm: tuple[float, float], num_coils: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Return noisy k-space, complex64 (slices, frames, coils, ky, kx), of real images (slices, frames, y, x)."""
    num_slices, num_frames, height, width = images.shape
    phase = smooth_phase((height, width), rng)
    # Raw scanner numbers are small and their gain differs between scans.
    gain = np.float32(2e-4 * math.exp(rng.normal(0, 0.4)))
    coil_seed = int(rng.integers(2**63))
    kspace = np.empty((num_slices, num_frames, num_coils, height, width), np.complex64)
    for slice_ in range(num_slices):
        z_mm = (slice_ - (num_slices - 1) / 2) * _SLICE_MM
        coils = np.random.default_rng(coil_seed)
        maps = loop_sensitivities((height, width), fov_mm, z_mm, num_coils=num_coils, arc=2 * np.pi, rng=coils) * phase
        for frame in range(num_frames):
            kspace[slice_, frame] = measured(maps * images[slice_, frame], noise, rng)
    return kspace * gain
