"""What an evaluation decides before a worker starts."""

import pytest

from echotrain.errors import ResourceError
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.orchestration.jobs import inference
from echotrain.orchestration.jobs.inference import InferenceConfig
from echotrain.orchestration.runtime.cluster import reserved_gpus
from echotrain.storage.open import open_store
from echotrain.sweeps.trial import SweepFolder, Trial
from tests.runs import write_run


def test_a_gpu_that_is_reserved_and_that_torch_does_not_see_is_an_error_and_no_slow_evaluation(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", VarNetConfig(num_cascades=1, chans=4, pools=2, sens_chans=2, sens_pools=2))
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
