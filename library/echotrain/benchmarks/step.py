"""A training step of VarNet against the public fastMRI implementation: time, memory and outputs.

Both sides hold the same weights, see the same slice and take turns (A B A B) in one process; times are medians. Peak memory is
measured in processes of their own, one per side: how far the peak resident set rises over two steps on a CPU, and
``torch.cuda.max_memory_allocated`` on a GPU, above what is held once model and input are there.
"""

import multiprocessing
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from echotrain.benchmarks.result import BenchResult
from echotrain.errors import ResourceError
from echotrain.models.importers import import_fastmri
from echotrain.models.unrolled.varnet import VarNetConfig

__all__ = ["StepCase", "run"]

REFERENCE, OURS, CHECKPOINTED, COMPILED = "fastmri", "echotrain", "echotrain_checkpointing", "echotrain_bf16_compiled"


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


def run(*, quick: bool = False, device: str = "cpu", repeats: int = 5, threads: int | None = None) -> BenchResult:
    """Time steps and measure their memory.

    Args:
        quick: A tiny network and slice, for tests; its ratios say little.
        device: ``cpu`` or ``cuda``. On ``cuda`` the figure is our bf16 step with compiled regularizers.
        repeats: Steps per side.
        threads: Of torch on a CPU; None leaves them as they are.

    Raises:
        ResourceError: fastMRI is not installed, or there is no GPU.
    """
    case = StepCase(device=device, threads=threads)
    if quick:
        case = replace(case, num_cascades=2, chans=6, pools=2, sens_chans=4, sens_pools=2, coils=4, height=64, width=60)
    _require(device)
    sides = [REFERENCE, OURS, CHECKPOINTED, *([COMPILED] if device == "cuda" else [])]
    seconds, cpu_seconds, difference = _time(case, sides, repeats)
    megabytes = {side: _in_own_process(_peak_megabytes, case, side) for side in sides}
    subject = COMPILED if device == "cuda" else OURS
    return BenchResult(
        name="step",
        ours=seconds[subject],
        baseline=seconds[REFERENCE],
        unit="s/step",
        ratio=seconds[subject] / seconds[REFERENCE],
        detail={
            "subject": subject,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "time_ratio": {side: seconds[side] / seconds[REFERENCE] for side in sides[1:]},
            "peak_mb": megabytes,
            "memory_ratio": {side: megabytes[side] / megabytes[REFERENCE] for side in sides[1:]},
            "output_difference": difference,
            "repeats": repeats,
            "threads_used": torch.get_num_threads() if threads is None else threads,
            **asdict(case),
        },
    )


def _require(device: str) -> None:
    try:
        import fastmri.models  # noqa: F401  (the reference is no dependency of the package)
    except ImportError as error:
        raise ResourceError(
            "fastmri", "is not installed, and it is what this benchmark compares with", "pip install --no-deps fastmri"
        ) from error
    if device == "cuda" and not torch.cuda.is_available():
        raise ResourceError("device=cuda", "no GPU is visible to torch", "Use device=cpu, or a machine with a GPU.")


def _time(case: StepCase, sides: Sequence[str], repeats: int) -> tuple[dict[str, float], dict[str, float], float]:
    """Return the median seconds (wall, CPU) of each side, and the relative difference between our output and the reference's."""
    before = torch.get_num_threads()
    torch.set_num_threads(case.threads or before)
    try:
        steps = {side: _build(case, side) for side in sides}
        outputs = {side: step() for side, step in steps.items()}
        wall: dict[str, list[float]] = {side: [] for side in sides}
        cpu: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(repeats):
            for side, step in steps.items():
                start, cpu_start = _now(case), time.process_time()
                step()
                wall[side].append(_now(case) - start)
                cpu[side].append(time.process_time() - cpu_start)
    finally:
        torch.set_num_threads(before)
    difference = torch.linalg.vector_norm(outputs[OURS] - outputs[REFERENCE]) / torch.linalg.vector_norm(outputs[REFERENCE])
    return _medians(wall), _medians(cpu), float(difference)


def _medians(samples: dict[str, list[float]]) -> dict[str, float]:
    return {side: statistics.median(values) for side, values in samples.items()}


def _now(case: StepCase) -> float:
    if case.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _build(case: StepCase, side: str) -> Callable[[], Tensor]:
    """Return a function that takes one training step (forward, loss, backward) of ``side`` and returns the image."""
    from fastmri.models import VarNet

    sizes = {name: getattr(case, name) for name in ("num_cascades", "chans", "pools", "sens_chans", "sens_pools")}
    torch.manual_seed(0)
    reference = VarNet(**sizes).to(case.device)
    kspace, mask, num_low = _slice(case)
    if side == REFERENCE:
        real, real_mask, low = torch.view_as_real(kspace), mask.unsqueeze(-1), int(num_low)
        return _stepper(reference, lambda: reference(real, real_mask, low), nullcontext)
    config = VarNetConfig(**sizes, activation_checkpointing=side == CHECKPOINTED, compile_regularizer=side == COMPILED)
    model = config.build().to(case.device)
    model.load_state_dict(import_fastmri(reference.state_dict()))
    return _stepper(model, lambda: model(kspace, mask, num_low), _bf16 if side == COMPILED else nullcontext)


def _bf16() -> AbstractContextManager[Any]:
    return torch.autocast("cuda", dtype=torch.bfloat16)


def _stepper(
    model: torch.nn.Module, forward: Callable[[], Tensor], precision: Callable[[], AbstractContextManager[Any]]
) -> Callable[[], Tensor]:
    def step() -> Tensor:
        model.zero_grad(set_to_none=True)
        with precision():
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


def _peak_megabytes(case: StepCase, side: str) -> float:
    if case.threads:
        torch.set_num_threads(case.threads)
    _build(replace(case, num_cascades=1, height=32, width=32), side)()  # loads what the first step loads, once
    step = _build(case, side)
    if case.device == "cuda":
        step()  # compiles; its workspaces are no activations
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - held) / 1e6
    held = _reset_peak_resident_bytes()
    for _ in range(2):
        step()
    return (_peak_resident_bytes() - held) / 1e6


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


def _in_own_process(measure: Callable[[StepCase, str], float], case: StepCase, side: str) -> float:
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, case, side).result()
