"""A small VarNet, batches of its own making, and steps of it on a device."""

import functools

import torch

from echotrain.data.catalog.identity import SampleId
from echotrain.data.samples.kspace_lines import LinesBatch, LinesData
from echotrain.data.stream import StepData
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.physics.coils import rss
from echotrain.physics.crop import center_crop
from echotrain.physics.fft import fft2c
from echotrain.ranks import Ranks
from echotrain.tasks.progress import Progress
from echotrain.training.experiment import Experiment, WandbConfig
from echotrain.training.outcome import Signal
from echotrain.training.state import TrainState
from echotrain.training.step import Step, StepOutcome

Shape = tuple[int, int, int]

SHAPE: Shape = (4, 48, 36)
MODEL = VarNetConfig(num_cascades=2, chans=6, pools=2, sens_chans=4, sens_pools=2)


def experiment_of(**changes: object) -> Experiment:
    return Experiment(data=LinesData(catalog="none"), **{"model": MODEL, "wandb": WandbConfig(enabled=False), **changes})


@functools.cache
def lines_batch(number: int, shape: Shape = SHAPE) -> LinesBatch:
    """Return two smooth slices of (coils, height, width), of the second of which one coil is padding."""
    coils, height, width = shape
    generator = torch.Generator().manual_seed(number)
    coarse = torch.randn(2, coils, 8, 8, dtype=torch.complex64, generator=generator)
    coil_mask = torch.arange(coils) < torch.tensor([[coils], [coils - 1]])
    images = torch.fft.ifft2(coarse, s=(height, width), norm="forward") * coil_mask[..., None, None]
    images = images * torch.rand(height, width, generator=generator)
    mask = torch.zeros(2, 1, 1, width, dtype=torch.bool)
    mask[..., ::3] = True
    mask[..., width // 2 - 3 : width // 2 + 3] = True
    target = center_crop(rss(images), (height - 8, width - 8))
    ids = tuple(SampleId("device", f"v{number}", index) for index in range(2))
    return LinesBatch(
        kspace=fft2c(images),
        mask=mask,
        num_low_frequencies=torch.full((2,), 6),
        coil_mask=coil_mask,
        target=target,
        max_value=target.amax(dim=(1, 2)),
        weight=torch.ones(2),
        ids=ids,
        roots=tuple(sample.root(7, 0) for sample in ids),
    )


def new_state(experiment: Experiment, device: torch.device) -> TrainState:
    """Return the state before the first step, always the same, on its device as a worker puts it there."""
    torch.manual_seed(0)
    network = experiment.model.build().to(device).train()
    return TrainState(network, experiment.optim.build(network), ema_decay=experiment.ema_decay)


class Steps:
    """Steps of a state on a device, each of a batch of its own."""

    def __init__(self, experiment: Experiment, device: torch.device, state: TrainState | None = None, ranks: Ranks | None = None) -> None:
        self.state = state or new_state(experiment, device)
        self._step = Step(experiment, experiment.task.build(), self.state, ranks or Ranks(device=device), lambda: Signal.NONE)

    def do(self, number: int, shape: Shape = SHAPE) -> StepOutcome:
        data = StepData(batches=[lines_batch(number % 5, shape)], num_global_samples=2, wait_s=0.0, num_bytes=0)
        return self._step(data, Progress(epoch=0, step=number, steps_per_epoch=1000, global_step=number))
