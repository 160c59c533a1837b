"""A training step of VarNet against the public fastMRI implementation: time, memory and outputs.

On a GPU in several variants, each beside fastMRI's own network in the same precision, and compiled where ours is.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace

import torch

from echotrain.benchmarks.result import BenchResult
from echotrain.benchmarks.step_sides import Measured, Side, StepCase, measure, require
from echotrain.errors import ConfigError

__all__ = ["OUTPUT_BANDS", "VARIANTS", "run"]

REFERENCE, OURS, CHECKPOINTED = "fastmri", "echotrain", "echotrain_checkpointing"

VARIANTS = {
    "fp32": Side(),
    "tf32": Side(precision="tf32"),
    "bf16": Side(precision="bf16"),
    "bf16_compiled": Side(precision="bf16", compiled=True),
    "bf16_compiled_channels_last": Side(precision="bf16", compiled=True, channels_last=True),
}
# How far an output may be from fastMRI's in float32, relative, by norm: what the precision leaves after twelve cascades.
OUTPUT_BANDS = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}


def run(
    *,
    quick: bool = False,
    device: str = "cpu",
    repeats: int = 5,
    threads: int | None = None,
    variants: Sequence[str] = (),
    backend: str = "inductor",
    apart: bool = True,
) -> BenchResult:
    """Time steps and measure their memory.

    Args:
        quick: A tiny network and slice, for tests; its ratios say little.
        device: ``cpu`` or ``cuda``.
        repeats: Steps per side.
        threads: Of torch on a CPU; None leaves them as they are.
        variants: Of ``VARIANTS``, the last of which is the figure; on a GPU none means all, on a CPU float32 and with checkpointing.
        backend: Of the compiler.
        apart: Measure a CPU's memory in processes of their own, as it must be for a figure.

    Raises:
        ConfigError: There is no such variant.
        ResourceError: fastMRI is not installed, or there is no GPU.
    """
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown:
        raise ConfigError(f"variants={unknown}", f"must be of {', '.join(VARIANTS)}", "Name some of these.")
    require(device)
    case = StepCase.of(device, quick=quick, threads=threads)
    chosen = list(variants) or (list(VARIANTS) if device == "cuda" else [])
    sides = _sides(chosen)
    found = measure(case, sides, repeats, backend=backend, apart=apart)
    subject = f"{OURS}_{chosen[-1]}" if chosen else OURS
    return BenchResult(
        name="step",
        ours=found.seconds[subject],
        baseline=found.seconds[REFERENCE],
        unit="s/step",
        ratio=found.seconds[subject] / found.seconds[REFERENCE],
        detail={
            "subject": subject,
            "seconds": found.seconds,
            "cpu_seconds": found.cpu_seconds,
            "peak_mb": found.megabytes,
            **_over_reference(found),
            **_over_the_same(found, chosen),
            "output_difference": found.differences,
            "outputs_agree": {name: found.differences[name] <= OUTPUT_BANDS[side.precision] for name, side in sides.items()},
            "repeats": repeats,
            "threads_used": torch.get_num_threads() if threads is None else threads,
            **asdict(case),
        },
    )


def _sides(variants: Sequence[str]) -> dict[str, Side]:
    """Return the reference in float32, and beside it each variant of either network."""
    reference = Side(of="fastmri")
    if not variants:
        return {REFERENCE: reference, OURS: Side(), CHECKPOINTED: Side(checkpointed=True)}
    sides = {REFERENCE: reference}
    for name in variants:
        theirs = replace(VARIANTS[name], of="fastmri")
        sides |= {_theirs(name): theirs} if theirs != reference else {}
        sides[f"{OURS}_{name}"] = VARIANTS[name]
    return sides


def _theirs(variant: str) -> str:
    return REFERENCE if VARIANTS[variant] == Side() else f"{REFERENCE}_{variant}"


def _over_reference(found: Measured) -> dict[str, dict[str, float]]:
    """Return time and memory over those of fastMRI in float32."""
    names = [name for name in found.seconds if name != REFERENCE]
    return {
        "time_ratio": {name: found.seconds[name] / found.seconds[REFERENCE] for name in names},
        "memory_ratio": {name: found.megabytes[name] / found.megabytes[REFERENCE] for name in names},
    }


def _over_the_same(found: Measured, variants: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return our time and memory over fastMRI's in the same precision, compiled or not as ours."""
    return {
        key: {name: values[f"{OURS}_{name}"] / values[_theirs(name)] for name in variants}
        for key, values in (("time_ratio_same", found.seconds), ("memory_ratio_same", found.megabytes))
        if variants
    }
