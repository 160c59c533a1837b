"""Windows of frames trained on by the loop: a resume in the middle of slices changes nothing, nor does the number of ranks."""

import pytest
from whole_runs import assert_resumes_bit_for_bit, losses

from echotrain.config import from_dict, override, to_dict
from echotrain.data.samples.kspace_kt import KtData
from echotrain.errors import ConfigError
from echotrain.physics.kt_masks import KtMaskConfig
from echotrain.training.experiment import Experiment, changed_keys, science
from tests.frame_catalogs import moving_disc, write_frames

SETTINGS = [
    "data.kind=kspace_kt",
    "data.num_adjacent=3",
    "data.mask={kinds: [kt_gaussian, kt_radial], accelerations: [4, 8], acs_lines: 6}",
    "model={num_adjacent: 3, num_cascades: 1, chans: 2, pools: 2, sens_chans: 2, sens_pools: 2}",
    "epochs=2",
    "batch_size=6",
    "log_every=1",
]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Two epochs of five steps of six frames."""
    folder = tmp_path_factory.mktemp("disc")
    write_frames(folder, shapes=((3, 33, 36),), volumes=6, slices=1, splits=("train",) * 5 + ("val",), draw=moving_disc)
    return override(Experiment(), [*SETTINGS, f"data.catalog={folder}"])


def test_ten_steps_equal_seven_and_a_resume_and_three_bit_for_bit(experiment, tmp_path):
    assert_resumes_bit_for_bit(experiment, tmp_path, after=7)


def test_a_frame_has_the_same_loss_on_whichever_rank_it_lands(experiment):
    alone = losses(experiment, 1)
    assert len(alone) == 30
    assert losses(experiment, 4) == pytest.approx(alone, rel=1e-5)


def test_an_experiment_on_windows_survives_as_plain_values(experiment):
    assert isinstance(experiment.data, KtData)
    assert from_dict(Experiment, to_dict(experiment)) == experiment
    assert science(experiment)["data.mask.acs_lines"] == 6


@pytest.mark.parametrize(
    "settings", [["data.num_adjacent=5"], ["model.num_adjacent=1"], ["data.kind=kspace_lines"], ["task.kind=bridge", "model.kind=bridge"]]
)
def test_windows_other_than_those_of_the_network_are_refused_before_a_run(experiment, settings):
    with pytest.raises(ConfigError, match=r"data\.(num_adjacent=\d and model\.num_adjacent=\d|kind=kspace_kt)"):
        override(experiment, settings)


def test_a_run_of_before_there_were_windows_goes_on():
    now = science(Experiment())
    before = {path: value for path, value in now.items() if path != "model.num_adjacent"}
    assert changed_keys(before, now) == {}
    assert changed_keys(before, {**now, "model.num_adjacent": 3}) == {"model.num_adjacent": (1, 3)}


def test_masks_are_set_by_name():
    changed = override(Experiment(), ["data.kind=kspace_kt", "data.mask.kinds=[kt_uniform]", "data.edges=circular"])
    assert changed.data == KtData(mask=KtMaskConfig(kinds=("kt_uniform",)), edges="circular")
    with pytest.raises(ConfigError, match=r"data\.mask\.kinds"):
        override(Experiment(), ["data.kind=kspace_kt", "data.mask.kinds=[kt_spiral]"])
