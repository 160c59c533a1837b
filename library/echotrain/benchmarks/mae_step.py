"""Images per second of a masked autoencoder's training step, beside the bare network: what crops, draws and checks cost."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from echotrain.benchmarks.result import BenchResult
from echotrain.data.catalog.identity import SampleId
from echotrain.data.samples.image import ImageBatch, ImageData
from echotrain.data.stream import StepData
from echotrain.errors import ResourceError
from echotrain.models.mae.network import MaeNetworkConfig
from echotrain.ranks import Ranks
from echotrain.tasks.mae import MaeConfig
from echotrain.tasks.progress import Progress
from echotrain.training.experiment import Experiment
from echotrain.training.optim import OptimConfig
from echotrain.training.outcome import Signal
from echotrain.training.precision import Precision, autocast
from echotrain.training.state import TrainState
from echotrain.training.step import Step

__all__ = ["MaeCase", "our_step", "run"]

_WARM_UP = 2


@dataclass(frozen=True, kw_only=True)
class MaeCase:
    """What a step computes.

    Attributes:
        model: The network.
        images: In a step.
        side: Of the slices, of which the network sees crops.
        precision: As of a run.
        device: ``cpu`` or ``cuda``.
    """

    model: MaeNetworkConfig = field(default_factory=MaeNetworkConfig)
    images: int = 256
    side: int = 256
    precision: Precision = "bf16"
    device: str = "cuda"

    @classmethod
    def small(cls, *, device: str, precision: Precision = "bf16") -> "MaeCase":
        """Return a case of milliseconds."""
        tiny = MaeNetworkConfig(side=32, patch=8, width=16, depth=2, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
        return cls(model=tiny, images=4, side=40, device=device, precision=precision)


def run(*, quick: bool = False, device: str = "cpu", repeats: int = 5, precision: Precision = "bf16") -> BenchResult:
    """Time our step and that of the bare network, in turns.

    Args:
        quick: A tiny network, for tests.
        device: ``cpu`` or ``cuda``.
        repeats: Steps per side.
        precision: Of both.

    Raises:
        ResourceError: There is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ResourceError("device=cuda", "no GPU is visible to torch", "Use device=cpu, or a machine with a GPU.")
    is_small = quick or device == "cpu"
    case = MaeCase.small(device=device, precision=precision) if is_small else MaeCase(device=device, precision=precision)
    seconds, peak = _time({"echotrain": our_step(case), "bare": _bare_step(case)}, device, repeats)
    rates = {name: case.images / each for name, each in seconds.items()}
    return BenchResult(
        name="mae_step",
        ours=rates["echotrain"],
        baseline=rates["bare"],
        unit="images/s",
        ratio=rates["echotrain"] / rates["bare"],
        detail={
            "seconds": seconds,
            "peak_mb": peak,
            "model": case.model.describe(),
            "images": case.images,
            "side": case.side,
            "precision": precision,
            "device": device,
            "repeats": repeats,
        },
    )


def our_step(case: MaeCase) -> Callable[[], object]:
    """Return a function that does one step of training as a run does it, on images that are on their device's machine."""
    experiment = Experiment(data=ImageData(catalog="none"), task=MaeConfig(), model=case.model, precision=case.precision)
    state, ranks = _state(case), Ranks(device=torch.device(case.device))
    step = Step(experiment, experiment.task.build(), state, ranks, lambda: Signal.NONE)
    data = StepData(batches=[_batch(case)], num_global_samples=case.images, wait_s=0.0, num_bytes=0)
    return lambda: step(data, Progress(epoch=0, step=0, steps_per_epoch=1, global_step=0))


def _bare_step(case: MaeCase) -> Callable[[], object]:
    """Return a function that trains the same network on images that are cropped, and hidden, already."""
    state, device = _state(case), torch.device(case.device)
    network: Any = state.network
    images = torch.rand(case.images, 1, case.model.side, case.model.side, device=device)
    noise = torch.rand(case.images, case.model.num_patches, device=device)

    def step() -> Tensor:
        state.optimizer.zero_grad(set_to_none=True)
        with autocast(case.precision, device):
            loss: Tensor = network.mae(images, noise=noise).loss
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        return loss.detach()

    return step


def _state(case: MaeCase) -> TrainState:
    torch.manual_seed(0)
    network = case.model.build().to(case.device).train()
    return TrainState(network, OptimConfig(kind="adamw", lr=1.5e-4, weight_decay=0.05).build(network))


def _batch(case: MaeCase) -> ImageBatch:
    image = torch.rand(case.images, case.side, case.side, generator=torch.Generator().manual_seed(0))
    ids = tuple(SampleId("benchmark", "v", index) for index in range(case.images))
    return ImageBatch(
        image=image.pin_memory() if case.device == "cuda" else image,
        low=torch.zeros(case.images),
        high=torch.ones(case.images),
        weight=torch.ones(case.images),
        ids=ids,
        roots=tuple(sample.root(0, 0) for sample in ids),
    )


def _time(steps: dict[str, Callable[[], object]], device: str, repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the median seconds of each step, and on a GPU the most megabytes that it held above what it keeps."""
    samples: dict[str, list[float]] = {name: [] for name in steps}
    peak: dict[str, float] = {}
    for repeat in range(_WARM_UP + repeats):
        for name, step in steps.items():
            started, held = _now(device), _held(device)
            step()
            ended = _now(device)
            if repeat >= _WARM_UP:
                samples[name].append(ended - started)
                peak[name] = (torch.cuda.max_memory_allocated() - held) / 1e6 if device == "cuda" else 0.0
    return {name: statistics.median(values) for name, values in samples.items()}, peak if device == "cuda" else {}


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _held(device: str) -> int:
    if device != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()
