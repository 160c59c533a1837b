"""What was acquired, and nothing added: the method that others are compared with."""

from dataclasses import dataclass

import torch

from echotrain.data.samples.kspace_lines import LinesData
from echotrain.data.samples.measured import MeasuredBatch
from echotrain.orchestration.jobs.inference import Subject
from echotrain.shapes import Magnitude
from echotrain.tasks.reconstruction import zero_filled

__all__ = ["ZeroFilledMethod"]


@dataclass(frozen=True, kw_only=True)
class ZeroFilledMethod:
    """The root sum of squares of the acquired lines, on the device of the method that it stands beside."""

    workers = 0
    threads_per_worker = 1
    uses_gpu = True

    def resolved(self) -> tuple["ZeroFilledMethod", Subject]:
        """Return what is evaluated: there is nothing to choose."""
        return self, Subject(name="zero-filled", model="", data=LinesData())

    def load(self) -> "_ZeroFilled":
        """Make it ready in this process."""
        return _ZeroFilled(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True)
class _ZeroFilled:
    device: torch.device

    def reconstruct(self, batch: MeasuredBatch) -> Magnitude:
        return zero_filled(batch)
