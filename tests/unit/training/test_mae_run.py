"""A masked autoencoder trained by the loop on the targets of k-space: it resumes bit for bit, and does not know its rank."""

import pytest
import torch
from many_ranks import run_ranks
from toys import StopAt, assert_same_weights, lines_of, toy_trainer

from echotrain.config import override
from echotrain.data.planned import PlannedStream
from echotrain.ranks import Ranks
from echotrain.recipes.mae import mae_debug
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import find_checkpoint, load_file, load_weights
from echotrain.training.outcome import Signal
from echotrain.training.state import TrainState
from tests.simulated import write_simulated_catalog


def experiment_on(catalog):
    """Return two epochs of five steps of four slices."""
    return override(mae_debug(), [f"data.catalog={catalog}", "epochs=2", "batch_size=4", "log_every=1"])


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return experiment_on(write_simulated_catalog(tmp_path_factory.mktemp("catalog")))


def stream_of(experiment, rank=0, world_size=1):
    return PlannedStream(experiment.data, seed=experiment.seed, batch_size=experiment.batch_size, rank=rank, world_size=world_size)


def new_state(experiment):
    torch.manual_seed(0)
    model = experiment.model.build()
    return TrainState(model, experiment.optim.build(model))


def train(experiment, store, state, ranks=None, **options):
    ranks = ranks or Ranks()
    stream = stream_of(experiment, ranks.rank, ranks.world)
    return toy_trainer(experiment, store, state=state, task=experiment.task.build(), stream=stream, ranks=ranks, **options).fit()


def train_on_rank(ranks, catalog, folder):
    run = experiment_on(catalog)
    train(run, open_store(folder), new_state(run), ranks)


def test_ten_steps_equal_five_and_a_resume_and_five_bit_for_bit(experiment, tmp_path):
    whole, parts = open_store(str(tmp_path / "whole")), open_store(str(tmp_path / "parts"))
    outcome = train(experiment, whole, new_state(experiment))
    assert outcome.global_step == 10
    assert outcome.best_score <= outcome.scores["masked_loss"]

    first = train(experiment, parts, new_state(experiment), signal=StopAt(5))
    assert (first.signal, first.global_step) == (Signal.STOP, 5)
    state, meta = new_state(experiment), find_checkpoint(parts)
    state.restore(load_file(parts, meta, "weights"), load_file(parts, meta, "train"), meta.position, meta.scores)
    assert train(experiment, parts, state).global_step == 10

    assert_same_weights(load_weights(whole, find_checkpoint(whole)), load_weights(parts, find_checkpoint(parts)))
    assert lines_of(whole) == lines_of(parts)


def test_two_ranks_train_as_one(experiment, tmp_path):
    one, two = open_store(str(tmp_path / "one")), open_store(str(tmp_path / "two"))
    train(experiment, one, new_state(experiment))
    run_ranks(train_on_rank, 2, experiment.data.catalog, str(tmp_path / "two"))
    pairs = [(ours, theirs) for ours, theirs in zip(lines_of(one), lines_of(two), strict=True) if "loss" in ours]
    assert len(pairs) == 12
    for ours, theirs in pairs:
        for name in ours.keys() & {"loss", "grad_norm", "masked_loss"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name


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
