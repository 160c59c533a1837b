"""When a trial that falls behind is ended: at the brackets of the sweep's file, and nowhere else."""

import dataclasses
from types import SimpleNamespace

import pytest

from echotrain.orchestration.jobs.tuning import _scheduler
from echotrain.storage.local import LocalStore
from echotrain.sweeps.book import Book
from echotrain.sweeps.parameters import Choice
from echotrain.sweeps.spec import Hyperband, Metric, SweepSpec
from echotrain.sweeps.trial import SweepFolder

EPOCHS = 16


def ended_by(tmp_path, rule, goal="maximize"):
    """Return the epochs at which a trial is ended that is worse than two that have ended, if it is not ended before."""
    metric = Metric(name="epoch/ssim", goal=goal)
    spec = SweepSpec(
        name="s", recipe="r", method="grid", parameters={"seed": Choice(values=(1, 2, 3))}, early_terminate=rule, metric=metric
    )
    book = Book(spec, metric, storage=str(tmp_path), folder=SweepFolder(LocalStore(tmp_path)))
    for _ in range(2):
        trial = book.next()
        for epoch in range(1, EPOCHS + 1):
            trial = trial.validated(metric, epoch, {"ssim": 0.9})
        book.update(dataclasses.replace(trial, state="finished"))
    found = []
    for epoch in range(1, EPOCHS + 1):
        scheduler = _scheduler(rule, EPOCHS, book)
        behind = SimpleNamespace(trial_id="behind")
        scheduler.on_trial_add(None, behind)
        if scheduler.on_trial_result(None, behind, {"epochs_done": epoch, "scores/ssim": 0.1 if goal == "maximize" else 5.0}) == "STOP":
            found.append(epoch)
    return found


@pytest.mark.parametrize("goal", ["maximize", "minimize"])
def test_a_trial_may_end_from_its_first_bracket_to_the_epoch_before_its_last(tmp_path, goal):
    assert ended_by(tmp_path, Hyperband(min_iter=2, eta=2), goal) == list(range(2, EPOCHS))


def test_none_ends_from_max_iter_on(tmp_path):
    assert ended_by(tmp_path, Hyperband(min_iter=2, max_iter=8, eta=2)) == list(range(2, 8))


def test_a_score_that_is_missing_or_not_finite_ends_none_and_is_no_measure_for_others(tmp_path):
    metric = Metric(name="epoch/ssim", goal="maximize")
    spec = SweepSpec(name="s", recipe="r", method="grid", parameters={"seed": Choice(values=(1,))})
    book = Book(spec, metric, storage=str(tmp_path), folder=SweepFolder(LocalStore(tmp_path)))
    scheduler = _scheduler(Hyperband(min_iter=1, eta=2), EPOCHS, book)
    for number, score in enumerate((0.9, float("inf"), float("inf"), float("nan"), None, 0.95)):
        trial = SimpleNamespace(trial_id=str(number))
        scheduler.on_trial_add(None, trial)
        scores = {} if score is None else {"scores/ssim": score}
        assert scheduler.on_trial_result(None, trial, {"epochs_done": 2, **scores}) == "CONTINUE"
