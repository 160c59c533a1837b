"""Validation of reconstructed slices as volumes."""

from collections.abc import Callable

from torch import nn

from echotrain.data.samples.measured import MeasuredBatch
from echotrain.metrics.collector import SliceKey, SliceScore, VolumeCollector, VolumeKey, mean_quality
from echotrain.metrics.table import Quality
from echotrain.shapes import Magnitude
from echotrain.tasks.task import ScoreTable

__all__ = ["VolumeValidation"]

State = tuple[list[tuple[SliceKey, SliceScore]], dict[VolumeKey, str]]


class VolumeValidation:
    """The metrics of reconstructed volumes, averaged over them; no image leaves its rank.

    Args:
        reconstruct: Turns a batch into images of the target's matrix.
    """

    def __init__(self, reconstruct: Callable[[nn.Module, MeasuredBatch], Magnitude]) -> None:
        self._reconstruct = reconstruct
        self._slices = VolumeCollector()
        self._anatomies: dict[VolumeKey, str] = {}

    def add(self, network: nn.Module, batch: MeasuredBatch) -> None:
        """Reconstruct a batch and score its slices."""
        outputs = self._reconstruct(network, batch).cpu().numpy()
        targets = batch.target.cpu().numpy()
        for sample, output, target, peak in zip(batch.ids, outputs, targets, batch.max_value.tolist(), strict=True):
            self._slices.add(sample, target, output, peak)
        self._anatomies.update({(sample.dataset, sample.volume): name for sample, name in zip(batch.ids, batch.anatomies, strict=False)})

    def state(self) -> State:
        """Return a few numbers per slice, and what each volume shows."""
        return self._slices.state(), self._anatomies

    def merge(self, state: State) -> None:
        """Take in another rank's slices."""
        slices, anatomies = state
        self._slices.merge(slices)
        self._anatomies.update(anatomies)

    def scores(self) -> dict[str, float]:
        """Return the mean of each metric over the volumes."""
        return mean_quality([score.quality for score in self._slices.volumes()]) if self._slices.state() else {}

    def table(self) -> ScoreTable:
        """Return the scores by anatomy."""
        groups: dict[str, list[Quality]] = {}
        for score in self._slices.volumes():
            groups.setdefault(self._anatomies.get((score.dataset, score.volume), ""), []).append(score.quality)
        means = {name: mean_quality(members) for name, members in sorted(groups.items())}
        metrics = next(iter(means.values()), {})
        return ScoreTable(
            title="anatomy",
            columns=("anatomy", "volumes", *metrics),
            rows=tuple((name or "unknown", len(groups[name]), *scores.values()) for name, scores in means.items()),
        )
