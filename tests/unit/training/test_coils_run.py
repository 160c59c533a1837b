"""Virtual coils trained on by the loop: a resume changes no bit, nor does the number of ranks a loss; and it learns from fewer coils."""

import pytest
import torch
from whole_runs import assert_resumes_bit_for_bit, losses

from echotrain.config import override
from echotrain.data.planned import PlannedStream
from echotrain.training.experiment import Experiment
from tests.simulated import write_simulated_catalog

SETTINGS = [
    "data.coils=3",
    "data.mask.center_fractions=[0.2]",
    "model={num_cascades: 1, chans: 2, pools: 2, sens_chans: 2, sens_pools: 2}",
    "epochs=2",
    "batch_size=4",
    "log_every=1",
]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Two epochs of five steps of four slices, of 8, 6 and 4 coils."""
    catalog = write_simulated_catalog(tmp_path_factory.mktemp("catalog"))
    return override(Experiment(), [*SETTINGS, f"data.catalog={catalog}"])


def test_ten_steps_equal_six_and_a_resume_and_four_bit_for_bit(experiment, tmp_path):
    assert_resumes_bit_for_bit(experiment, tmp_path, after=6)


def test_a_slice_has_the_same_loss_on_whichever_rank_it_lands(experiment):
    alone = losses(experiment, 1)
    assert len(alone) == 20
    assert losses(experiment, 2) == pytest.approx(alone, rel=1e-5)


def test_networks_are_given_the_virtual_coils_in_training_and_validation(experiment):
    stream = PlannedStream(experiment.data, seed=experiment.seed, batch_size=4)
    batches = [batch for step in stream.steps(0) for batch in step.batches] + list(stream.evaluation())
    stream.close()
    assert {batch.network_input().kspace.shape[1] for batch in batches} == {3}
    assert all(torch.isfinite(batch.kspace.abs()).all() for batch in batches)
