"""What each of the U-Net's own kernels brings to a step: time and memory with all of them over those without, and whether outputs agree."""

from dataclasses import asdict, replace
from typing import Literal

from echotrain.benchmarks.kernels import OWN, PLAIN
from echotrain.benchmarks.result import BenchResult
from echotrain.benchmarks.step import OUTPUT_BANDS
from echotrain.benchmarks.step_sides import Side, StepCase, measure, require

__all__ = ["run"]

ALL, NONE = "all", "none"
_WITHOUT = {
    "convolutions": replace(OWN, convolutions=False),
    "norm": replace(OWN, norm=False),
    "innermost": replace(OWN, innermost=False),
    # The convolutions are for channels that lie innermost.
    "convolutions_and_innermost": replace(PLAIN, norm=True),
}


def run(
    *,
    quick: bool = False,
    device: str = "cpu",
    repeats: int = 5,
    threads: int | None = None,
    precision: Literal["fp32", "tf32", "bf16"] = "fp32",
    apart: bool = True,
) -> BenchResult:
    """Take steps of our network with all of its own kernels, without one of them, and without any.

    All compute the same: an output agrees where it is as near to that with all of them as a step's in this precision has to be to
    fastMRI's in float32 (``OUTPUT_BANDS``). What kernels round otherwise is of that size, and no more.

    Args:
        quick: A tiny network and slice, for tests; its ratios say little.
        device: ``cpu`` or ``cuda``, where the convolutions of our own are passed by.
        repeats: Steps per side.
        threads: Of torch on a CPU; None leaves them as they are.
        precision: Of the step.
        apart: Measure a CPU's memory in processes of their own, as it must be for a figure.

    Raises:
        ResourceError: fastMRI is not installed, or there is no GPU.
    """
    require(device)
    case = StepCase.of(device, quick=quick, threads=threads)
    without = {name: which for name, which in _WITHOUT.items() if device == "cpu" or "convolutions" not in name}
    sides = {ALL: OWN, **{f"without_{name}": which for name, which in without.items()}, NONE: PLAIN}
    found = measure(case, {name: Side(precision=precision, kernels=which) for name, which in sides.items()}, repeats, apart=apart)
    return BenchResult(
        name="tricks",
        ours=found.seconds[ALL],
        baseline=found.seconds[NONE],
        unit="s/step",
        ratio=found.seconds[ALL] / found.seconds[NONE],
        detail={
            "precision": precision,
            "seconds": found.seconds,
            "cpu_seconds": found.cpu_seconds,
            "peak_mb": found.megabytes,
            # Above 1: worth having.
            "time_without": {name: found.seconds[f"without_{name}"] / found.seconds[ALL] for name in without},
            "cpu_time_without": {name: found.cpu_seconds[f"without_{name}"] / found.cpu_seconds[ALL] for name in without},
            "memory_without": {name: found.megabytes[f"without_{name}"] / found.megabytes[ALL] for name in without},
            "output_difference": found.differences,
            "outputs_agree": {name: difference <= OUTPUT_BANDS[precision] for name, difference in found.differences.items()},
            "repeats": repeats,
            **asdict(case),
        },
    )
