"""ESPIRiT as a method to evaluate: one single-threaded BART per CPU."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from echotrain.baselines.bart import find_bart
from echotrain.baselines.espirit import EspiritConfig, reconstruct
from echotrain.config import override
from echotrain.data.samples.kspace_lines import LinesBatch, LinesData
from echotrain.data.samples.measured import MeasuredBatch
from echotrain.orchestration.jobs.inference import Subject
from echotrain.physics.crop import center_crop_to_smallest
from echotrain.shapes import Magnitude

__all__ = ["EspiritMethod", "EspiritSettings"]


@dataclass(frozen=True, kw_only=True)
class EspiritSettings:
    """What can be set of an ESPIRiT evaluation, by the same paths as of an experiment.

    Attributes:
        data: Catalog, selection and masks.
        espirit: The reconstruction.
    """

    data: LinesData = field(default_factory=LinesData)
    espirit: EspiritConfig = field(default_factory=EspiritConfig)


@dataclass(frozen=True, kw_only=True)
class EspiritMethod:
    """ESPIRiT by BART.

    Attributes:
        overrides: ``dotted.path=value`` of ``EspiritSettings``.
        workers: Processes; 0 takes one per CPU.
    """

    overrides: Sequence[str] = ()
    workers: int = 0
    threads_per_worker = 1
    uses_gpu = False

    def resolved(self) -> tuple["EspiritMethod", Subject]:
        """Return what is evaluated; raises ``ResourceError`` where BART is missing here, before anything starts."""
        find_bart()
        settings = override(EspiritSettings(), self.overrides)
        config = settings.espirit
        model = f"ESPIRiT (BART), TV {config.regularization:g}, {config.iterations} iterations"
        return self, Subject(name="ESPIRiT", model=model, data=settings.data)

    def load(self) -> "_Espirit":
        """Make it ready in this process."""
        return _Espirit(override(EspiritSettings(), self.overrides).espirit)


class _Espirit:
    device = torch.device("cpu")

    def __init__(self, config: EspiritConfig) -> None:
        self._config = config

    def reconstruct(self, batch: MeasuredBatch) -> Magnitude:
        assert isinstance(batch, LinesBatch), "its settings read lines"
        acquired = batch.acquired().numpy()
        lines = batch.num_low_frequencies.tolist()
        images = [reconstruct(kspace, num_low, self._config) for kspace, num_low in zip(acquired, lines, strict=True)]
        output, _ = center_crop_to_smallest(torch.from_numpy(np.stack(images)), batch.target)
        return output
