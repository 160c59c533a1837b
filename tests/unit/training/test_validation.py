"""What a task validates on, and what it is called."""

import logging

import pytest
from many_ranks import run_ranks
from toys import NUM_VAL, ToyStream, ToyTask, ToyValidation, lines_of, run_toy, toy_experiment

from echotrain.errors import TrainingError
from echotrain.ranks import Ranks
from echotrain.storage.open import open_store


class Seen(ToyValidation):
    """Needs no target: scores what it was shown."""

    def add(self, network, batch):
        assert not network.training
        self.errors.update({sample: network(batch.x[row : row + 1]).item() for row, sample in enumerate(batch.ids)})

    def scores(self):
        return {"accuracy": float(len(self.errors)), "mean": sum(self.errors.values()) / len(self.errors)} if self.errors else {}


class ManySplits(ToyTask):
    splits = ("val", "train", "test")

    def __init__(self, score="accuracy"):
        super().__init__()
        self.score = score

    def validation(self):
        return Seen(self)


class Held(ToyStream):
    """Has four samples to validate on, three of the training ones, and none to test."""

    def evaluation(self, split="val"):
        yield from list(super().evaluation(split))[: {"val": NUM_VAL, "train": 3 - self.rank, "test": 0}[split]]


def _train(ranks, folder, task):
    experiment = toy_experiment(epochs=1, workers=ranks.world)
    return run_toy(experiment, open_store(folder), ranks=ranks, task=task, stream=Held(4, ranks.rank, ranks.world))


def test_further_splits_are_scored_under_their_names_and_one_without_samples_is_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        outcome = _train(Ranks(), str(tmp_path), ManySplits())
    assert set(outcome.scores) == {"accuracy", "mean", "train/accuracy", "train/mean"}
    assert (outcome.scores["accuracy"], outcome.scores["train/accuracy"]) == (NUM_VAL, 3)
    assert outcome.scores["mean"] != outcome.scores["train/mean"]
    assert [record.message for record in caplog.records] == ["the split test holds no sample: there are no scores of it"]
    lines = lines_of(open_store(str(tmp_path)))
    assert [line["title"] for line in lines if line["kind"] == "table"] == ["kind", "train/kind", "test/kind"]
    assert {key for key in lines[-1] if "/" in key} == {"train/accuracy", "train/mean"}


def test_the_best_checkpoint_may_be_told_by_a_further_split(tmp_path):
    assert _train(Ranks(), str(tmp_path), ManySplits(score="train/accuracy")).best_score == 3


def test_a_score_that_no_validation_gives_is_refused_instead_of_never_being_the_best(tmp_path):
    with pytest.raises(TrainingError, match="ssim, by which the best checkpoint is told,: is none of the scores: accuracy, mean, train/"):
        _train(Ranks(), str(tmp_path), ManySplits(score="ssim"))


def _train_on_each(ranks, folder):
    outcome = _train(ranks, folder, ManySplits())
    assert outcome.scores["accuracy"] == NUM_VAL
    assert outcome.scores["train/accuracy"] == 4


def test_ranks_score_together_and_know_the_same(tmp_path):
    run_ranks(_train_on_each, 2, str(tmp_path))
