"""What an evaluation decides before a worker starts."""

import pytest

from echotrain.errors import ConfigError, ResourceError
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.orchestration.jobs import inference
from echotrain.orchestration.jobs.inference import InferenceConfig
from echotrain.orchestration.runtime.cluster import reserved_gpus
from echotrain.storage.open import open_store
from echotrain.sweeps.trial import SweepFolder, Trial
from tests.runs import write_run

SMALL = VarNetConfig(num_cascades=1, chans=4, pools=2, sens_chans=2, sens_pools=2)


def test_a_gpu_that_is_reserved_and_that_torch_does_not_see_is_an_error_and_no_slow_evaluation(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", SMALL)
    method, _ = InferenceConfig(run=run).resolved()
    monkeypatch.setattr(inference.torch.cuda, "is_available", lambda: False)
    assert method.load().device.type == "cpu"
    monkeypatch.setattr(inference, "reserved_gpus", lambda: 1.0)
    with pytest.raises(ResourceError, match=r"has reserved 1 GPU: torch .* sees none. Use an image whose torch fits"):
        method.load()


def test_outside_of_a_worker_no_gpu_is_reserved():
    assert reserved_gpus() == 0


def test_a_sweep_is_evaluated_by_its_best_trial(tmp_path):
    folder = SweepFolder(open_store(str(tmp_path)))
    folder.describe({"name": "s", "searched": {"metric": None}})
    for number, score in enumerate((0.4, 0.7)):
        model = VarNetConfig(num_cascades=1 + number, chans=4, pools=2, sens_chans=2, sens_pools=2)
        run = write_run(tmp_path / str(number), model)
        folder.save(Trial(number=number, name=str(number), values={}, run=run, state="finished", curve=((1, score),)))
    method, subject = InferenceConfig(run=str(tmp_path)).resolved()
    assert method.run == str(tmp_path / "1")
    assert subject.settings["model.num_cascades"] == 2
    assert subject.weights == f"{tmp_path / '1'}/checkpoints/step-000000000"


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("workers=4", "workers=4"),
        ("device=cpu", "device=cpu"),
        ("data.fraction=0.5", r"data\.fraction=0\.5"),
        ("data={subset: knee-like}", "data.subset=knee-like"),
        ("data.train_split=[train, val]", r"data\.train_split=\[.train., .val.\]"),
        ("optim.lr=1e-3", r"optim\.lr=0\.001"),
        ("epochs=2", "epochs=2"),
    ],
)
def test_a_setting_that_no_image_would_follow_is_refused(tmp_path, setting, named):
    run = write_run(tmp_path / "run", SMALL)
    with pytest.raises(ConfigError, match=f"{named}: is of training, and changes neither which images are made nor how"):
        InferenceConfig(run=run, overrides=(setting,)).resolved()


def test_settings_of_data_and_of_masks_are_heeded(tmp_path):
    run = write_run(tmp_path / "run", SMALL)
    settings = ("data.catalog=elsewhere", "data.where.anatomy=[knee]", "data.mask.accelerations=[8]", "data.mask.center_fractions=[0.04]")
    _, subject = InferenceConfig(run=run, overrides=settings).resolved()
    assert (subject.data.catalog, subject.data.where.anatomy, subject.data.mask.accelerations) == ("elsewhere", ("knee",), (8,))
