"""What a sweep costs beside its training: a grid of short trials under Ray Tune, against the same trials one after another."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from echotrain.benchmarks.result import BenchResult
from echotrain.config import override
from echotrain.data.formats.deidentify import PUBLIC_SALT
from echotrain.data.simulation.scans import SimulationConfig, simulate
from echotrain.errors import ConfigError
from echotrain.orchestration.jobs.prepare import PrepareConfig, prepare
from echotrain.orchestration.jobs.tuning import run_sweep
from echotrain.orchestration.runtime.cluster import connect
from echotrain.orchestration.runtime.driver import FitResult, fit
from echotrain.orchestration.runtime.group import Workers
from echotrain.recipes.registry import find_recipe
from echotrain.sweeps.console import SweepConsole
from echotrain.sweeps.parameters import Choice
from echotrain.sweeps.spec import SweepSpec
from echotrain.training.experiment import Experiment
from echotrain.training.swept import check_sweep

__all__ = ["run"]


def run(*, quick: bool = False, trials: int = 12, epochs: int = 4, device: str = "cpu", concurrency: int = 0) -> BenchResult:
    """Sweep a grid of ``trials`` runs, then train the same runs one after another, as a loop over ``fit`` would.

    ``ours`` is the wall time of the sweep, ``baseline`` the sum of the loop's; connecting to Ray is in neither. The loop starts workers
    for every run, as a loop in a shell would, but is spared a process and a cluster of its own. ``ratio_to_kept_workers`` is
    against a loop that keeps its workers: what trials at a time alone are worth.

    Args:
        quick: Two trials: a check that it works.
        trials: Points of the grid, an even number.
        epochs: Of each.
        device: ``cpu`` or ``cuda``.
        concurrency: Trials at a time; 0 takes as many as the cluster holds.
    """
    if trials < 2 or trials % 2:
        raise ConfigError(f"trials={trials}", "must be an even number of at least 2", "Use 12.")
    num_trials = 2 if quick else trials
    with tempfile.TemporaryDirectory(prefix="echotrain-bench-") as scratch:
        connect()
        folder = Path(scratch)
        simulate(SimulationConfig(num_patients=18, volumes_per_patient=1, num_slices=4, matrix=32), folder / "scans")
        prepare(PrepareConfig(source=str(folder / "scans"), to=str(folder / "prepared"), salt=PUBLIC_SALT))
        base = override(
            find_recipe("varnet_mosaic_x4_debug")(),
            [f"data.catalog={folder / 'prepared'}", f"storage={folder / 'swept'}", f"device={device}", f"epochs={epochs}"],
        )
        spec = SweepSpec(
            name="bench",
            recipe="varnet_mosaic_x4_debug",
            method="grid",
            parameters={"model.num_cascades": Choice(values=(1, 2)), "seed": Choice(values=tuple(range(num_trials // 2)))},
        )
        started = time.perf_counter()
        result = run_sweep(spec, base, concurrency=concurrency, console=SweepConsole(Console(quiet=True)))
        ours = time.perf_counter() - started
        experiments = check_sweep(spec, base)
        with Workers() as kept:
            warm, warm_results = _one_by_one(experiments, f"{folder / 'kept'}", kept)
        cold, cold_results = _one_by_one(experiments, f"{folder / 'alone'}", None)
    swept = {trial.name: trial.scores["ssim"] for trial in result.trials}
    alone = {e.wandb.name: result.scores["ssim"] for e, result in zip(experiments, cold_results, strict=True)}
    overheads = [trial.wall_s - trial.training_s for trial in result.trials]
    return BenchResult(
        name="sweep",
        ours=ours,
        baseline=cold,
        unit="s",
        ratio=ours / cold,
        detail={
            "trials": num_trials,
            "epochs": epochs,
            "ratio_to_kept_workers": ours / warm,
            "one_by_one_kept_workers_s": warm,
            "overhead_per_trial_s": statistics.mean(overheads),
            "overhead_median_s": statistics.median(overheads),
            "overhead_max_s": max(overheads),
            "training_per_trial_s": statistics.mean(trial.training_s for trial in result.trials),
            "scores_are_equal": swept == alone and [r.scores for r in warm_results] == [r.scores for r in cold_results],
            "overhead_is": "from a trial's start to its end, without the time from its first step's preparation to its end",
        },
    )


def _one_by_one(experiments: Sequence[Experiment], storage: str, workers: Workers | None) -> tuple[float, list[FitResult]]:
    """Train one run after another; return the seconds that it took, and the results."""
    started = time.perf_counter()
    results = [fit(override(each, [f"storage={storage}"]), console=Console(quiet=True), workers=workers) for each in experiments]
    return time.perf_counter() - started, results
