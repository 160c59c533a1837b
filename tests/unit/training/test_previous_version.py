"""What the version before left behind is read, means what it meant, and is begun again nowhere."""

import json

import pytest
import torch

from echotrain.data.planned import PlannedStream
from echotrain.errors import ConfigError
from echotrain.orchestration.jobs.tuning import run_sweep
from echotrain.storage.local import LocalStore
from echotrain.sweeps.best import best_run
from echotrain.sweeps.parameters import Choice
from echotrain.sweeps.spec import SweepSpec
from echotrain.training.checkpoint import find_checkpoint
from echotrain.training.experiment import changed_keys, science
from echotrain.training.trained import describe_trained, load_trained
from tests.previous_version import LEFT, TRUTH, copy_of, experiment_before


@pytest.fixture
def stream(tmp_path):
    experiment = experiment_before(tmp_path)
    stream = PlannedStream(experiment.data, seed=experiment.seed, batch_size=experiment.batch_size)
    yield stream
    stream.close()


def drawn(batch):
    return [[str(sample) for sample in batch.ids], ["".join(map(str, mask.astype(int))) for mask in batch.mask[:, 0, 0].numpy()]]


@pytest.mark.parametrize("epoch", range(3))
def test_the_catalog_loads_and_its_samples_their_order_their_masks_and_their_roots_are_what_they_were(stream, epoch):
    found = [[*drawn(batch), list(batch.roots)] for step in stream.steps(epoch) for batch in step.batches]
    assert found == TRUTH["draws"][str(epoch)]
    assert [drawn(batch) for batch in stream.evaluation("val")] == TRUTH["val"]


def test_the_run_is_of_the_same_science_and_its_weights_load(stream):
    meta = find_checkpoint(LocalStore(LEFT / "run"))
    assert changed_keys(meta.science, science(experiment_before(LEFT))) == {}
    other = experiment_before(LEFT, f"data.anatomies={json.dumps(TRUTH['anatomies'][:1])}")
    assert list(changed_keys(meta.science, science(other))) == ["data.where.anatomy"]
    experiment, _ = describe_trained(str(LEFT / "run"))
    assert experiment.data.where.anatomy == tuple(TRUTH["anatomies"])
    model = load_trained(str(LEFT / "run"))
    (batch, *_) = stream.evaluation("val")
    with torch.inference_mode():
        assert model.reconstruct(batch).shape == batch.target.shape


@pytest.mark.parametrize("path", ["data.anatomies", "data.where.anatomy"])
def test_a_finished_sweep_over_a_setting_by_its_old_name_is_known_by_that_name_alone(tmp_path, path):
    folder = copy_of("sweep", tmp_path)
    anatomies = Choice(values=(("knee",), tuple(TRUTH["anatomies"])))
    spec = SweepSpec(name="sweep", recipe="any", method="grid", parameters={path: anatomies, "seed": Choice(values=(1, 2))})
    base = experiment_before(tmp_path, "epochs=1")
    if path == "data.where.anatomy":
        with pytest.raises(ConfigError, match="holds another sweep: parameters"):
            run_sweep(spec, base, resume=True)
        return
    result = run_sweep(spec, base, resume=True)
    assert result.is_finished
    assert [trial.values["seed"] for trial in result.trials] == [1, 2, 1, 2]
    assert best_run(str(folder)).endswith("seed=2-c9ef81144211")
