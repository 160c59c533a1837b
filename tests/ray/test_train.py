"""Training through Ray: the number of workers changes no number, and neither does a resume."""

import pytest

from tests.local_cluster import lines, run

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def test_two_workers_give_the_losses_of_one_and_a_resumed_run_those_of_an_uninterrupted_one(experiment):
    one = run(experiment, "name=one")
    run(experiment, "name=two", "workers=2", "epochs=1")
    two = run(experiment, "name=two", "workers=2")
    assert two.is_finished
    assert two.global_step == 10
    for ours, theirs in zip(lines(one), lines(two), strict=True):
        assert ours["kind"] == theirs["kind"]
        for key in ours.keys() & {"loss", "ssim", "psnr", "nmse", "grad_norm"}:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-5), key
    again = run(experiment, "name=two", "workers=2")
    assert again == two
