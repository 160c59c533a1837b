"""A masked autoencoder trained by the loop on the targets of k-space: it resumes bit for bit, and does not know its rank."""

import pytest
import torch
from toys import StopAt, assert_same_weights, lines_of, toy_trainer

from echotrain.config import override
from echotrain.data.planned import PlannedStream
from echotrain.recipes.mae import mae_debug
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import find_checkpoint, load_file, load_weights
from echotrain.training.outcome import Signal
from echotrain.training.state import TrainState
from tests.simulated import write_simulated_catalog


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Two epochs of five steps of four slices."""
    catalog = write_simulated_catalog(tmp_path_factory.mktemp("catalog"))
    return override(mae_debug(), [f"data.catalog={catalog}", "epochs=2", "batch_size=4", "log_every=1"])


def stream_of(experiment, rank=0, world_size=1):
    return PlannedStream(experiment.data, seed=experiment.seed, batch_size=experiment.batch_size, rank=rank, world_size=world_size)


def new_state(experiment):
    torch.manual_seed(0)
    model = experiment.model.build()
    return TrainState(model, experiment.optim.build(model))


def train(experiment, store, state, **options):
    return toy_trainer(experiment, store, state=state, task=experiment.task.build(), stream=stream_of(experiment), **options).fit()


def test_ten_steps_equal_five_and_a_resume_and_five_bit_for_bit(experiment, tmp_path):
    whole, parts = open_store(str(tmp_path / "whole")), open_store(str(tmp_path / "parts"))
    outcome = train(experiment, whole, new_state(experiment))
    assert outcome.global_step == 10
    assert outcome.best_score == outcome.scores["negative_masked_loss"] < 0

    first = train(experiment, parts, new_state(experiment), signal=StopAt(5))
    assert (first.signal, first.global_step) == (Signal.STOP, 5)
    state, meta = new_state(experiment), find_checkpoint(parts)
    state.restore(load_file(parts, meta, "weights"), load_file(parts, meta, "train"), meta.position, meta.scores)
    assert train(experiment, parts, state).global_step == 10

    assert_same_weights(load_weights(whole, find_checkpoint(whole)), load_weights(parts, find_checkpoint(parts)))
    assert lines_of(whole) == lines_of(parts)


def test_a_slice_has_the_same_loss_on_whichever_rank_it_lands(experiment):
    task, model = experiment.task.build(), new_state(experiment).network

    def losses(world_size):
        found = {}
        for rank in range(world_size):
            for step in stream_of(experiment, rank, world_size).steps(1):
                for batch in step.batches:
                    found.update(zip(batch.ids, task.loss(model, batch).per_sample.tolist(), strict=True))
        return found

    with torch.no_grad():
        alone, shared = losses(1), losses(3)
    assert len(alone) == 20
    assert shared == pytest.approx(alone, rel=1e-5)
