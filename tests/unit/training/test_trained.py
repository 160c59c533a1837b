"""Whoever loads weights builds task and network the same way as whoever trains them."""

import copy

import pytest
import torch
from torch import nn

from echotrain.config import to_dict
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import CheckpointError, ConfigError
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.orchestration.runtime import workers
from echotrain.ranks import Ranks
from echotrain.storage.open import open_store
from echotrain.tasks.reconstruction import ReconstructionTask
from echotrain.tasks.task import Task
from echotrain.training.checkpoint import CheckpointMeta, CheckpointWriter
from echotrain.training.experiment import Experiment, science
from echotrain.training.published import load_published
from echotrain.training.trained import load_trained

TINY = VarNetConfig(num_cascades=1, chans=2, pools=1, sens_chans=2, sens_pools=1)


class Pair(nn.Module):
    """A model, a copy of what it began with, and a head."""

    def __init__(self, model):
        super().__init__()
        self.model, self.teacher, self.head = model, copy.deepcopy(model), nn.Linear(2, 2)


@pytest.fixture
def owning(monkeypatch):
    monkeypatch.setattr(ReconstructionTask, "network", lambda _, model: Pair(model))


def begun(store, **changes):
    """Return what a worker begins with, or goes on with."""
    experiment = Experiment(data=LinesData(catalog="c"), model=TINY, ema_decay=0.9, **changes)
    _, state = workers._begin(experiment, store, Ranks())
    return experiment, state


def save(experiment, state, store):
    meta = CheckpointMeta(name="step-000000001-00000", position={}, science=science(experiment), config=to_dict(experiment), catalog={})
    writer = CheckpointWriter(store, keep=1)
    writer.save(meta, state.files(), is_best=True)
    writer.close()


@pytest.mark.usefixtures("owning")
def test_what_a_task_owns_is_begun_with_resumed_and_loaded_by_one_path(tmp_path):
    store = open_store(str(tmp_path))
    experiment, state = begun(store)
    again = begun(store)[1].network.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in state.network.state_dict().items())

    state.network.head(torch.ones(2)).sum().backward()
    state.optimizer.step()
    state.ema.update(state.network)
    save(experiment, state, store)

    _, resumed = begun(store)
    trained = load_trained(str(tmp_path))
    for name, value in state.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
        assert torch.equal(trained.model.state_dict()[name], state.ema.state_dict()[name]), name
    assert not torch.equal(resumed.network.head.weight, trained.model.head.weight)
    assert isinstance(trained.model, Pair)
    assert not trained.model.training


def test_weights_without_what_the_task_owns_are_of_another_network(tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    save(*begun(store), store)
    assert list(load_trained(str(tmp_path)).model.state_dict()) == list(TINY.build().state_dict())
    monkeypatch.setattr(ReconstructionTask, "network", lambda _, model: Pair(model))
    with pytest.raises(CheckpointError, match=r"lacks .* of the model's tensors"):
        load_trained(str(tmp_path))


@pytest.mark.usefixtures("owning")
def test_published_weights_are_in_the_model_before_the_task_builds_on_it(tmp_path):
    fastmri = pytest.importorskip("fastmri.models")
    torch.manual_seed(1)
    reference = fastmri.VarNet(num_cascades=1, chans=2, pools=1, sens_chans=2, sens_pools=1)
    torch.save(reference.state_dict(), tmp_path / "weights.pt")
    network = load_published(str(tmp_path / "weights.pt")).model
    for name, value in network.model.state_dict().items():
        assert torch.equal(network.teacher.state_dict()[name], value), name


class Blind(Task):
    metrics, score = ("loss",), "loss"

    def loss(self, network, batch):
        raise NotImplementedError

    def validation(self):
        raise NotImplementedError

    def panels(self, network, batch):
        return []


def test_a_run_that_makes_no_images_is_not_loaded_as_if_it_did(tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    experiment, state = begun(store)
    save(experiment, state, store)
    monkeypatch.setattr(type(experiment.task), "build", lambda _: Blind())
    with pytest.raises(ConfigError, match=r"task.kind=reconstruction \(.*\): makes no images"):
        load_trained(str(tmp_path))
