"""What a run keeps of its steps: the best epoch, the average of its weights, gradients no longer than they may be."""

import pytest
import torch
from many_ranks import run_ranks
from toys import NUM_TRAIN, NUM_VAL, StopAt, ToyTask, ToyValidation, lines_of, restored, run_toy, toy_experiment, toy_state

from echotrain.models.layers import draws
from echotrain.seeding import uniforms
from echotrain.storage.local import LocalStore
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import find_checkpoint, load_file, load_weights
from echotrain.training.optim import OptimConfig, ScheduleConfig
from echotrain.training.outcome import Signal
from echotrain.training.state import Position


class ScoredTask(ToyTask):
    """Scores its validations as it is told to."""

    def __init__(self, scores, metric="accuracy"):
        super().__init__()
        self.told = iter(scores)
        self.metrics, self.score = (metric,), metric

    def validation(self):
        return ScoredValidation(self)


class ScoredValidation(ToyValidation):
    def scores(self):
        return {self.task.score: next(self.task.told)}


def epochs_of(store):
    return [line for line in lines_of(store) if line["kind"] == "epoch"]


@pytest.mark.parametrize(
    ("scores", "best", "news"),
    [
        ([0.2, 0.9, 0.5], 1, [True, True, False]),
        ([0.9, 0.5, 0.2], 0, [True, False, False]),
        ([-3.0, -2.0, -1.0], 2, [True, True, True]),
        ([0.5, 0.5, 0.5], 0, [True, False, False]),
        ([float("nan"), 0.2, float("nan")], 1, [False, True, False]),
        ([float("inf"), 0.2, 0.3], 2, [False, True, True]),
    ],
)
def test_the_best_epoch_is_that_of_the_highest_score_and_the_first_of_equals(tmp_path, scores, best, news):
    store = open_store(str(tmp_path))
    outcome = run_toy(toy_experiment(epochs=3, checkpoint_every=0), store, task=ScoredTask(scores))
    assert find_checkpoint(store, "best").position["epoch"] == best + 1
    assert outcome.best_score == find_checkpoint(store).position["best_score"] == scores[best]
    assert [line["is_best"] for line in epochs_of(store)] == news


def test_of_a_metric_that_is_better_lower_the_lowest_is_best_and_stays_it_after_a_restart(tmp_path):
    store, experiment = open_store(str(tmp_path)), toy_experiment(epochs=4, checkpoint_every=0)
    run_toy(experiment, store, task=ScoredTask([0.3, 0.1], "nmse"), signal=StopAt(7))
    assert find_checkpoint(store, "best").position["epoch"] == 2
    outcome = run_toy(experiment, store, state=restored(experiment, store), task=ScoredTask([0.2, 0.05], "nmse"))
    assert outcome.best_score == 0.05
    assert [line["is_best"] for line in epochs_of(store)] == [True, True, False, True]


def test_a_run_that_never_scores_has_no_best(tmp_path):
    store = open_store(str(tmp_path))
    outcome = run_toy(toy_experiment(epochs=1), store, task=ScoredTask([float("nan")]))
    assert (outcome.best_score, find_checkpoint(store, "best")) == (None, None)


def test_a_resumed_run_remembers_its_best(tmp_path):
    store, experiment = open_store(str(tmp_path)), toy_experiment(epochs=3, checkpoint_every=0)
    run_toy(experiment, store, task=ScoredTask([0.9]), signal=StopAt(4))
    outcome = run_toy(experiment, store, state=restored(experiment, store), task=ScoredTask([0.5, 0.7]))
    assert outcome.best_score == 0.9
    assert find_checkpoint(store, "best").position["epoch"] == 1


def test_a_run_that_is_finished_already_comes_back_with_what_it_scored(tmp_path):
    store, experiment = open_store(str(tmp_path)), toy_experiment(epochs=2)
    done = run_toy(experiment, store)
    again = run_toy(experiment, store, state=restored(experiment, store))
    assert again == done
    assert again.scores


def test_the_loss_of_an_epoch_is_of_its_own_steps_alone(tmp_path):
    store = open_store(str(tmp_path))
    run_toy(toy_experiment(epochs=2, batch_size=5, log_every=1, optim=OptimConfig(lr=0.05)), store)
    for epoch in epochs_of(store):
        steps = [line["loss"] for line in lines_of(store) if line["kind"] == "train" and line["epoch"] == epoch["epoch"]]
        assert epoch["loss"] == pytest.approx(sum(steps) / len(steps), rel=1e-6)


def test_the_best_score_of_a_position_never_falls():
    position = Position()
    kept = []
    for score in (0.1, 0.4, 0.3, float("nan"), 0.5):
        position = position.with_score(score)
        kept.append(position.best_score)
    assert kept == [0.1, 0.4, 0.4, 0.4, 0.5]


class WatchedTask(ToyTask):
    """Notes the weights after each step and at each validation, and the gradients that the step was taken with."""

    def __init__(self):
        super().__init__()
        self.after, self.validated, self.norms, self.modes = [], [], [], []

    def loss(self, model, batch):
        self.modes.append(("train", model.training, torch.is_grad_enabled()))
        return super().loss(model, batch)

    def after_step(self, model, progress, ranks):
        self.after.append({name: value.clone() for name, value in model.state_dict().items()})
        self.norms.append(float(torch.nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])))

    def _error(self, model, batch):
        if not torch.is_grad_enabled():
            self.modes.append(("validation", model.training, False))
            self.validated.append({name: value.clone() for name, value in model.state_dict().items()})
        return super()._error(model, batch)


def test_the_average_of_all_steps_is_validated_and_kept_and_the_weights_train_on(tmp_path):
    decay = 0.5
    experiment = toy_experiment(epochs=2, ema_decay=decay, checkpoint_every=0, optim=OptimConfig(lr=0.05))
    store, task = open_store(str(tmp_path)), WatchedTask()
    expected = {name: value.clone() for name, value in toy_state(experiment).network.state_dict().items()}
    run_toy(experiment, store, task=task)
    averages = []
    for weights in task.after:
        expected = {name: decay * value + (1 - decay) * weights[name] for name, value in expected.items()}
        averages.append(expected)
    steps = len(task.after) // 2
    for epoch in range(2):
        average, raw = averages[(epoch + 1) * steps - 1], task.after[(epoch + 1) * steps - 1]
        for seen in task.validated[epoch * NUM_VAL : (epoch + 1) * NUM_VAL]:
            torch.testing.assert_close(seen, average)
        assert not torch.allclose(average["layers.0.weight"], raw["layers.0.weight"])
    meta = find_checkpoint(store)
    torch.testing.assert_close(load_weights(store, meta), averages[-1])
    torch.testing.assert_close(load_file(store, meta, "train")["model"], task.after[-1], rtol=0, atol=0)


def test_without_an_average_the_weights_are_validated_and_kept(tmp_path):
    store, task = open_store(str(tmp_path)), WatchedTask()
    run_toy(toy_experiment(epochs=1), store, task=task)
    torch.testing.assert_close(task.validated[-1], task.after[-1], rtol=0, atol=0)
    torch.testing.assert_close(load_weights(store, find_checkpoint(store)), task.after[-1], rtol=0, atol=0)


def test_training_draws_and_validation_does_not(tmp_path):
    task = WatchedTask()
    run_toy(toy_experiment(epochs=2), open_store(str(tmp_path)), task=task)
    assert set(task.modes) == {("train", True, True), ("validation", False, False)}


def test_a_gradient_is_cut_to_its_largest_norm_and_a_shorter_one_is_left(tmp_path):
    norms, logged = {}, {}
    for clip_norm in (0.0, 0.05, 1e6):
        store, task = open_store(str(tmp_path / str(clip_norm))), WatchedTask()
        run_toy(toy_experiment(epochs=1, log_every=1, optim=OptimConfig(lr=1e-9, clip_norm=clip_norm)), store, task=task)
        norms[clip_norm] = task.norms
        logged[clip_norm] = [line["grad_norm"] for line in lines_of(store) if line["kind"] == "train"]
    assert min(logged[0.0]) > 0.05
    assert norms[0.05] == pytest.approx([0.05] * len(norms[0.05]), rel=1e-4)
    assert norms[0.0] == pytest.approx(logged[0.0])
    assert norms[1e6] == norms[0.0]
    assert logged[0.05] == pytest.approx(logged[0.0], rel=1e-4)


def test_the_logged_learning_rate_is_the_schedules_and_the_steps_were_taken_with_it(tmp_path):
    store, task = open_store(str(tmp_path)), WatchedTask()
    schedule = ScheduleConfig(kind="constant", warmup_steps=3)
    experiment = toy_experiment(epochs=1, log_every=1, optim=OptimConfig(lr=1e-3, schedule=schedule))
    before = {name: value.clone() for name, value in toy_state(experiment).network.state_dict().items()}
    run_toy(experiment, store, task=task)
    rates = [line["lr"] for line in lines_of(store) if line["kind"] == "train"]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3])
    # Adam's first step is as long as the learning rate, wherever there is a gradient.
    moved = (task.after[0]["layers.3.bias"] - before["layers.3.bias"]).abs()
    assert moved.item() == pytest.approx(rates[0], rel=1e-3)


def test_gradients_of_one_step_do_not_reach_into_the_next(tmp_path):
    task = WatchedTask()
    run_toy(toy_experiment(epochs=3, optim=OptimConfig(lr=1e-12)), open_store(str(tmp_path)), task=task)
    # The weights stand still, so each epoch's steps have gradients of one size; added up they would grow.
    assert max(task.norms[-3:]) < 3 * max(task.norms[:3])


def test_every_sample_of_every_epoch_draws_anew_and_a_run_again_draws_the_same(tmp_path, monkeypatch):
    seeds = {}
    for name, seed in (("first", 42), ("again", 42), ("other", 43)):
        drawn = seeds[name] = []
        monkeypatch.setattr(draws, "uniforms", lambda seeds, *rest, drawn=drawn: drawn.extend(seeds) or uniforms(seeds, *rest))
        run_toy(toy_experiment(epochs=2, seed=seed), open_store(str(tmp_path / name)))
    assert len(set(seeds["first"])) == len(seeds["first"]) == 2 * NUM_TRAIN
    assert seeds["again"] == seeds["first"]
    assert not set(seeds["other"]) & set(seeds["first"])


class Watching(LocalStore):
    """Notes what became the latest checkpoint."""

    def __init__(self, path):
        super().__init__(path)
        self.latest = []

    def write(self, key, data, **options):
        if key == "LATEST":
            self.latest.append(data.decode())
        super().write(key, data, **options)


@pytest.mark.parametrize(
    ("every", "latest"),
    [
        (0, ["step-000000003-00001", "step-000000006-00002"]),
        (2, ["step-000000002-00000", "step-000000003-00001", "step-000000004-00001", "step-000000006-00002"]),
        (3, ["step-000000003-00001", "step-000000006-00002"]),
    ],
)
def test_checkpoints_come_every_so_many_steps_and_once_at_an_epochs_end(tmp_path, every, latest):
    store = Watching(tmp_path)
    run_toy(toy_experiment(epochs=2, checkpoint_every=every), store)
    assert store.latest == latest


def _ask(ranks, folder):
    signal = StopAt(2, Signal.LEAVE) if ranks.rank == 1 else lambda: Signal.SAVE
    outcome = run_toy(toy_experiment(workers=ranks.world, checkpoint_every=0), open_store(folder), ranks=ranks, signal=signal)
    assert (outcome.signal, outcome.global_step) == (Signal.LEAVE, 2)


def test_of_the_signals_of_several_ranks_the_strongest_counts_for_all(tmp_path):
    run_ranks(_ask, 2, str(tmp_path))
    assert find_checkpoint(open_store(str(tmp_path))).position["global_step"] == 2


def test_a_stop_is_saved_first(tmp_path):
    store = open_store(str(tmp_path))
    outcome = run_toy(toy_experiment(checkpoint_every=0), store, signal=StopAt(2, Signal.LEAVE))
    assert (outcome.signal, outcome.epoch, outcome.global_step) == (Signal.LEAVE, 0, 2)
    assert find_checkpoint(store).position["global_step"] == 2
