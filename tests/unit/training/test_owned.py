"""A task that owns a teacher, a head and statistics: all of that is trained, averaged, saved and restored, on any number of ranks."""

import copy
from typing import NamedTuple

import pytest
import torch
from many_ranks import run_ranks
from torch import nn
from toys import NUM_TRAIN, StopAt, ToyBatch, ToyTask, assert_same_weights, lines_of, run_toy, toy_experiment, toy_state

from echotrain.models.averaging import move_average
from echotrain.ranks import Ranks
from echotrain.storage.open import open_store
from echotrain.tasks.task import StepLoss
from echotrain.training.checkpoint import find_checkpoint, load_file, load_weights
from echotrain.training.method import build_method
from echotrain.training.optim import OptimConfig, ParameterGroup
from echotrain.training.state import TrainState


class Views(NamedTuple):
    """What the network gives: a named tuple, through whatever wraps it."""

    values: torch.Tensor
    taught: torch.Tensor


class TaughtNetwork(nn.Module):
    """A student, its average as a teacher, a head of the task's own, and the mean of what it has seen."""

    def __init__(self, model):
        super().__init__()
        self.student, self.teacher = model, copy.deepcopy(model).requires_grad_(False)
        self.head = nn.Linear(1, 1)
        self.register_buffer("mean", torch.zeros(16))
        self.seen = torch.zeros(17)

    def train(self, mode=True):
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, x):
        if self.training:
            self.seen += torch.cat([x.mean(dim=1).sum(dim=0), x.new_tensor([len(x)])])
        return Views(values=self.head(self.student(x)[:, None])[:, 0], taught=self.teacher(x - self.mean))


class TaughtTask(ToyTask):
    def __init__(self):
        super().__init__()
        self.done = []

    def network(self, model):
        return TaughtNetwork(model)

    def loss(self, network, batch: ToyBatch):
        values, taught = network(batch.x)
        return StepLoss(per_sample=(values - batch.y) ** 2 + (values - taught) ** 2, logs={"taught": taught})

    def after_step(self, network, progress, ranks):
        self.done.append(progress)
        seen = ranks.add_up(network.seen)
        assert not torch.is_grad_enabled()
        network.mean.lerp_(seen[:16] / seen[16], 0.1)
        network.seen.zero_()
        move_average(network.teacher.state_dict(), network.student, decay=1 - 0.5 / (1 + progress.global_step))

    def _error(self, network, batch):
        return (network(batch.x).values - batch.y) ** 2


OPTIM = OptimConfig(lr=0.01, clip_norm=1.0, groups=(ParameterGroup(names=("head.*",), lr=3.0),))
# The toy stream ends an epoch after 10 samples: two of them are ten steps of two.
SETTINGS = {"batch_size": 2, "ema_decay": 0.5, "optim": OPTIM, "log_every": 1}


def taught_state(experiment, task):
    network = task.network(toy_state(toy_experiment()).network)
    return TrainState(network, experiment.optim.build(network), ema_decay=experiment.ema_decay)


def train(ranks, folder, changes, signal=None, *, resumes=False):
    experiment, store, task = toy_experiment(**{**SETTINGS, "workers": ranks.world, **changes}), open_store(folder), TaughtTask()
    state = taught_state(experiment, task)
    if resumes:
        meta = find_checkpoint(store)
        state.restore(load_file(store, meta, "weights"), load_file(store, meta, "train"), meta.position, meta.scores)
    outcome = run_toy(experiment, store, state=state, task=task, ranks=ranks, signal=signal)
    return outcome, task


def weights_of(folder):
    store = open_store(folder)
    return load_weights(store, find_checkpoint(store))


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_ten_steps_equal_five_and_a_resume_and_five_bit_for_bit(tmp_path, ema_decay):
    whole, parts, changes = str(tmp_path / "whole"), str(tmp_path / "parts"), {"ema_decay": ema_decay}
    outcome, task = train(Ranks(), whole, changes)
    assert outcome.global_step == 10
    cut, before = train(Ranks(), parts, changes, StopAt(5))
    assert cut.global_step == 5
    _, after = train(Ranks(), parts, changes, resumes=True)
    assert_same_weights(weights_of(whole), weights_of(parts))
    assert lines_of(open_store(whole)) == lines_of(open_store(parts))
    assert before.done + after.done == task.done


def test_what_a_task_owns_is_trained_averaged_and_saved(tmp_path):
    first = taught_state(toy_experiment(**SETTINGS), TaughtTask()).network.state_dict()
    train(Ranks(), str(tmp_path), {})
    store = open_store(str(tmp_path))
    meta = find_checkpoint(store)
    averaged, raw = load_weights(store, meta), load_file(store, meta, "train")["model"]
    assert averaged.keys() == raw.keys() == first.keys() > {"student.layers.0.weight", "teacher.layers.0.weight", "head.weight", "mean"}
    for name in ("student.layers.0.weight", "teacher.layers.0.weight", "head.weight"):
        assert not torch.equal(raw[name], first[name]), name
        assert not torch.equal(averaged[name], raw[name]), name
    assert torch.equal(averaged["mean"], raw["mean"])  # Buffers are copied, after the task has acted.
    assert raw["mean"].abs().sum() > 0


def test_a_step_tells_where_the_run_stands(tmp_path):
    _, task = train(Ranks(), str(tmp_path), {"batch_size": 4})
    assert [(at.epoch, at.step, at.global_step) for at in task.done] == [(e, s, 3 * e + s) for e in range(2) for s in range(3)]
    assert {(at.steps_per_epoch, at.epochs, at.steps) for at in task.done} == {(3, 2, 6)}
    drawn = [torch.rand(2, generator=at.generator("restart")).tolist() for at in (*task.done, *task.done)]
    assert drawn[:6] == drawn[6:]
    assert len(set(map(tuple, drawn))) == 6


@pytest.mark.parametrize("micro_batch", [0, 2])
def test_two_ranks_with_batches_above_one_of_several_shapes_give_what_one_gives(tmp_path, micro_batch):
    changes = {"batch_size": NUM_TRAIN, "epochs": 4}
    train(Ranks(), str(tmp_path / "one"), changes)
    run_ranks(train, 2, str(tmp_path / "two"), {**changes, "micro_batch": micro_batch})
    one, two = (lines_of(open_store(str(tmp_path / name))) for name in ("one", "two"))
    for ours, theirs in zip(one, two, strict=True):
        for key in ours.keys() & {"loss", "taught", "accuracy", "grad_norm"}:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-5), key
    torch.testing.assert_close(weights_of(str(tmp_path / "one")), weights_of(str(tmp_path / "two")), rtol=1e-4, atol=1e-6)


class OwnOpinion(TaughtTask):
    """Forgets that other ranks have seen other samples."""

    def after_step(self, network, progress, ranks):
        super().after_step(network, progress, Ranks())


def _disagree(ranks, folder):
    experiment, task = toy_experiment(**{**SETTINGS, "workers": ranks.world}), OwnOpinion()
    with pytest.raises(Exception, match=r"the buffer mean: is not the same on every rank"):
        run_toy(experiment, open_store(folder), state=taught_state(experiment, task), task=task, ranks=ranks)


def test_a_buffer_that_ranks_disagree_about_is_an_error_on_every_rank(tmp_path):
    run_ranks(_disagree, 2, str(tmp_path))


def test_by_default_the_network_is_the_model_and_it_begins_before_the_task_builds_on_it(monkeypatch):
    small = toy_experiment().model
    monkeypatch.setattr(type(small), "build", lambda _: nn.Linear(2, 2))
    begun = []
    method = build_method(toy_experiment(), begun.append)
    assert begun == [method.network]
    assert list(method.network.state_dict()) == ["weight", "bias"]

    monkeypatch.setattr(type(method.task), "network", lambda _, model: nn.ModuleList([model, copy.deepcopy(model)]))
    student, teacher = build_method(toy_experiment(), lambda model: nn.init.ones_(model.weight)).network
    assert student is not teacher
    assert torch.equal(student.weight, torch.ones(2, 2))
    assert torch.equal(teacher.weight, torch.ones(2, 2))
