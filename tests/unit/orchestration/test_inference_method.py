"""What an evaluation decides before a worker starts."""

from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.orchestration.jobs.inference import InferenceConfig
from echotrain.storage.open import open_store
from echotrain.sweeps.trial import SweepFolder, Trial
from tests.runs import write_run


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
