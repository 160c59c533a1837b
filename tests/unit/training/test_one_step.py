"""A step, from the inside: pieces, precision, waits for the device, and what it refuses."""

import math

import pytest
import torch
from many_ranks import run_ranks
from toys import NUM_TRAIN, ToyStream, ToyTask, run_toy, toy_batch, toy_experiment, toy_state

from echotrain.data.catalog.identity import SampleId
from echotrain.data.stream import StepData
from echotrain.errors import NotFiniteError, TrainingError
from echotrain.ranks import Ranks
from echotrain.storage.open import open_store
from echotrain.tasks.progress import Progress
from echotrain.training import step as step_module
from echotrain.training.gradients import AloneSync
from echotrain.training.outcome import Signal
from echotrain.training.step import Step

AT = Progress(epoch=0, step=0, steps_per_epoch=3, global_step=0)


def do_step(task=None, *, ranks=None, batches=None, **changes):
    """Do one step of five samples of two shapes; return its outcome and state."""
    experiment = toy_experiment(batch_size=5, **changes)
    state = toy_state(experiment)
    state.network.train()
    batches = batches or [toy_batch("train", rows, epoch=0) for rows in ([0, 3, 6], [1, 2])]
    data = StepData(batches=batches, num_global_samples=5, wait_s=0.5, num_bytes=7)
    return Step(experiment, task or ToyTask(), state, ranks or Ranks(), lambda: Signal.SAVE)(data, AT), state


class Pieces(AloneSync):
    """Notes how a step is put together."""

    def __init__(self, network):
        super().__init__(network)
        self.calls = []

    def piece(self, *, is_last):
        self.calls.append(is_last)
        return super().piece(is_last=is_last)

    def finish(self):
        self.calls.append("finish")


@pytest.mark.parametrize(("micro_batch", "sizes"), [(0, [3, 2]), (1, [1] * 5), (2, [2, 1, 2]), (3, [3, 2])])
def test_a_step_is_shared_once_with_its_last_piece_and_no_piece_is_larger_than_it_may_be(micro_batch, sizes, monkeypatch):
    syncs, seen = [], []
    monkeypatch.setattr(step_module, "gradient_sync", lambda network, ranks: syncs.append(Pieces(network)) or syncs[0])

    class Sized(ToyTask):
        def loss(self, network, batch):
            seen.append(len(batch.ids))
            return super().loss(network, batch)

    do_step(Sized(), micro_batch=micro_batch)
    assert seen == sizes
    assert syncs[0].calls == [*[False] * (len(sizes) - 1), True, "finish"]


def test_gradients_and_logs_of_any_pieces_are_those_of_the_whole():
    (whole, state), *others = [do_step(micro_batch=micro_batch) for micro_batch in (0, 1, 2)]
    gradients = {name: parameter.grad for name, parameter in state.network.named_parameters()}
    for outcome, other in others:
        assert outcome.sums == pytest.approx(whole.sums, rel=1e-6)
        assert outcome.grad_norm == pytest.approx(whole.grad_norm, rel=1e-6)
        torch.testing.assert_close({name: parameter.grad for name, parameter in other.network.named_parameters()}, gradients)
    assert (whole.num_bytes, whole.wait_s, whole.signal) == (7, 0.5, Signal.SAVE)


def test_all_numbers_are_read_from_the_device_at_once(monkeypatch):
    reads = []
    for name in ("item", "tolist", "__float__", "__bool__", "__int__", "cpu", "numpy"):
        real = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, *args, name=name, real=real: reads.append(name) or real(self, *args))
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: None)  # On a CPU it reads its own counts.
    outcome, _ = do_step()
    assert reads == ["tolist"]
    assert math.isfinite(outcome.grad_norm)
    assert outcome.sums["twice"] == pytest.approx(2 * outcome.sums["loss"])


class Watched(torch.autograd.Function):
    """Notes whether autocast is on as a value passes, and as its gradient does."""

    seen = []  # noqa: RUF012

    @staticmethod
    def forward(ctx, x):
        Watched.seen.append(("forward", torch.is_autocast_enabled("cpu")))
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        Watched.seen.append(("backward", torch.is_autocast_enabled("cpu")))
        return grad


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_only_forward_and_loss_are_under_autocast(precision):
    class Watching(ToyTask):
        def loss(self, network, batch):
            result = super().loss(network, batch)
            return result._replace(per_sample=Watched.apply(result.per_sample))

    Watched.seen = []
    do_step(Watching(), precision=precision)
    assert set(Watched.seen) == {("forward", precision == "bf16"), ("backward", False)}


class Sloppy(ToyTask):
    """Logs other names for other batches, or draws from where it must not."""

    def __init__(self, logs=None, draw=None, acts=None):
        super().__init__()
        self.logs, self.draw, self.acts = logs, draw, acts

    def loss(self, network, batch):
        result = super().loss(network, batch)
        if self.draw:
            self.draw()
        return result._replace(logs=dict.fromkeys(self.logs(batch), result.per_sample)) if self.logs else result

    def after_step(self, network, progress, ranks):
        if self.acts:
            self.acts()


def test_batches_that_log_other_names_are_refused():
    with pytest.raises(TrainingError, match=r"logs \['b'\]: are not those of the batch before, \['a'\]"):
        do_step(Sloppy(logs=lambda batch: "a" if len(batch.ids) == 3 else "b"))


@pytest.mark.parametrize("draws", [{"draw": lambda: torch.rand(1)}, {"acts": lambda: torch.randperm(3)}])
def test_whatever_draws_from_the_global_generator_in_a_step_is_refused(draws):
    with pytest.raises(TrainingError, match="global generator"):
        do_step(Sloppy(**draws))


def test_a_batch_of_training_without_roots_is_refused():
    batch = toy_batch("train", [1, 2])
    with pytest.raises(TrainingError, match=r"a batch of 2 samples \(toy/train-1\[0\], ...\): has 0 roots"):
        do_step(batches=[type(batch)(**{**vars(batch), "roots": ()})])


def _log_otherwise(ranks, folder):
    task = Sloppy(logs=lambda _: ["even"] if ranks.rank else ["odd"])
    with pytest.raises(TrainingError, match="are not those of other ranks"):
        run_toy(toy_experiment(workers=2), open_store(folder), ranks=ranks, task=task)


def test_ranks_that_log_other_names_are_told_so(tmp_path):
    run_ranks(_log_otherwise, 2, str(tmp_path))


def _meet_a_bad_sample(ranks, folder):
    bad = SampleId("toy", "train-3", 0)
    task, state = ToyTask(bad), toy_state(toy_experiment())
    before = {name: value.clone() for name, value in state.network.state_dict().items()}
    experiment = toy_experiment(workers=2, batch_size=NUM_TRAIN)
    with pytest.raises(NotFiniteError, match=r"loss of step 0 \(epoch 0\): is not finite; samples: toy/train-3\[0\]\."):
        run_toy(experiment, open_store(folder), ranks=ranks, task=task, state=state)
    mine = any(bad in batch.ids for batch in next(ToyStream(NUM_TRAIN, ranks.rank, 2).steps(0)).batches)
    assert mine == (bad in task.seen)
    torch.testing.assert_close(dict(state.network.state_dict()), before, rtol=0, atol=0)


def test_a_sample_that_is_bad_on_one_rank_stops_all_before_a_weight_has_moved(tmp_path):
    run_ranks(_meet_a_bad_sample, 2, str(tmp_path))
