"""Runs of a real task on real batches by the loop, one after another or cut in two."""

from pathlib import Path
from typing import Any

import torch
from toys import StopAt, assert_same_weights, lines_of, toy_trainer

from echotrain.data.catalog.identity import SampleId
from echotrain.data.planned import PlannedStream
from echotrain.ranks import Ranks
from echotrain.storage.open import open_store
from echotrain.storage.store import Store
from echotrain.training.checkpoint import find_checkpoint, load_file, load_weights
from echotrain.training.experiment import Experiment
from echotrain.training.outcome import Outcome, Signal
from echotrain.training.state import TrainState

NUM_STEPS = 10


def new_state(experiment: Experiment) -> TrainState:
    """Return the state before the first step, always the same."""
    torch.manual_seed(0)
    model = experiment.model.build()
    return TrainState(model, experiment.optim.build(model))


def train(experiment: Experiment, store: Store, state: TrainState, ranks: Ranks | None = None, **options: Any) -> Outcome:
    """Train on this rank's share."""
    ranks = ranks or Ranks()
    stream = _stream_of(experiment, ranks.rank, ranks.world)
    return toy_trainer(experiment, store, state=state, task=experiment.task.build(), stream=stream, ranks=ranks, **options).fit()


def assert_resumes_bit_for_bit(experiment: Experiment, folder: Path, *, after: int) -> Outcome:
    """Assert that ten steps equal some of them, a resume and the rest; return what the whole run came to."""
    whole, parts = open_store(str(folder / "whole")), open_store(str(folder / "parts"))
    outcome = train(experiment, whole, new_state(experiment))
    assert outcome.global_step == NUM_STEPS

    first = train(experiment, parts, new_state(experiment), signal=StopAt(after))
    assert (first.signal, first.global_step) == (Signal.STOP, after)
    state, meta = new_state(experiment), find_checkpoint(parts)
    state.restore(load_file(parts, meta, "weights"), load_file(parts, meta, "train"), meta.position, meta.scores)
    assert train(experiment, parts, state).global_step == NUM_STEPS

    assert_same_weights(load_weights(whole, find_checkpoint(whole)), load_weights(parts, find_checkpoint(parts)))
    assert lines_of(whole) == lines_of(parts)
    return outcome


@torch.no_grad()
def losses(experiment: Experiment, world_size: int) -> dict[SampleId, float]:
    """Return the loss of every sample of an epoch before the first step, from whichever rank it lands on."""
    task, network = experiment.task.build(), new_state(experiment).network
    found: dict[SampleId, float] = {}
    for rank in range(world_size):
        for step in _stream_of(experiment, rank, world_size).steps(1):
            for batch in step.batches:
                found.update(zip(batch.ids, task.loss(network, batch).per_sample.tolist(), strict=True))
    return found


def _stream_of(experiment: Experiment, rank: int, world_size: int) -> PlannedStream:
    return PlannedStream(experiment.data, seed=experiment.seed, batch_size=experiment.batch_size, rank=rank, world_size=world_size)
