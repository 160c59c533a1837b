"""One small Ray cluster for all tests that need one, one small data set, and a run that takes seconds."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from rich.console import Console

from echotrain.config import override
from echotrain.orchestration.runtime.cluster import connect
from echotrain.orchestration.runtime.driver import FitResult, fit
from echotrain.orchestration.runtime.group import Workers
from echotrain.recipes.registry import RECIPES
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import find_checkpoint, load_file, load_weights
from echotrain.training.experiment import Experiment
from echotrain.training.sinks import Record
from tests.simulated import write_simulated_catalog


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Start a cluster of four logical CPUs that every test shares; a machine with fewer cores is merely slower."""
    os.environ.pop("RAY_ADDRESS", None)
    if not ray.is_initialized():
        ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    connect()
    yield
    ray.shutdown()


# A fixture that two folders import is two fixtures; what is made once is kept here.
_made: dict[str, Any] = {}


@pytest.fixture(scope="session")
def catalog_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URI of a prepared catalog of simulated scans: 5 patients to train, 2 to validate, 32 pixels wide."""
    if "catalog" not in _made:
        _made["catalog"] = write_simulated_catalog(tmp_path_factory.mktemp("catalog"))
    uri: str = _made["catalog"]
    return uri


@pytest.fixture
def experiment(catalog_uri: str, tmp_path: Path) -> Experiment:
    """Two short epochs of five steps."""
    return short_experiment(catalog_uri, tmp_path)


@pytest.fixture(scope="module")
def kept(local_ray: None) -> Iterator[Workers]:
    """Return training workers for several runs of a file: they start once, as those of a sweep do, unless a run has failed."""
    with Workers() as workers:
        yield workers


@pytest.fixture(scope="session")
def whole(local_ray: None, catalog_uri: str, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """Return ``experiment`` trained by two workers, without an interruption."""
    if "whole" not in _made:
        _made["whole"] = run(short_experiment(catalog_uri, tmp_path_factory.mktemp("whole")), "workers=2", "checkpoint_every=2")
    result: FitResult = _made["whole"]
    return result


def short_experiment(catalog_uri: str, storage: Path) -> Experiment:
    """Return two short epochs of five steps."""
    settings = ["batch_size=4", "epochs=2", "log_every=1", "optim.lr=1e-3"]
    return override(RECIPES["varnet_mosaic_x4_debug"](), [f"data.catalog={catalog_uri}", f"storage={storage}", *settings])


def run(experiment: Experiment, *settings: str, **options: Any) -> FitResult:
    """Train quietly, with a few settings changed."""
    return fit(override(experiment, settings), console=Console(quiet=True), **options)


def kill_once(step: int, which: int, number: int) -> tuple[Callable[[Record], None], list[int]]:
    """Return a record hook that sends a signal to one worker when ``step`` is logged, and the list of whom it sent it to."""
    done: list[int] = []
    pids: list[int] = []

    def hook(record: Record) -> None:
        if record["kind"] == "start":
            pids[:] = [int(process.split(":")[1]) for process in record["processes"]]
        elif record["kind"] == "train" and record["global_step"] >= step and not done:
            done.append(pids[which])
            os.kill(pids[which], number)

    return hook, done


def lines(result: FitResult) -> list[dict[str, Any]]:
    """Return what the run logged."""
    return [json.loads(line) for line in open_store(result.run_uri).read("metrics.jsonl").decode().splitlines()]


def assert_same_run(first: FitResult, second: FitResult) -> None:
    """Assert the same weights, optimiser and position, bit for bit."""
    stores = [open_store(result.run_uri) for result in (first, second)]
    metas = [find_checkpoint(store) for store in stores]
    weights = [load_weights(store, meta) for store, meta in zip(stores, metas, strict=True) if meta]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    assert metas[0] is not None
    assert metas[1] is not None
    assert metas[0].position == metas[1].position
    states = [load_file(store, meta, "train")["optimizer"]["state"] for store, meta in zip(stores, metas, strict=True) if meta]
    for key, state in states[0].items():
        assert torch.equal(state["exp_avg_sq"], states[1][key]["exp_avg_sq"])
