"""Validation of reconstructed slices as volumes."""

from collections.abc import Callable, Iterable

from torch import nn

from echotrain.data.batch import Batch
from echotrain.metrics.collector import SliceKey, SliceScore, VolumeCollector, mean_quality
from echotrain.shapes import Magnitude

__all__ = ["VolumeValidation"]


class VolumeValidation:
    """Volume-level NMSE, PSNR and SSIM, averaged over volumes; no image leaves its rank.

    Args:
        reconstruct: Turns a batch into images of the target's matrix.
    """

    def __init__(self, reconstruct: Callable[[nn.Module, Batch], Magnitude]) -> None:
        self._reconstruct = reconstruct
        self._slices = VolumeCollector()

    def add(self, model: nn.Module, batch: Batch) -> None:
        """Reconstruct a batch and score its slices."""
        outputs = self._reconstruct(model, batch).cpu().numpy()
        targets = batch.target.cpu().numpy()
        for sample, output, target, peak in zip(batch.ids, outputs, targets, batch.max_value.tolist(), strict=True):
            self._slices.add((sample.dataset, sample.volume, sample.slice), target, output, peak)

    def state(self) -> list[tuple[SliceKey, SliceScore]]:
        """Return a few numbers per slice."""
        return self._slices.state()

    def merge(self, state: Iterable[tuple[SliceKey, SliceScore]]) -> None:
        """Take in another rank's slices."""
        self._slices.merge(state)

    def scores(self) -> dict[str, float]:
        """Return ``nmse``, ``psnr`` and ``ssim``."""
        return mean_quality(self._slices.volumes()) if self._slices.state() else {}
