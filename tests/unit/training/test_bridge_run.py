"""A bridge trained by the loop on real batches: what is drawn for a slice survives a resume, and does not know its rank."""

import pytest
from whole_runs import assert_resumes_bit_for_bit, losses

from echotrain.config import override
from echotrain.recipes.lbm import lbm_mosaic_x4_debug
from tests.simulated import write_simulated_catalog


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Two epochs of five steps of four slices."""
    catalog = write_simulated_catalog(tmp_path_factory.mktemp("catalog"))
    settings = [f"data.catalog={catalog}", "epochs=2", "batch_size=4", "log_every=1", "task.noise=0.2", "task.ssim_weight=0.1"]
    return override(lbm_mosaic_x4_debug(), settings)


def test_ten_steps_equal_five_and_a_resume_and_five_bit_for_bit(experiment, tmp_path):
    assert_resumes_bit_for_bit(experiment, tmp_path, after=5)


def test_a_slice_has_the_same_loss_on_whichever_rank_it_lands(experiment):
    alone = losses(experiment, 1)
    assert len(alone) == 20
    assert losses(experiment, 3) == pytest.approx(alone, rel=1e-5)
