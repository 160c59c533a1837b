"""How many processes make samples for ``stream.where=cluster``: beside the trainers, never in their place."""

import bisect
import dataclasses

from echotrain.orchestration.runtime.capacity import Capacity, Node, Shape
from echotrain.training.experiment import Experiment

__all__ = ["describe_need", "with_makers", "workers_that_fit"]

# Makers of a rank for which nobody gave a number: of more, each would wait for the network or for the rank.
_MOST_MAKERS = 64


def workers_that_fit(experiment: Experiment, room: Capacity, shape: Shape) -> int:
    """Return how many training workers fit a cluster, each with one maker of samples.

    Args:
        experiment: Says where samples are made.
        room: Of the cluster.
        shape: Of a training worker.
    """
    fit = room.workers(shape)
    if experiment.stream.where == "rank":
        return fit
    # Each worker more leaves as many makers, or fewer.
    return bisect.bisect_left(range(1, fit + 1), True, key=lambda workers: _makers_beside(workers, experiment, room, shape) < workers)


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
    each = _makers_beside(ranks, experiment, room, shape) // ranks
    return dataclasses.replace(experiment, stream=dataclasses.replace(stream, makers=min(max(1, each), _MOST_MAKERS)))


def describe_need(experiment: Experiment, shape: Shape) -> str:
    """Return what a training worker asks for, in words."""
    stream = experiment.stream
    if stream.where == "rank":
        return str(shape)
    where = f" of group {stream.group}" if stream.group else ""
    return f"{shape} and {Shape(cpus=stream.cpus_per_maker)}{where} to make samples"


def _makers_beside(trainers: int, experiment: Experiment, room: Capacity, shape: Shape) -> int:
    """Return how many makers fit beside some trainers, which take what no maker may use first, and then fill node after node."""
    stream = experiment.stream
    maker = Shape(cpus=stream.cpus_per_maker)
    kinds = [(node, count, node.holds(shape)) for node, count in room.kinds()]
    of_makers = [each for each in kinds if stream.group in ("", each[0].group)]
    left = trainers - sum(count * most for node, count, most in kinds if stream.group not in ("", node.group))
    makers = sum(node.holds(maker) * count for node, count, _ in of_makers)

    def lost(node: Node, workers: int) -> int:
        rest = Node(cpus=node.cpus - workers * shape.cpus)
        return node.holds(maker) - rest.holds(maker)

    for node, count, most in sorted((each for each in of_makers if each[2]), key=lambda each: lost(each[0], each[2]) / each[2]):
        if left <= 0:
            break
        full = min(count, left // most)
        makers -= full * lost(node, most)
        left -= full * most
        if full < count and left:
            makers -= lost(node, min(left, most))
            left = 0
    return makers
