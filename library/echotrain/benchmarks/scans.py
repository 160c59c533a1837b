"""Simulated scans of the size of fastMRI's knees, and a catalog of them: what preparing and evaluating are measured on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from echotrain.data.formats.header import VolumeHeader
from echotrain.data.formats.target import rss_target
from echotrain.data.formats.write import write_fastmri
from echotrain.data.formats.xml_header import header_xml
from echotrain.data.simulation.anatomy import draw_volume
from echotrain.data.simulation.coils import loop_sensitivities, smooth_phase
from echotrain.log import track
from echotrain.physics.fft import fft2c

__all__ = ["ScanSize", "write_scans"]

_FOV_MM, _SLICE_MM = (160.0, 160.0), 3.0
_NOISE = 0.01


@dataclass(frozen=True, kw_only=True)
class ScanSize:
    """Matrix of a scan; the readout is oversampled twice, as a scanner's is.

    Attributes:
        slices, coils, height, width: Of the k-space.
        image: Side of the target.
    """

    slices: int = 16
    coils: int = 15
    height: int = 640
    width: int = 372
    image: int = 320

    @property
    def nbytes(self) -> int:
        """Of the k-space."""
        return 8 * self.slices * self.coils * self.height * self.width


def write_scans(folder: Path, count: int, size: ScanSize) -> Sequence[Path]:
    """Write scans with targets, each of another person, and return their files."""
    return [_write(folder, number, size) for number in track(range(count), "Simulating scans")]


def _write(folder: Path, number: int, size: ScanSize) -> Path:
    rng = np.random.default_rng(number)
    object_rows = size.height // 2
    drawn = draw_volume("knee", "PD", (object_rows, size.width), size.slices, rng)
    images = np.zeros((size.slices, size.height, size.width), np.float32)
    first = (size.height - object_rows) // 2
    images[:, first : first + object_rows] = drawn
    shape = (size.height, size.width)
    fov = (2 * _FOV_MM[0], _FOV_MM[1] * size.width / size.image)
    phase = smooth_phase(shape, rng)
    kspace = np.empty((size.slices, size.coils, *shape), np.complex64)
    for index, image in enumerate(images):
        coils = np.random.default_rng(number)
        maps = loop_sensitivities(shape, fov, _SLICE_MM * (index - size.slices / 2), num_coils=size.coils, arc=2 * np.pi, rng=coils)
        kspace[index] = fft2c(torch.from_numpy(maps * (image * phase))).numpy()
        noise = rng.standard_normal((2, *maps.shape), np.float32)
        kspace[index] += np.float32(_NOISE) * (noise[0] + 1j * noise[1])
    # Numbers as small as a scanner's.
    kspace *= np.float32(2e-4)
    target = np.stack([rss_target(of_slice, (size.image, min(size.image, size.width))) for of_slice in kspace])
    header = VolumeHeader(
        dataset="bench",
        volume=f"file1{number:06d}",
        patient=f"p{number}",
        num_slices=size.slices,
        num_coils=size.coils,
        height=size.height,
        width=size.width,
        recon_height=target.shape[1],
        recon_width=target.shape[2],
        fov_mm=(*_FOV_MM, _SLICE_MM),
        padding_right=size.width,
    )
    path = folder / f"{header.volume}.h5"
    write_fastmri(
        path,
        header=header_xml(header, protocol="simulated knee"),
        kspace=kspace,
        target=target,
        attributes={
            "patient_id": header.patient,
            "acquisition": "CORPD_FBK",
            "max": float(target.max()),
            "norm": float(np.linalg.norm(target)),
        },
    )
    return path
