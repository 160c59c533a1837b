"""Volume-level metrics from slices that arrive one by one, in any order, on any rank.

No image is kept: NMSE, PSNR and SSIM of a volume follow exactly from five numbers per slice, once the maximum of the
target volume is known beforehand (the catalog has it). So ranks exchange numbers, and no rank needs a whole volume.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from echotrain.errors import CatalogError, NotFiniteError, ScanError
from echotrain.metrics.table import Quality
from echotrain.metrics.volume import evaluation_crop, ssim

__all__ = ["SliceKey", "SliceScore", "VolumeCollector", "VolumeKey", "VolumeScore", "mean_quality"]

VolumeKey = tuple[str, str]
# Dataset, volume, slice, and the frame where the slice has several: a sample's identity.
SliceKey = tuple[str, str, int, int | None]


class SliceScore(NamedTuple):
    """What a slice contributes to the metrics of its volume."""

    squared_error: float
    target_energy: float
    num_pixels: int
    ssim: float
    data_range: float


@dataclass(frozen=True, kw_only=True)
class VolumeScore:
    """The quality of one reconstructed volume."""

    dataset: str
    volume: str
    num_slices: int
    quality: Quality


class VolumeCollector:
    """Gathers slices, or frames of slices, and scores the volumes; one that comes twice counts once.

    Args:
        expected: Number of slices of each volume; where given, ``volumes`` refuses a set that is not exactly this.
    """

    def __init__(self, expected: Mapping[VolumeKey, int] | None = None) -> None:
        self._expected = None if expected is None else dict(expected)
        self._slices: dict[SliceKey, SliceScore] = {}

    def add(self, key: SliceKey, target: NDArray[Any], reconstruction: NDArray[Any], data_range: float) -> None:
        """Score one slice.

        Args:
            key: Its identity.
            target: Magnitude image (y, x).
            reconstruction: Magnitude image, cropped here as ``evaluation_crop`` does.
            data_range: Maximum of the target **volume**.

        Raises:
            ScanError: The data range is not a positive number, or the images do not fit each other.
            NotFiniteError: The reconstruction is not finite.
        """
        name = "/".join(str(part) for part in key if part is not None)
        if not 0 < data_range < float("inf"):
            raise ScanError(f"{name}: maximum {data_range:g} of the target volume", "must be positive", "Prepare the catalog again.")
        if not np.isfinite(reconstruction).all():
            raise NotFiniteError(
                f"{name}: reconstruction", "has pixels that are not finite", "The model has diverged; try a lower learning rate."
            )
        target, reconstruction = evaluation_crop(target[None], reconstruction[None])
        difference = target.astype(np.float64) - reconstruction
        self._slices[key] = SliceScore(
            squared_error=float(np.vdot(difference, difference)),
            target_energy=float(np.vdot(target.astype(np.float64), target)),
            num_pixels=target.size,
            ssim=ssim(target, reconstruction, data_range),
            data_range=data_range,
        )

    def state(self) -> list[tuple[SliceKey, SliceScore]]:
        """Return everything gathered here, to be sent to another rank."""
        return list(self._slices.items())

    def merge(self, state: Iterable[tuple[SliceKey, SliceScore]]) -> None:
        """Take in what another rank has gathered."""
        self._slices.update(state)

    def volumes(self) -> list[VolumeScore]:
        """Return the scores of all volumes, ordered by dataset and name.

        Raises:
            CatalogError: Slices are missing, or were not expected.
        """
        grouped: dict[VolumeKey, list[SliceScore]] = {}
        for (dataset, volume, *_), score in sorted(self._slices.items()):
            grouped.setdefault((dataset, volume), []).append(score)
        self._check_complete({key: len(slices) for key, slices in grouped.items()})
        return [_combine(key, slices) for key, slices in grouped.items()]

    def _check_complete(self, found: Mapping[VolumeKey, int]) -> None:
        if self._expected is None:
            return
        wrong = sorted(key for key in found.keys() | self._expected.keys() if found.get(key, 0) != self._expected.get(key, 0))
        if wrong:
            first = wrong[0]
            raise CatalogError(
                f"{'/'.join(first)}: {found.get(first, 0)} of {self._expected.get(first, 0)} slices reconstructed",
                f"metrics need whole volumes; {len(wrong)} of {len(self._expected)} are not whole",
                "Run the evaluation again; if it repeats, verify the catalog.",
            )


def mean_quality(qualities: Sequence[Quality]) -> dict[str, float]:
    """Return the mean of each metric over things that have the same ones."""
    return {name: float(np.mean([quality[name] for quality in qualities])) for name in qualities[0]}


def _combine(key: VolumeKey, slices: Sequence[SliceScore]) -> VolumeScore:
    squared_error = sum(score.squared_error for score in slices)
    target_energy = sum(score.target_energy for score in slices)
    if target_energy == 0:
        raise ScanError(f"{'/'.join(key)}: target volume", "is zero everywhere", "Leave this volume out of the catalog.")
    mean_squared_error = squared_error / sum(score.num_pixels for score in slices)
    peak = max(score.data_range for score in slices)
    return VolumeScore(
        dataset=key[0],
        volume=key[1],
        num_slices=len(slices),
        quality={
            "nmse": squared_error / target_energy,
            "psnr": float(10 * np.log10(peak**2 / mean_squared_error)) if mean_squared_error else float("inf"),
            "ssim": float(np.mean([score.ssim for score in slices])),
        },
    )
