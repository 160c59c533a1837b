"""Everything about a run that can be known to fail before a worker starts."""

import dataclasses
import functools
import logging
import uuid
from typing import Literal

import numpy as np
import ray
import torch

from echotrain.data.catalog.columns import taken
from echotrain.data.catalog.containment import absolute_trusted
from echotrain.data.catalog.leaks import training_warning
from echotrain.data.catalog.rows import Catalog
from echotrain.data.catalog.selection import select
from echotrain.data.catalog.store import load_catalog, split_version
from echotrain.data.catalog.subsets import load_subset
from echotrain.data.plan.balance import balance_weights
from echotrain.data.samples.data_config import DataConfig
from echotrain.errors import CheckpointError, ConfigError, ResourceError
from echotrain.models.pretrained import NamesWeights
from echotrain.orchestration.runtime.capacity import Capacity, Shape, capacity
from echotrain.orchestration.runtime.maker_room import describe_need, workers_that_fit
from echotrain.orchestration.runtime.workers import catalog_identity
from echotrain.storage.open import absolute_uri, local_path
from echotrain.storage.store import Store
from echotrain.training.checkpoint import CheckpointMeta
from echotrain.training.experiment import Experiment, ModelConfig, changed_keys, science
from echotrain.training.method import build_method

__all__ = [
    "check_groups",
    "check_resumable",
    "check_selection",
    "check_writable",
    "choose_device",
    "located",
    "warn_of_unshared_folder",
    "with_absolute_paths",
    "with_pinned_catalog",
    "worker_shape",
]

logger = logging.getLogger(__name__)


def with_absolute_paths(experiment: Experiment) -> Experiment:
    """Make local paths absolute: a worker's working directory is another. Weights that are named must be there."""
    if not experiment.data.catalog:
        raise ConfigError("data.catalog=''", "names no data", "Prepare some with ray_jobs.prepare and give data.catalog=URI.")
    named = experiment.data
    data = dataclasses.replace(named, catalog=absolute_uri(named.catalog), trusted=absolute_trusted(named.trusted))
    return dataclasses.replace(
        experiment, data=data, model=located(experiment.model, begins=True), storage=absolute_uri(experiment.storage)
    )


def located(model: ModelConfig, *, begins: bool) -> ModelConfig:
    """Return a network's settings once the weights that they name are found, those that training ``begins`` with where it does."""
    return model.located(begins=begins) if isinstance(model, NamesWeights) else model


def check_writable(store: Store) -> None:
    """Write and remove a probe, so that a wrong credential or a full disk shows before anything starts."""
    probe = f".probe-{uuid.uuid4().hex[:8]}"
    store.write(probe, b"")
    store.delete(probe)


def with_pinned_catalog(experiment: Experiment, latest: CheckpointMeta | None) -> Experiment:
    """Name one version of the catalog: that of the checkpoint, else the one asked for, so that a commit in mid-run changes no plan."""
    root, version = split_version(experiment.data.catalog)
    if version is None and latest is not None:
        version = latest.catalog["version"]
    catalog = load_catalog(root if version is None else f"{root}@{version}", trusted=experiment.data.trusted)
    if latest is not None and catalog_identity(catalog)["checksum"] != latest.catalog["checksum"]:
        raise CheckpointError(
            f"{experiment.run_uri}/checkpoints/{latest.name}",
            f"was made from other data than {root}@{catalog.version}, so its plan is another",
            f"Name the catalog that it was made from (version {latest.catalog['version']}), or choose a new name=.",
        )
    check_selection(catalog, experiment.data)
    return dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, catalog=f"{root}@{catalog.version}"))


def check_resumable(latest: CheckpointMeta, experiment: Experiment, store: Store) -> None:
    """Raise ``CheckpointError``, naming the settings that differ, where the checkpoint is of another science."""
    changed = changed_keys(latest.science, science(experiment))
    if changed:
        listed = ", ".join(f"{path} was {before!r}, now {now!r}" for path, (before, now) in changed.items())
        raise CheckpointError(
            f"{store.uri}/checkpoints/{latest.name}",
            f"was made by another experiment: {listed}",
            "Give this one its own name=, or restore the settings.",
        )


def check_groups(experiment: Experiment) -> None:
    """Build the network where its parameters are grouped by name; raises ``ConfigError`` where a name is not there."""
    if experiment.optim.groups:
        with torch.random.fork_rng(devices=[]):
            experiment.optim.build(build_method(experiment).network)


def choose_device(experiment: Experiment) -> Literal["cpu", "cuda"]:
    """Return the workers' device; raises ``ResourceError`` where the cluster cannot hold them, and cannot grow to.

    Where there are GPUs, or a group of them may come, ``auto`` is never a CPU: whoever wants one says so.
    """
    room = capacity()
    is_cuda = experiment.device == "cuda" or (experiment.device == "auto" and room.gpus > 0)
    shape = worker_shape(experiment, is_cuda=is_cuda)
    fit = workers_that_fit(experiment, room, shape)
    if fit < experiment.workers:
        value = f"workers={experiment.workers} of {describe_need(experiment, shape)} each"
        raise ResourceError(value, f"are more than the {fit} that fit: {room}", _remedy(experiment, room, fit, is_cuda=is_cuda))
    return "cuda" if is_cuda else "cpu"


def worker_shape(experiment: Experiment, *, is_cuda: bool) -> Shape:
    """Return what a worker reserves."""
    return Shape(cpus=experiment.cpus_per_worker, gpus=float(is_cuda))


def _remedy(experiment: Experiment, room: Capacity, fit: int, *, is_cuda: bool) -> str:
    ways = [f"set workers={fit}"] if fit else ["lower cpus_per_worker"] if room.gpus or not is_cuda else []
    if experiment.stream.where == "cluster" and room.workers(worker_shape(experiment, is_cuda=is_cuda)) >= experiment.workers:
        ways.append("set stream.where=rank")
    if is_cuda and room.workers(worker_shape(experiment, is_cuda=False)) >= experiment.workers:
        ways.append("set device=cpu")
    return f"{', '.join([*ways, 'or add nodes']).capitalize()}."


def warn_of_unshared_folder(experiment: Experiment) -> None:
    """Warn where a run on several nodes, those that may come among them, is kept in a folder."""
    nodes = max(sum(node["Alive"] for node in ray.nodes()), capacity().num_nodes)
    if nodes > 1 and local_path(experiment.storage) is not None:
        logger.warning("storage=%s is a folder on a cluster of %d nodes: it must be one that they share", experiment.storage, nodes)


def check_selection(catalog: Catalog, data: DataConfig) -> None:
    """Refuse a selection with nothing to train on, nothing to validate on, or rows of another kind; warn of what is known of the rest.

    Raises:
        CatalogError: There are no such rows, or they lack what samples are made of.
    """
    subset = load_subset(catalog.root, data.subset) if data.subset else None
    train = select(catalog.table, splits=data.train_split, where=data.where, subset=subset, payload=data.payload)
    val = select(catalog.table, splits=("val",), where=data.where, payload=data.payload)
    balance_weights(catalog.table, train, data.balance)
    for warning in (*data.check(taken(catalog.table, np.union1d(train, val), data.checked)), training_warning(catalog)):
        _warn_once(warning)


@functools.cache
def _warn_once(warning: str) -> None:
    """Log a warning the first time that this process has it: the trials of a sweep share a catalog."""
    if warning:
        logger.warning("%s", warning)
