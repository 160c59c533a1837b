"""Simulated multi-coil acquisitions, honestly called simulated, as fastMRI-layout files.

Dataset, vendor, protocol name and acquisition of every file say ``simulated``. The same configuration writes
the same bytes on any machine with the same libraries.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echotrain.data.formats.header import VolumeHeader
from echotrain.data.formats.target import rss_target
from echotrain.data.formats.write import write_fastmri
from echotrain.data.formats.xml_header import header_xml
from echotrain.data.simulation.acquisition import measured
from echotrain.data.simulation.anatomy import ANATOMIES, draw_volume
from echotrain.data.simulation.coils import loop_sensitivities, smooth_phase
from echotrain.data.simulation.head import load_head, section_head
from echotrain.errors import ConfigError
from echotrain.log import track
from echotrain.seeding import numpy_generator

__all__ = ["DATASET", "SimulationConfig", "simulate"]

DATASET = "simulated"
_MIN_MATRIX = 32


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """What to simulate.

    Attributes:
        seed: Every file is a function of it.
        num_patients: People; they take turns over ``anatomies``.
        volumes_per_patient: Scans of each, of different contrasts.
        num_slices: Slices per volume.
        matrix: Base matrix size; anatomies deviate from it (spine: 1.2 x 0.8).
        anatomies: Classes to draw.
        noise: Standard deviation of the noise of a coil image, relative to the signal of bright tissue.
        partial_fourier: Part of the phase-encode lines that is measured; below 1 the first lines are zero.
        head: NIfTI head volume used for the brain class instead of a drawing; "" draws. All its scans are one patient's.
    """

    seed: int = 0
    num_patients: int = 18
    volumes_per_patient: int = 2
    num_slices: int = 6
    matrix: int = 160
    anatomies: tuple[str, ...] = ("brain", "knee", "spine")
    noise: float = 0.01
    partial_fourier: float = 1.0
    head: str = ""

    def __post_init__(self) -> None:
        for name in ("num_patients", "volumes_per_patient", "num_slices"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}", "must be at least 1", f"Raise {name}.")
        if not _MIN_MATRIX <= self.matrix <= 1024:
            raise ConfigError(f"matrix={self.matrix}", f"must lie in {_MIN_MATRIX} to 1024", "128 to 192 is quick and shows detail.")
        unknown = [name for name in self.anatomies if name not in ANATOMIES]
        if unknown or not self.anatomies:
            raise ConfigError(f"anatomies={list(self.anatomies)}", f"must be some of {list(ANATOMIES)}", "Name at least one of these.")
        if not 0.5 < self.partial_fourier <= 1 or not 0 <= self.noise < 1:
            raise ConfigError(
                f"partial_fourier={self.partial_fourier}, noise={self.noise}",
                "must lie in (0.5, 1] and [0, 1)",
                "1.0 and 0.01 are the defaults.",
            )


def simulate(config: SimulationConfig, folder: Path) -> list[Path]:
    """Write every volume of a configuration into ``folder`` and return the files' paths.

    Raises:
        ScanError: ``config.head`` cannot be read.
        StorageError: The folder cannot be written.
    """
    head = load_head(Path(config.head)) if config.head else None
    jobs = [(patient, scan) for patient in range(config.num_patients) for scan in range(config.volumes_per_patient)]
    return [_simulate_volume(config, folder, patient, scan, head) for patient, scan in track(jobs, "Simulating scans")]


def _simulate_volume(
    config: SimulationConfig, folder: Path, patient: int, scan: int, head: tuple[np.ndarray, tuple[float, float, float]] | None
) -> Path:
    name = config.anatomies[patient % len(config.anatomies)]
    anatomy = ANATOMIES[name]
    is_real_head = head is not None and name == "brain"
    contrasts = ["T1"] if is_real_head else list(anatomy.signals)
    contrast = contrasts[(patient // len(config.anatomies) + scan) % len(contrasts)]
    height, width = (8 * max(round(config.matrix * part / 8), 1) for part in anatomy.aspect)
    # One generator per person for the object, one per scan for coils, phase, gain and noise.
    person = numpy_generator(config.seed, "simulated patient", patient)
    rng = numpy_generator(config.seed, "simulated scan", patient, scan)
    if head is not None and is_real_head:
        images = section_head(head, (height, width), anatomy.fov_mm, config.num_slices, rng)
    else:
        images = draw_volume(name, contrast, (height, width), config.num_slices, person)
    kspace = _acquire(images, anatomy.fov_mm, anatomy.slice_mm, anatomy.num_coils, anatomy.coil_arc, config.noise, rng)
    measured = math.ceil(width * config.partial_fourier)
    kspace[..., : width - measured] = 0
    target = np.stack([rss_target(slice_, (height, width)) for slice_ in kspace])
    header = VolumeHeader(
        dataset=DATASET,
        volume=f"simulated_{name}_{patient:03d}_{scan}_{contrast.lower()}",
        patient=f"simulated patient {'head' if is_real_head else patient}",
        vendor="simulated",
        field_strength=3.0,
        num_slices=config.num_slices,
        num_coils=anatomy.num_coils,
        height=height,
        width=width,
        recon_height=height,
        recon_width=width,
        fov_mm=(*anatomy.fov_mm, anatomy.slice_mm),
        padding_left=width - measured,
        padding_right=width,
    )
    words = {"AX": "axial", "COR": "coronal", "SAG": "sagittal"}
    path = folder / f"{header.volume}.h5"
    write_fastmri(
        path,
        header=header_xml(header, protocol=f"simulated {words[anatomy.orientation]} {contrast} {name}"),
        kspace=kspace,
        target=target,
        attributes={
            "dataset": DATASET,
            "patient_id": header.patient,
            "acquisition": f"SIM_{anatomy.orientation}{contrast}",
            "anatomy": name,
            "contrast": contrast,
            "max": float(target.max()),
            "norm": float(np.linalg.norm(target)),
            "simulated": True,
        },
    )
    return path


def _acquire(
    images: np.ndarray, fov_mm: tuple[float, float], slice_mm: float, num_coils: int, arc: float, noise: float, rng: np.random.Generator
) -> np.ndarray:
    """Return noisy k-space, complex64 (slices, coils, height, width), of real images (slices, height, width)."""
    num_slices, height, width = images.shape
    phase = smooth_phase((height, width), rng)
    # Raw scanner numbers are small and their gain differs between scans.
    gain = np.float32(2e-4 * math.exp(rng.normal(0, 0.4)))
    coil_seed = int(rng.integers(2**63))
    kspace = np.empty((num_slices, num_coils, height, width), dtype=np.complex64)
    for index, image in enumerate(images):
        z_mm = (index - (num_slices - 1) / 2) * slice_mm
        maps = loop_sensitivities((height, width), fov_mm, z_mm, num_coils=num_coils, arc=arc, rng=np.random.default_rng(coil_seed))
        kspace[index] = measured(maps * (image * phase), noise, rng)
    return kspace * gain
