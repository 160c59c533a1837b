"""Ways to take one training step of a VarNet, timed in turns (A B A B) in one process, with their peak memory and their outputs.

All hold the same weights and see the same slice. Peak memory is what is held above model and input: on a GPU what its allocator handed out
at most, on a CPU how far the peak resident set of a process of its own rises over two steps.
"""

import contextlib
import functools
import multiprocessing
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from echotrain.benchmarks.kernels import OWN, Kernels, kernels
from echotrain.benchmarks.precise import tf32
from echotrain.errors import ResourceError
from echotrain.models.importers import import_fastmri
from echotrain.models.unrolled.varnet import VarNetConfig, compile_unets

__all__ = ["Measured", "Side", "StepCase", "measure", "require"]

# Steps of each side before any is timed, besides the one that compiles: on a GPU kernels and workspaces are still being chosen.
_MORE_WARM_UP = {"cpu": 0, "cuda": 2}


@dataclass(frozen=True, kw_only=True)
class StepCase:
    """What one step computes: the network and its input.

    Attributes:
        num_cascades, chans, pools, sens_chans, sens_pools: As in ``VarNetConfig``.
        coils, height, width: Of the slice; equispaced at R = 4 with 8 % centre lines.
        device: ``cpu`` or ``cuda``.
        threads: Of torch on a CPU; None leaves them as they are.
    """

    num_cascades: int = 8
    chans: int = 18
    pools: int = 4
    sens_chans: int = 8
    sens_pools: int = 4
    coils: int = 8
    height: int = 320
    width: int = 320
    device: str = "cpu"
    threads: int | None = None

    @classmethod
    def of(cls, device: str, *, quick: bool, threads: int | None = None) -> "StepCase":
        """Return a tiny network and slice where it is to be quick; else on a GPU the paper's network on a whole fastMRI knee slice."""
        case = cls(device=device, threads=threads)
        if quick:
            return replace(case, num_cascades=2, chans=6, pools=2, sens_chans=4, sens_pools=2, coils=4, height=64, width=60)
        return replace(case, num_cascades=12, coils=15, height=640, width=368) if device == "cuda" else case


@dataclass(frozen=True, kw_only=True)
class Side:
    """A way to take the step.

    Attributes:
        of: Whose network.
        precision: ``tf32`` lets a GPU round the factors of float32 products; ``bf16`` is autocast.
        compiled: The real-valued U-Nets, the same part of either network, each as one graph.
        channels_last: Weights have their channels innermost in memory.
        checkpointed: Of our network: each cascade is computed twice.
        kernels: Of our network.
    """

    of: Literal["fastmri", "echotrain"] = "echotrain"
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    compiled: bool = False
    channels_last: bool = False
    checkpointed: bool = False
    kernels: Kernels = OWN


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures by side.

    Attributes:
        seconds, cpu_seconds: Of a step, medians.
        megabytes: At the peak.
        differences: Of the output from the first side's, relative, by norm.
    """

    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    megabytes: dict[str, float]
    differences: dict[str, float]


def require(device: str) -> None:
    """Refuse to begin where the reference or the device is missing.

    Raises:
        ResourceError: fastMRI is not installed, or there is no GPU.
    """
    try:
        import fastmri.models  # noqa: F401  (the reference is no dependency of the package)
    except ImportError as error:
        raise ResourceError(
            "fastmri", "is not installed, and it is what this benchmark compares with", "pip install --no-deps fastmri"
        ) from error
    if device == "cuda" and not torch.cuda.is_available():
        raise ResourceError("device=cuda", "no GPU is visible to torch", "Use device=cpu, or a machine with a GPU.")


def measure(case: StepCase, sides: Mapping[str, Side], repeats: int, *, backend: str = "inductor", apart: bool = True) -> Measured:
    """Take the step in every way, the first of which is the reference for outputs.

    Args:
        case: What is computed.
        sides: By name.
        repeats: Timed steps of each.
        backend: Of the compiler; ``eager`` generates no code.
        apart: Measure a CPU's memory in processes of their own; else in this one, where it says little.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(case.threads or before)
    try:
        steps = {name: _build(case, side, backend) for name, side in sides.items()}
        outputs = {name: step() for name, step in steps.items()}
        for step in [*steps.values()] * _MORE_WARM_UP[case.device]:
            step()
        wall, cpu = _time(case, steps, repeats)
        on_gpu = {name: _peak_on_gpu(step) for name, step in steps.items()} if case.device == "cuda" else {}
    finally:
        torch.set_num_threads(before)
    reference = outputs[next(iter(sides))]
    place: Callable[..., float] = _in_own_process if apart else lambda call, *args: call(*args)
    return Measured(
        seconds=wall,
        cpu_seconds=cpu,
        megabytes=on_gpu or {name: place(_peak_on_cpu, case, side, backend) for name, side in sides.items()},
        differences={name: _relative(output, reference) for name, output in outputs.items()},
    )


def _time(case: StepCase, steps: Mapping[str, Callable[[], Tensor]], repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start, cpu_start = _now(case), time.process_time()
            step()
            wall[name].append(_now(case) - start)
            cpu[name].append(time.process_time() - cpu_start)
    return _medians(wall), _medians(cpu)


def _medians(samples: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in samples.items()}


def _relative(output: Tensor, reference: Tensor) -> float:
    return float(torch.linalg.vector_norm(output.float() - reference) / torch.linalg.vector_norm(reference))


def _now(case: StepCase) -> float:
    if case.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _build(case: StepCase, side: Side, backend: str) -> Callable[[], Tensor]:
    """Return a function that takes one training step (forward, loss, backward) of ``side`` and returns the image."""
    import fastmri.models

    sizes = {name: getattr(case, name) for name in ("num_cascades", "chans", "pools", "sens_chans", "sens_pools")}
    torch.manual_seed(0)
    reference = fastmri.models.VarNet(**sizes)
    kspace, mask, num_low = _slice(case)
    if side.of == "fastmri":
        model, real, real_mask, low = reference.to(case.device), torch.view_as_real(kspace), mask.unsqueeze(-1), int(num_low)
        if side.compiled:
            _compile_their_unets(model, backend)
        forward = lambda: model(real, real_mask, low)  # noqa: E731
    else:
        own = VarNetConfig(**sizes, activation_checkpointing=side.checkpointed).build().to(case.device)
        own.load_state_dict(import_fastmri(reference.state_dict()))
        if side.compiled:
            compile_unets(own, backend=backend)
        model, forward = own, lambda: own(kspace, mask, num_low)
    if side.channels_last:
        model.to(memory_format=torch.channels_last)
    return _stepper(model, forward, case.device, side)


def _compile_their_unets(model: nn.Module, backend: str) -> None:
    """Compile fastMRI's U-Nets as ours are; each is of a class that computes the same in one graph."""
    for module in model.modules():
        if isinstance(module, _whole_unet().__base__):  # type: ignore[arg-type]
            module.__class__ = _whole_unet()
            module.compile(backend=backend)


@functools.cache
def _whole_unet() -> type[nn.Module]:
    """Return fastMRI's U-Net without the ``if`` on a tensor, which breaks its graph into pieces, too many for the compiler's patience."""
    import fastmri.models

    class WholeUnet(fastmri.models.Unet):  # type: ignore[misc]
        def forward(self, image: Tensor) -> Tensor:
            skips: list[Tensor] = []
            output: Tensor = image
            for layer in self.down_sample_layers:
                output = layer(output)
                skips.append(output)
                output = F.avg_pool2d(output, kernel_size=2, stride=2, padding=0)
            output = self.conv(output)
            for up, conv in zip(self.up_transpose_conv, self.up_conv, strict=True):
                skip, output = skips.pop(), up(output)
                rows, columns = (int(there != here) for there, here in zip(skip.shape[-2:], output.shape[-2:], strict=True))
                output = F.pad(output, [0, columns, 0, rows], "reflect") if rows or columns else output
                output = conv(torch.cat([output, skip], dim=1))
            return output

    return WholeUnet


def _stepper(model: nn.Module, forward: Callable[[], Tensor], device: str, side: Side) -> Callable[[], Tensor]:
    def step() -> Tensor:
        with contextlib.ExitStack() as stack:
            stack.enter_context(tf32(side.precision == "tf32"))
            stack.enter_context(kernels(side.kernels))
            model.zero_grad(set_to_none=True)
            with torch.autocast(device, dtype=torch.bfloat16, enabled=side.precision == "bf16"):
                image = forward()
            loss = (image - 1).abs().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            return image.detach()

    return step


def _slice(case: StepCase) -> tuple[Tensor, Tensor, Tensor]:
    """Return the k-space (1, coils, height, width) of a smooth object and its mask, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, case.coils, 16, 16, dtype=torch.complex64, generator=generator)
    images = torch.fft.ifft2(coarse, s=(case.height, case.width), norm="forward")
    images *= torch.rand(case.height, case.width, generator=generator)
    kspace = torch.fft.fftshift(torch.fft.fft2(images, norm="ortho"), dim=(-2, -1))
    num_low = round(0.08 * case.width)
    mask = torch.zeros(1, 1, 1, case.width, dtype=torch.bool)
    mask[..., ::4] = True
    first = (case.width - num_low + 1) // 2
    mask[..., first : first + num_low] = True
    return (kspace * mask).to(case.device), mask.to(case.device), torch.tensor([num_low], device=case.device)


def _peak_on_gpu(step: Callable[[], Tensor]) -> float:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - held) / 1e6


def _peak_on_cpu(case: StepCase, side: Side, backend: str) -> float:
    if case.threads:
        torch.set_num_threads(case.threads)
    _build(replace(case, num_cascades=1, height=32, width=32), side, backend)()  # loads what the first step loads, once
    step = _build(case, side, backend)
    held = _reset_peak_resident_bytes()
    for _ in range(2):
        step()
    # Where memory is reused that was resident already, a page stands for it.
    return max(_peak_resident_bytes() - held, 4096) / 1e6


def _reset_peak_resident_bytes() -> int:
    """Let the peak start from what is resident now, where the system can (Linux); return that."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_resident_bytes()


def _peak_resident_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) * 1024  # type: ignore[index]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _in_own_process(call: Callable[..., float], *args: Any) -> float:
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *args).result()
