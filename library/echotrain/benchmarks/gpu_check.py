"""Everything that only a GPU can tell, in one go and one JSON file: ``make gpu-check``.

Needs PyTorch with CUDA and the packages of ``.ci/gpu-usual.txt`` and ``.ci/gpu-carried.txt``; no Ray, no network. Each step runs in a
process of its own, forked by a server that has imported PyTorch once and never touches the GPU. So a step that fails, hangs or crashes is
recorded, and the rest goes on; the file is written anew with every figure that comes. The schema::

    schema    1
    date      when it began, UTC
    dry       whether it was on tiny sizes on a CPU, whose figures say nothing
    seconds   of all, so far
    device    name, memory_gb, capability, multiprocessors, driver; of a dry run the processor
    versions  of Python, CUDA, cuDNN, NCCL and each package of the list; null where it is missing
    steps     by name: seconds; outcome, one of passed, failed, timed out, crashed, left out; error, where it is none of the first; note, of
              what a step that passed did not look at; figures
              tests         by test: outcome, seconds, what it measured, and what it said where it failed or was skipped
              step_VARIANT  ``bench step variants=[VARIANT]``: our step, fastMRI's in the same precision, compiled likewise, and in float32
              mae_step      ``bench mae_step``: images/s
              tricks_...    ``bench tricks precision=...``: what each of the U-Net's own kernels brings, outputs compared
    goals     by name: figure (null where its step has none), goal, is_met (null likewise); none of a dry run
    missed    names of the goals that have a figure which misses them
    unknown   names of the goals that have no figure

The check is good where every step passed: a test that was skipped has not passed, nor has a step that was left out, for want of a device,
of time or of a package, which is named. A goal is an aim and no part of that: figures that miss one are no fault of the code, nor of what
was measured. So it is told, and stands under ``missed``, and the exit status of ``ray_jobs.gpu_check`` is that of the steps alone.
"""

import contextlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from echotrain.benchmarks.missing import missing_package
from echotrain.errors import ConfigError, StorageError

__all__ = ["LIMIT_S", "STEPS", "Check", "GpuStep", "check"]

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = (ROOT / ".ci" / "gpu-usual.txt", ROOT / ".ci" / "gpu-carried.txt")
# Of everything: under eight minutes, whatever hangs.
LIMIT_S = 450.0
# A dry run takes seconds, on a machine that has nothing else to do.
DRY_LIMIT_S = 900.0
_PRELOADED = ["torch", "echotrain.benchmarks.step_sides", "echotrain.training.step"]
_LONGEST = 4000
_DRY: dict[str, Any] = {"quick": True, "repeats": 1, "threads": 1, "apart": False}
_FULL: dict[str, Any] = {"device": "cuda", "repeats": 10}

Figures = dict[str, Any]
Report = Callable[[Figures], None]


@dataclass(frozen=True, kw_only=True)
class GpuStep:
    """A step of the check.

    Attributes:
        run: Called with whether it is dry, and with what takes figures as they come; returns a note of what it did not look at.
        limit_s: After which it is ended.
    """

    run: Callable[[bool, Report], str | None]
    limit_s: float


def find_device(dry: bool, report: Report) -> None:
    """Report what the figures are of."""
    import torch

    if dry:
        report({"device": {"name": platform.processor() or platform.machine()}, "versions": {"torch": torch.__version__}})
        return
    if not torch.cuda.is_available():
        raise RuntimeError("no GPU is visible to torch; make gpu-check DRY=1 takes every step on a CPU")
    found = torch.cuda.get_device_properties(0)
    report(
        {
            "device": {
                "name": found.name,
                "memory_gb": round(found.total_memory / 1e9, 1),
                "capability": f"{found.major}.{found.minor}",
                "multiprocessors": found.multi_processor_count,
                "driver": _driver(),
            },
            "versions": {
                "torch": torch.__version__,
                "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
                "nccl": ".".join(map(str, torch.cuda.nccl.version())),  # type: ignore[no-untyped-call]
            },
        }
    )


def _driver() -> str | None:
    """Return the version of the GPU's driver, which torch does not tell; None where NVIDIA's own tool does not either."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, check=True, capture_output=True, text=True, timeout=20).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return said[0] if said else None


class _Tests:
    """Reports each test as it ends, and counts those that were not run.

    Attributes:
        names: Of tests that ended, skipped or not.
        skipped: How many were skipped, by reason.
        deselected: How many are of another device.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self.names, self.skipped, self.deselected = set[str](), Counter[str](), 0

    def pytest_deselected(self, items: Sequence[Any]) -> None:
        """Be called by pytest with tests that the markers leave out."""
        self.deselected += len(items)

    def pytest_collectreport(self, report: Any) -> None:
        """Be called by pytest when a file was collected: one that fails, or skips all of itself, has no test to report."""
        if report.outcome != "passed":
            self._add(report, {})

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Be called by pytest after each phase of a test."""
        if report.when == "call" or report.outcome != "passed":
            self._add(report, {"seconds": round(report.duration, 3), "figures": dict(report.user_properties)})

    def _add(self, report: Any, measured: Figures) -> None:
        name = report.nodeid.rpartition("/")[2]
        self.names.add(name)
        said = "" if report.outcome == "passed" else str(report.longrepr)
        if report.outcome == "skipped":
            said = _reason(report)
            self.skipped[said] += 1
        self._report({name: {"outcome": report.outcome, **measured, **({"said": said[-_LONGEST:]} if said else {})}})


def _reason(report: Any) -> str:
    """Return why pytest skipped a test, or expected it to fail."""
    told = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", None) or report.longrepr
    return str(told).removeprefix("Skipped: ")


def run_tests(dry: bool, report: Report) -> str | None:
    """Run ``tests/gpu``: those of a GPU, or their halves on a CPU.

    Raises:
        RuntimeError: A test failed, or was skipped.
    """
    import pytest

    tests = _Tests(report)
    status = pytest.main(["-q", "-m", "not gpu" if dry else "gpu", str(ROOT / "tests" / "gpu")], plugins=[tests])
    reasons = "; ".join(f"{count} of {len(tests.names)} tests were skipped: {reason}" for reason, count in tests.skipped.items())
    if status != pytest.ExitCode.OK:
        raise RuntimeError(f"pytest ended with {status!r}" + (f"; {reasons}" if reasons else ""))
    if reasons:
        raise RuntimeError(reasons)
    return f"{tests.deselected} tests of a GPU were skipped for want of a device" if dry else None


def step_of(variant: str) -> Callable[[bool, Report], None]:
    """Return what measures a variant of a training step."""

    def run(dry: bool, report: Report) -> None:
        from echotrain.benchmarks import step

        # A dry run compiles as far as needs no generated code.
        options = {**_DRY, "backend": "eager"} if dry else _FULL
        detail = step.run(variants=[variant], **options).detail
        report(detail)
        _judge(detail, "fastMRI's in float32")

    return run


def _judge(detail: Figures, reference: str) -> None:
    """Raise where outputs do not agree with the reference."""
    far = [name for name, agrees in detail["outputs_agree"].items() if not agrees]
    if far:
        raise RuntimeError(f"the outputs of {', '.join(far)} are too far from {reference}: {detail['output_difference']}")


def tricks_in(precision: Any) -> Callable[[bool, Report], None]:
    """Return what measures our own kernels in a precision."""

    def run(dry: bool, report: Report) -> None:
        from echotrain.benchmarks import tricks

        detail = tricks.run(precision=precision, **(_DRY if dry else _FULL)).detail
        report(detail)
        _judge(detail, f"those with all of our own kernels in {precision}")

    return run


def run_mae(dry: bool, report: Report) -> None:
    """Measure the images/s of the MAE step."""
    from echotrain.benchmarks import mae_step

    result = mae_step.run(quick=dry, device="cpu" if dry else "cuda", repeats=1 if dry else 10)
    report({"images_per_s": result.ours, "bare_images_per_s": result.baseline, "ratio": result.ratio, **result.detail})


# What matters most comes first.
STEPS = {
    "device": GpuStep(run=find_device, limit_s=60),
    "step_fp32": GpuStep(run=step_of("fp32"), limit_s=60),
    "step_bf16_compiled": GpuStep(run=step_of("bf16_compiled"), limit_s=150),
    "tests": GpuStep(run=run_tests, limit_s=150),
    "mae_step": GpuStep(run=run_mae, limit_s=60),
    "step_bf16": GpuStep(run=step_of("bf16"), limit_s=60),
    "step_tf32": GpuStep(run=step_of("tf32"), limit_s=60),
    "tricks_fp32": GpuStep(run=tricks_in("fp32"), limit_s=60),
    "tricks_bf16": GpuStep(run=tricks_in("bf16"), limit_s=60),
    "step_bf16_compiled_channels_last": GpuStep(run=step_of("bf16_compiled_channels_last"), limit_s=150),
}


class Check:
    """The file of figures, written whenever it grows.

    Args:
        path: Of the file.
        dry: On tiny sizes on a CPU.

    Raises:
        ConfigError: The path is a folder.
        StorageError: The file cannot be written.
    """

    def __init__(self, path: Path, *, dry: bool) -> None:
        self._path, self._began = path, time.monotonic()
        self.result: dict[str, Any] = {
            "schema": 1,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "dry": dry,
            "seconds": 0.0,
            "device": {},
            "versions": {"python": platform.python_version(), **_versions()},
            "steps": {},
            "goals": {},
            "missed": [],
            "unknown": [],
        }
        if path.is_dir():
            raise ConfigError(
                f"out={path}", "is a folder, and the figures are one file", f"Name a file, such as {path / 'gpu-check.json'}."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.write()
        except OSError as error:
            raise StorageError(f"out={path}", f"cannot be written ({error})", "Name a file in a folder that you may write to.") from error

    @property
    def left_s(self) -> float:
        """Seconds until everything has to have ended."""
        return (DRY_LIMIT_S if self.result["dry"] else LIMIT_S) - (time.monotonic() - self._began)

    def add(self, step: str, figures: Figures) -> None:
        """Take in figures of a step."""
        if step == "device":
            self.result["device"] |= figures["device"]
            self.result["versions"] |= figures["versions"]
        else:
            self.result["steps"].setdefault(step, {}).setdefault("figures", {}).update(figures)
        self.write()

    def end(self, step: str, *, seconds: float, outcome: str, said: str = "") -> None:
        """Take in how a step ended, and why, or what is to be noted of one that passed."""
        why = {"note" if outcome == "passed" else "error": said[-_LONGEST:]} if said else {}
        self.result["steps"].setdefault(step, {}).update({"seconds": round(seconds, 2), "outcome": outcome, **why})
        self.write()

    def write(self) -> None:
        """Write the file anew, whole or not at all."""
        self.result["seconds"] = round(time.monotonic() - self._began, 1)
        goals = {} if self.result["dry"] else _goals(self.result["steps"])
        self.result["goals"] = goals
        self.result["missed"] = [name for name, goal in goals.items() if goal["is_met"] is False]
        self.result["unknown"] = [name for name, goal in goals.items() if goal["is_met"] is None]
        scratch = self._path.with_name(f".{self._path.name}.tmp")
        scratch.write_text(json.dumps(self.result, indent=1, default=str) + "\n")
        scratch.replace(self._path)

    @property
    def is_good(self) -> bool:
        """Whether steps were taken, and every one passed; goals have no part in it."""
        steps = self.result["steps"].values()
        return bool(steps) and all(step.get("outcome") == "passed" for step in steps)


def check(path: Path, *, dry: bool = False, only: Sequence[str] = (), tell: Callable[[str], None] = print) -> Check:
    """Take every step, one after the other, and write what comes.

    Args:
        path: The file of figures.
        dry: Take them on tiny sizes on a CPU.
        only: Names of steps, all where there are none; the device is always looked at, as it is what figures are of.
        tell: Called with a line for each step.

    Raises:
        ConfigError: The path is a folder.
        StorageError: The file cannot be written.
    """
    found = Check(path, dry=dry)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    for name, step in STEPS.items():
        if only and name not in ["device", *only]:
            continue
        limit_s = found.left_s if dry else min(step.limit_s, found.left_s)
        if limit_s < 1 or found.result["steps"].get("device", {}).get("outcome", "passed") != "passed":
            reason = "no time is left" if limit_s < 1 else "there is no device"
            found.end(name, seconds=0.0, outcome="left out", said=reason)
        else:
            _take(context, found, name, limit_s)
        tell(_line(name, found.result["steps"][name]))
    return found


def _line(name: str, ended: Figures) -> str:
    """Return what is told of a step: how it ended, and the last line of why, or what is to be noted."""
    why = str(ended.get("error") or ended.get("note", "")).strip().splitlines()[-1:]
    return f"{name}: {ended['outcome']} after {ended['seconds']:.1f} s" + "".join(f": {line}" for line in why)


def _take(context: Any, found: Check, name: str, limit_s: float) -> None:
    """Take one step in a process of its own."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(name, found.result["dry"], sender))
    began = time.monotonic()
    process.start()
    sender.close()
    outcome, said = "crashed", ""
    with contextlib.suppress(EOFError):
        while True:
            left = limit_s - (time.monotonic() - began)
            if left <= 0 or not receiver.poll(left):
                outcome, said = "timed out", f"it had {limit_s:.0f} s"
                break
            kind, content = receiver.recv()
            if kind == "figures":
                found.add(name, content)
            else:
                outcome, said = kind, content
    _end(process)
    if outcome == "crashed":
        said = f"its process ended with {process.exitcode}"
    found.end(name, seconds=time.monotonic() - began, outcome=outcome, said=said)


def _end(process: Any) -> None:
    """End a process, and what it started: the compiler's workers."""
    process.join(5)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.is_alive():
        process.kill()
    process.join()


def _child(name: str, dry: bool, sender: Connection) -> None:
    """Take a step, and tell how it went."""
    os.setsid()
    try:
        if dry:
            import torch

            torch.set_num_threads(1)
        note = STEPS[name].run(dry, lambda figures: sender.send(("figures", figures)))
    except BaseException as error:
        package = missing_package(error)
        sender.send(("left out", f"{package} is not installed") if package else ("failed", traceback.format_exc()))
    else:
        sender.send(("passed", note or ""))
    sender.close()


def packages() -> list[str]:
    """Return the packages that are needed."""
    return [line for file in PACKAGES for line in file.read_text().splitlines() if not line.startswith("#")]


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in [*packages(), "triton"]:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _goals(steps: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what was aimed at, and what came out, of bf16 with compiled regularizers."""
    figures = steps.get("step_bf16_compiled", {}).get("figures", {})

    def of(*path: str) -> float | None:
        value: Any = figures
        for key in path:
            value = value.get(key, {}) if isinstance(value, dict) else {}
        return None if isinstance(value, dict) else float(value)

    to_fp32, to_same = of("time_ratio", "echotrain_bf16_compiled"), of("time_ratio_same", "bf16_compiled")
    aims = {
        "times_as_fast_as_fastmri_fp32": (to_fp32 and 1 / to_fp32, 3.0, True),
        "times_as_fast_as_fastmri_alike": (to_same and 1 / to_same, 1.3, True),
        "memory_over_fastmri_fp32": (of("memory_ratio", "echotrain_bf16_compiled"), 0.5, False),
        "memory_over_fastmri_alike": (of("memory_ratio_same", "bf16_compiled"), 0.5, False),
    }
    return {
        name: {"figure": figure, "goal": goal, "is_met": None if figure is None else (figure >= goal if is_least else figure <= goal)}
        for name, (figure, goal, is_least) in aims.items()
    }
