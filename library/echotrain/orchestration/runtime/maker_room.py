"""How many processes make samples for ``stream.where=cluster``: beside the trainers, never in their place."""

import dataclasses

from echotrain.orchestration.runtime.capacity import Capacity, Shape
from echotrain.training.experiment import Experiment

__all__ = ["describe_need", "with_makers", "workers_that_fit"]

_ROUNDING = 1e-9


def workers_that_fit(experiment: Experiment, room: Capacity, shape: Shape) -> int:
    """Return how many training workers fit a cluster, each with one maker of samples.

    Args:
        experiment: Says where samples are made.
        room: Of the cluster.
        shape: Of a training worker.
    """
    fit, stream = room.workers(shape), experiment.stream
    if stream.where == "rank":
        return fit
    each = _of_trainers(experiment, shape) + stream.cpus_per_maker
    return min(fit, int(room.cpus(stream.group) / each + _ROUNDING))


def with_makers(experiment: Experiment, room: Capacity, shape: Shape, *, at_a_time: int = 1) -> Experiment:
    """Say how many makers each rank may have at most, where that is left open: its share of all CPUs that trainers leave.

    Args:
        experiment: One whose workers fit.
        room: Of the cluster.
        shape: Of a training worker.
        at_a_time: Experiments like this one that share the cluster.
    """
    stream, ranks = experiment.stream, experiment.workers * at_a_time
    if stream.where == "rank" or stream.makers:
        return experiment
    left = room.cpus(stream.group) - ranks * _of_trainers(experiment, shape)
    most = max(1, int(left / stream.cpus_per_maker / ranks + _ROUNDING))
    return dataclasses.replace(experiment, stream=dataclasses.replace(stream, makers=most))


def describe_need(experiment: Experiment, shape: Shape) -> str:
    """Return what a training worker asks for, in words."""
    stream = experiment.stream
    if stream.where == "rank":
        return str(shape)
    where = f" of group {stream.group}" if stream.group else ""
    return f"{shape} and {Shape(cpus=stream.cpus_per_maker)}{where} to make samples"


def _of_trainers(experiment: Experiment, shape: Shape) -> float:
    """Return the CPUs that a training worker takes where makers run: none where these have a group of their own, beside one of GPUs."""
    return 0.0 if experiment.stream.group and shape.gpus else shape.cpus
