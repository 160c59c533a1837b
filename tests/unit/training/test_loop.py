"""The loop: resumed equals uninterrupted, two ranks equal one, and it stops when it must."""

import pytest
import torch
from many_ranks import run_ranks
from toys import NUM_TRAIN, StopAt, ToyTask, assert_same_weights, lines_of, restored, run_toy, toy_experiment, toy_trainer

from echotrain.data.catalog.identity import SampleId
from echotrain.errors import TrainingError
from echotrain.ranks import Ranks
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import find_checkpoint, load_weights
from echotrain.training.optim import OptimConfig, ScheduleConfig
from echotrain.training.outcome import Signal


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("stop_at", [1, 2, 3, 5])
def test_a_whole_run_equals_some_steps_and_the_rest_bit_for_bit(tmp_path, stop_at, ema_decay):
    schedule = ScheduleConfig(kind="cosine", cosine_epochs=3, warmup_steps=3)
    experiment = toy_experiment(ema_decay=ema_decay, optim=OptimConfig(lr=0.01, clip_norm=0.5, schedule=schedule))
    whole, parts = open_store(str(tmp_path / "whole")), open_store(str(tmp_path / "parts"))
    run_toy(experiment, whole)

    first = run_toy(experiment, parts, signal=StopAt(stop_at))
    assert (first.signal, first.global_step) == (Signal.STOP, stop_at)
    second = run_toy(experiment, parts, state=restored(experiment, parts))

    assert second.signal == Signal.NONE
    assert_same_weights(load_weights(whole, find_checkpoint(whole)), load_weights(parts, find_checkpoint(parts)))
    assert find_checkpoint(whole).position == find_checkpoint(parts).position
    assert lines_of(whole) == lines_of(parts)


def test_a_run_cut_off_without_warning_repeats_its_steps_and_duplicates_no_line(tmp_path):
    experiment = toy_experiment(epochs=3, log_every=1)
    whole, parts = open_store(str(tmp_path / "whole")), open_store(str(tmp_path / "parts"))
    run_toy(experiment, whole)

    class Cut(Exception):
        pass

    def cut_at_fifth(calls=[0]):  # noqa: B006
        calls[0] += 1
        if calls[0] == 5:
            raise Cut
        return Signal.NONE

    with pytest.raises(Cut):
        run_toy(experiment, parts, signal=cut_at_fifth)
    run_toy(experiment, parts, state=restored(experiment, parts))
    assert_same_weights(load_weights(whole, find_checkpoint(whole)), load_weights(parts, find_checkpoint(parts)))
    assert lines_of(whole) == lines_of(parts)


def test_more_epochs_go_on_with_a_finished_run(tmp_path):
    whole, parts = open_store(str(tmp_path / "whole")), open_store(str(tmp_path / "parts"))
    run_toy(toy_experiment(epochs=3), whole)
    run_toy(toy_experiment(epochs=1), parts)
    run_toy(toy_experiment(epochs=3), parts, state=restored(toy_experiment(epochs=3), parts))
    assert_same_weights(load_weights(whole, find_checkpoint(whole)), load_weights(parts, find_checkpoint(parts)))


def test_every_sample_is_seen_once_an_epoch_and_the_loss_is_their_mean(tmp_path):
    records = []
    task = ToyTask()
    experiment = toy_experiment(epochs=1, batch_size=4, log_every=1, optim=OptimConfig(lr=1e-12))
    run_toy(experiment, open_store(str(tmp_path)), task=task, records=records)
    assert len(task.seen) == len(set(task.seen)) == NUM_TRAIN
    epoch = records[-1]
    steps = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in steps] == [1, 2, 3]
    mean = sum(record["loss"] * size for record, size in zip(steps, (4, 4, 2), strict=True)) / NUM_TRAIN
    assert epoch["loss"] == pytest.approx(mean, rel=1e-6)
    assert steps[0]["twice"] == pytest.approx(2 * steps[0]["loss"], rel=1e-6)


def _train(ranks, folder, batch_size, micro_batch=0):
    experiment = toy_experiment(
        workers=ranks.world, batch_size=batch_size, micro_batch=micro_batch, log_every=1, optim=OptimConfig(lr=0.01)
    )
    run_toy(experiment, open_store(folder), ranks=ranks)


def assert_same_numbers(first, second):
    for ours, theirs in zip(lines_of(first), lines_of(second), strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() & {"loss", "twice", "accuracy", "grad_norm"}:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-5), key


@pytest.mark.parametrize(("batch_size", "world"), [(5, 2), (3, 3)])
def test_several_ranks_give_the_losses_of_one(tmp_path, batch_size, world):
    one, many = open_store(str(tmp_path / "one")), open_store(str(tmp_path / "many"))
    _train(Ranks(), one.uri, batch_size)
    run_ranks(_train, world, many.uri, batch_size, 1)
    assert_same_numbers(one, many)


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_samples_run_a_few_at_a_time_give_the_numbers_of_all_at_once(tmp_path, micro_batch):
    whole, few = open_store(str(tmp_path / "whole")), open_store(str(tmp_path / "few"))
    _train(Ranks(), whole.uri, 5)
    _train(Ranks(), few.uri, 5, micro_batch)
    assert_same_numbers(whole, few)


def test_a_loss_that_is_not_finite_stops_naming_the_sample_and_keeps_the_weights(tmp_path):
    store = open_store(str(tmp_path))
    experiment = toy_experiment(checkpoint_every=1)
    bad = SampleId("toy", "train-3", 0)
    trainer = toy_trainer(experiment, store, task=ToyTask(bad))
    with pytest.raises(TrainingError, match=r"toy/train-3\[0\]") as caught:
        trainer.fit()
    assert "loss of step" in caught.value.value
    assert "train-4" not in str(caught.value)
    meta = find_checkpoint(store)
    if meta is not None:
        assert all(torch.isfinite(value).all() for value in load_weights(store, meta).values())


def test_a_gradient_that_is_not_finite_stops_too(tmp_path):
    class Overflowing(ToyTask):
        def loss(self, model, batch):
            result = super().loss(model, batch)
            rooted = torch.sqrt(result.per_sample * 0)  # 0, with an infinite slope
            return result._replace(per_sample=rooted)

    with pytest.raises(TrainingError, match="gradient of step 0"):
        run_toy(toy_experiment(), open_store(str(tmp_path)), task=Overflowing())


def test_a_warning_that_the_node_goes_away_saves_once_and_goes_on(tmp_path):
    store = open_store(str(tmp_path))
    names = []

    class Watching(type(store)):
        def write(self, key, data, **options):
            if key == "LATEST":
                names.append(data.decode())
            return super().write(key, data, **options)

    outcome = run_toy(toy_experiment(epochs=1, checkpoint_every=0, batch_size=2), Watching(tmp_path), signal=lambda: Signal.SAVE)
    assert outcome.signal == Signal.NONE
    assert [int(name.split("-")[1]) for name in names] == [1, 5]


def test_bf16_trains_as_fp32_does_but_for_rounding(tmp_path):
    losses = {}
    for precision in ("fp32", "bf16"):
        store = open_store(str(tmp_path / precision))
        run_toy(toy_experiment(precision=precision, epochs=3, log_every=1), store)
        losses[precision] = [line["loss"] for line in lines_of(store) if line["kind"] == "train"]
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.1)


def test_validation_is_left_out_between_but_never_at_the_end(tmp_path):
    records = []
    run_toy(toy_experiment(epochs=5, validate_every=2), open_store(str(tmp_path)), records=records)
    epochs = [record for record in records if record["kind"] == "epoch"]
    assert ["accuracy" in record for record in epochs] == [False, True, False, True, True]
