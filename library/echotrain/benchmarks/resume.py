"""What a dead worker costs: seconds from SIGKILL to the next training step, steps done twice, and whether any weight differs."""

import os
import signal
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from echotrain.benchmarks.result import BenchResult
from echotrain.config import override
from echotrain.data.formats.deidentify import PUBLIC_SALT
from echotrain.data.simulation.scans import SimulationConfig, simulate
from echotrain.errors import ConfigError
from echotrain.orchestration.jobs.prepare import PrepareConfig, prepare
from echotrain.orchestration.runtime.cluster import connect
from echotrain.orchestration.runtime.driver import FitResult, fit
from echotrain.recipes.registry import find_recipe
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import find_checkpoint, load_weights
from echotrain.training.experiment import Experiment
from echotrain.training.sinks import Record

__all__ = ["run"]


def run(*, quick: bool = False, device: str = "cpu", workers: int = 2, checkpoint_every: int = 4) -> BenchResult:
    """Train the same run twice, kill a worker in the middle of the second, and compare.

    ``ours`` is the time from the kill to the next step that a fresh group of workers does; ``baseline`` the time from the start of the
    uninterrupted run to its first step. Both start processes, join them, build the network and fetch the first batch; ours also
    notices the death and loads the checkpoint.

    Args:
        quick: The smallest network: a check that it works.
        device: ``cpu`` or ``cuda``.
        workers: Training processes; all on this machine, one of which is killed.
        checkpoint_every: Steps between checkpoints, which bound the steps that are done twice.
    """
    if checkpoint_every < 1:
        raise ConfigError(f"checkpoint_every={checkpoint_every}", "must be at least 1", "Use 4.")
    with tempfile.TemporaryDirectory(prefix="echotrain-bench-") as scratch:
        connect()
        folder = Path(scratch)
        simulate(SimulationConfig(num_patients=12, volumes_per_patient=1, num_slices=4, matrix=32 if quick else 64), folder / "scans")
        prepare(PrepareConfig(source=str(folder / "scans"), to=str(folder / "prepared"), salt=PUBLIC_SALT))
        network = ["model.num_cascades=1", "model.chans=4"] if quick else ["model.num_cascades=4", "model.chans=8"]
        place = [
            f"workers={workers}",
            f"device={device}",
            f"storage={folder / 'runs'}",
            f"checkpoint_every={checkpoint_every}",
            "log_every=1",
        ]
        settings = [f"data.catalog={folder / 'prepared'}", "epochs=2", f"batch_size={max(2, workers)}", *network, *place]
        experiment = override(find_recipe("varnet_mosaic_x4_debug")(), settings)
        whole = _observe(override(experiment, ["name=whole"]), kill_at=None)
        kill_at = whole.result.global_step // 2 + checkpoint_every // 2
        if kill_at >= whole.result.global_step:
            limit = f"leaves no checkpoint in a run of {whole.result.global_step} steps"
            raise ConfigError(f"checkpoint_every={checkpoint_every}", limit, "Use 4.")
        killed = _observe(override(experiment, ["name=killed"]), kill_at=kill_at)
        difference = _max_difference(whole.result, killed.result)
    return BenchResult(
        name="resume",
        ours=killed.seconds_to_next_step,
        baseline=whole.seconds_to_first_step,
        unit="s",
        ratio=killed.seconds_to_next_step / whole.seconds_to_first_step,
        detail={
            "max_weight_difference": difference,
            "steps_replayed": killed.steps_replayed,
            "steps": whole.result.global_step,
            "checkpoint_every": checkpoint_every,
            "workers": workers,
            "device": device,
            "seconds_uninterrupted": whole.seconds,
            "seconds_interrupted": killed.seconds,
            "ours_is": "from SIGKILL of a worker to the next training step",
            "baseline_is": "from the start of an uninterrupted run to its first training step",
        },
    )


@dataclass(kw_only=True)
class _Run:
    """One run as the driver saw it; times in seconds since its start."""

    result: FitResult
    seconds: float
    log: list[tuple[float, Record]] = field(default_factory=list)
    killed_at: float | None = None

    @property
    def seconds_to_first_step(self) -> float:
        return next(seconds for seconds, record in self.log if record["kind"] == "train")

    @property
    def seconds_to_next_step(self) -> float:
        """From the kill to the first step after the second start."""
        assert self.killed_at is not None
        return next(seconds for seconds, record in self.log[self._restart :] if record["kind"] == "train") - self.killed_at

    @property
    def steps_replayed(self) -> int:
        done = max(record["global_step"] for _, record in self.log[: self._restart])
        return int(done - self.log[self._restart][1]["global_step"])

    @property
    def _restart(self) -> int:
        return [index for index, (_, record) in enumerate(self.log) if record["kind"] == "start"][1]


def _observe(experiment: Experiment, *, kill_at: int | None) -> _Run:
    """Train, and kill the last worker once step ``kill_at`` is seen."""
    log: list[tuple[float, Record]] = []
    killed: list[float] = []
    started = time.perf_counter()

    def watch(record: Record) -> None:
        log.append((time.perf_counter() - started, record))
        if kill_at is not None and not killed and record["kind"] == "train" and record["global_step"] >= kill_at:
            _kill(log)
            killed.append(time.perf_counter() - started)

    result = fit(experiment, console=Console(quiet=True), on_record=watch)
    return _Run(result=result, seconds=time.perf_counter() - started, log=log, killed_at=killed[0] if killed else None)


def _kill(log: list[tuple[float, Record]]) -> None:
    """Send SIGKILL to the last worker, which must be a process of this machine."""
    processes: list[Any] = next(record["processes"] for _, record in log if record["kind"] == "start")
    host, pid = processes[-1].rsplit(":", 1)
    if host != socket.gethostname():
        raise ConfigError(f"a worker on {host}", "cannot be killed from here", "Run this benchmark on a cluster of one node.")
    os.kill(int(pid), signal.SIGKILL)


def _max_difference(first: FitResult, second: FitResult) -> float:
    """Return the largest absolute difference of any weight of two finished runs."""
    states = []
    for result in (first, second):
        store = open_store(result.run_uri)
        meta = find_checkpoint(store)
        assert meta is not None
        states.append(load_weights(store, meta))
    return max(float(torch.max(torch.abs(value - states[1][name]))) for name, value in states[0].items())
