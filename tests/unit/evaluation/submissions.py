"""Small test sets of the challenges, and reconstructions of them as ``ray_jobs.reconstruct`` leaves them."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest

from echotrain.data.formats.write import write_fastmri
from echotrain.errors import SubmissionError
from echotrain.evaluation.submission import Challenge, check_submission
from tests.scans import header_xml, random_kspace, write_scan

CASE = "Cine/ValidationSet/UnderSample_TaskR1/Center001/UIH_30T_umr880/P001"


def magnitudes(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32) + 0.5


def write_test_set(folder: Path, names: Mapping[str, tuple[int, int]], *, slices: int = 2, kspace: tuple[int, int] = (40, 32)) -> Path:
    """Write undersampled files without a target; ``names`` gives the recon matrix of each."""
    for seed, (name, recon) in enumerate(names.items()):
        header = header_xml(*kspace, recon=recon, protocol=f"protocol {name} ä")
        write_scan(folder / name, random_kspace((slices, 2, *kspace), seed), header=header, target=None)
    return folder


def write_reconstructions(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Write reconstructions with the function that ``ray_jobs.reconstruct`` uses, and a picture beside each."""
    images = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        images[name] = magnitudes(shape, seed)
        write_fastmri(folder / name, header=b"<de-identified/>", reconstruction=images[name])
        (folder / name).with_suffix(".png").write_bytes(b"a picture")
    return images


def write_kus(path: Path, shape: tuple[int, ...]) -> Path:
    """Write undersampled k-space as MATLAB v7.3 does, ``shape`` being MATLAB's (readout, phase, coils, slices[, frames])."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("kus", data=np.zeros(shape[::-1], np.dtype([("real", "<f4"), ("imag", "<f4")])))
    return path


def unzip(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


def problems_of(challenge: Challenge, submission: Path, like: Path) -> list[str]:
    """Check a submission that has to be refused; return a line for each of its problems."""
    with pytest.raises(SubmissionError) as caught:
        check_submission(challenge, submission, str(like))
    head, *lines = caught.value.remedy.splitlines()
    assert head == "Correct each of them:"
    return [line.strip() for line in lines]
