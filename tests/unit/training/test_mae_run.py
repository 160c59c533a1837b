"""A masked autoencoder trained by the loop on the targets of k-space: it resumes bit for bit, and does not know its rank."""

import pytest
from many_ranks import run_ranks
from toys import lines_of
from whole_runs import assert_resumes_bit_for_bit, losses, new_state, train

from echotrain.config import override
from echotrain.recipes.mae import mae_debug
from echotrain.storage.open import open_store
from tests.simulated import write_simulated_catalog


def experiment_on(catalog):
    """Return two epochs of five steps of four slices."""
    return override(mae_debug(), [f"data.catalog={catalog}", "epochs=2", "batch_size=4", "log_every=1"])


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return experiment_on(write_simulated_catalog(tmp_path_factory.mktemp("catalog")))


def train_on_rank(ranks, catalog, folder):
    run = experiment_on(catalog)
    train(run, open_store(folder), new_state(run), ranks)


def test_ten_steps_equal_five_and_a_resume_and_five_bit_for_bit(experiment, tmp_path):
    outcome = assert_resumes_bit_for_bit(experiment, tmp_path, after=5)
    assert outcome.best_score <= outcome.scores["masked_loss"]


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
    alone = losses(experiment, 1)
    assert len(alone) == 20
    assert losses(experiment, 3) == pytest.approx(alone, rel=1e-5)
