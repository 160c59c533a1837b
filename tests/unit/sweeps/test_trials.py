"""What a sweep remembers: trials, which comes next, and what becomes of them when it is killed."""

import dataclasses
import itertools
import json

import pytest

from echotrain.errors import PayloadError
from echotrain.storage.local import LocalStore
from echotrain.sweeps.book import Book
from echotrain.sweeps.parameters import Choice, IntUniform, LogNormal, LogUniform
from echotrain.sweeps.spec import Metric, SweepSpec
from echotrain.sweeps.table import ranked, table_csv
from echotrain.sweeps.trial import SweepFolder, Trial, folder_name

SSIM = Metric(name="epoch/ssim", goal="maximize")
GRID = SweepSpec(name="s", recipe="r", method="grid", parameters={"model.a": Choice(values=(1, 2)), "seed": Choice(values=(7, 8))})
SEARCH = SweepSpec(
    name="s",
    recipe="r",
    method="bayes",
    run_cap=12,
    metric=SSIM,
    parameters={
        "lr": LogUniform(min=1e-5, max=1e-1),
        "kind": Choice(values=([1, 2], "b")),
        "n": IntUniform(min=2, max=5),
        "w": LogNormal(),
    },
)


@pytest.fixture
def folder(tmp_path):
    return SweepFolder(LocalStore(tmp_path))


def book(spec, folder, **options):
    return Book(spec, SSIM, storage="s3://b/runs", folder=folder, **options)


def finish(book, ssim):
    """Run the next trial to its end."""
    trial = book.next()
    return book.update(dataclasses.replace(trial.validated(SSIM, 1, {"ssim": ssim}), state="finished"))


def test_trials_have_readable_names_and_folders_of_their_own(folder):
    trials = [finish(book(GRID, folder), 0.5) for _ in range(4)]
    assert [trial.name for trial in trials] == ["a=1 seed=7", "a=1 seed=8", "a=2 seed=7", "a=2 seed=8"]
    assert trials[1].run == "s3://b/runs/s/a=1,seed=8"
    assert book(GRID, folder).is_finished
    assert book(GRID, folder).next() is None


def test_a_trial_whose_file_was_removed_runs_again_and_takes_no_others_place(folder, tmp_path):
    for score in (0.1, 0.2, 0.3):
        finish(book(GRID, folder), score)
    (tmp_path / "trials/00001.json").unlink()
    again = [finish(book(GRID, folder), 0.9) for _ in range(2)]
    assert [(trial.number, trial.name) for trial in again] == [(1, "a=1 seed=8"), (3, "a=2 seed=8")]
    assert [trial.score(SSIM) for trial in folder.trials()] == [0.1, 0.9, 0.3, 0.9]


def test_a_listed_trial_is_known_though_its_setting_was_renamed(folder):
    old, new = ({path: ("knee",), "seed": 7} for path in ("data.anatomies", "data.where.anatomy"))
    finish(book(SweepSpec.listed("s", "r", [old]), folder), 0.5)
    grown = SweepSpec.listed("s", "r", [new, {"seed": 8}])
    renamed = {"data.anatomies": "data.where.anatomy"}
    assert finish(book(grown, folder, renamed=renamed), 0.1).name == "seed=8"
    again = book(grown, folder, renamed=renamed)
    assert again.is_finished
    assert [trial.values for trial in again.trials] == [dict(point) for point in grown.points]
    assert not book(grown, folder).is_finished


def test_a_list_may_grow_or_shrink_and_runs_no_point_again(folder):
    small, knee, filtered = {"model.a": 1, "seed": 7}, {"model.a": 2, "data.anatomies": ("knee",), "seed": 7}, {"data.subset": "x"}
    first = SweepSpec.listed("s", "r", [knee])
    assert [finish(book(first, folder), 0.5).name for _ in first.points] == ["a=2 anatomies=knee seed=7"]
    grown = SweepSpec.listed("s", "r", [small, knee, filtered])
    assert [(trial.number, trial.name) for trial in (finish(book(grown, folder), 0.1) for _ in range(2))] == [
        (1, "a=1 seed=7"),
        (2, "subset=x"),
    ]
    assert book(grown, folder).is_finished
    shrunk = book(SweepSpec.listed("s", "r", [filtered]), folder)
    assert shrunk.is_finished
    assert [trial.number for trial in shrunk.trials] == [2]
    rows = table_csv(list(grown.parameters), book(grown, folder).trials).splitlines()
    assert rows[0].startswith("number,name,model.a,seed,data.anatomies,data.subset,state")
    assert rows[3].startswith("2,subset=x,,,,x,finished")


def test_a_name_that_a_path_cannot_hold_is_told_from_others_by_its_values():
    first, second = (folder_name("kind=random/x seed=[1 2]", {"mask": value}) for value in (1, 2))
    assert first != second
    assert first.startswith("kind=random-x,seed=-1,2-")
    assert len(folder_name("a=" + "9" * 500, {"a": 9})) < 140


def test_what_was_interrupted_comes_first_and_starts_its_curve_anew(folder):
    before = book(GRID, folder)
    finish(before, 0.5)
    second, third = before.next(), before.next()
    before.update(third.validated(SSIM, 1, {"ssim": 0.4}))
    after = book(GRID, folder)
    assert [after.next().name for _ in range(3)] == [second.name, third.name, "a=2 seed=8"]
    assert after.trial(third.number).curve == ()
    assert after.next() is None
    assert not after.is_finished


def test_a_trial_that_failed_runs_again_when_asked_to(folder):
    before = book(GRID, folder)
    before.update(dataclasses.replace(before.next(), state="failed", reason="no space"))
    assert book(GRID, folder).next().number == 1
    retried = Book(GRID, SSIM, storage="s3://b/runs", folder=folder, retry_failed=True).next()
    assert (retried.number, retried.state, retried.reason) == (0, "running", "")


def test_a_trial_keeps_the_scores_of_its_best_epoch_and_counts_each_epoch_once():
    trial = Trial(number=0, name="t", values={}, run="r")
    for epochs, ssim in ((1, 0.5), (2, 0.7), (2, 0.9), (3, 0.7), (4, float("nan")), (5, 0.6)):
        trial = trial.validated(SSIM, epochs, {"ssim": ssim, "psnr": 30.0 + epochs})
    assert trial.curve == ((1, 0.5), (2, 0.7), (3, 0.7), (5, 0.6))
    assert (trial.epoch, trial.scores) == (2, {"ssim": 0.7, "psnr": 32.0})
    assert trial.score(SSIM) == 0.7
    assert trial.score(dataclasses.replace(SSIM, goal="minimize")) == 0.5


def test_a_search_that_was_killed_proposes_what_it_would_have_proposed(folder, tmp_path):
    whole = book(SEARCH, folder)
    trials = [finish(whole, 1 / (1 + number)) for number in range(8)]
    other = SweepFolder(LocalStore(tmp_path / "other"))
    for trial in trials[:5]:
        other.save(trial)
    after = book(SEARCH, other)
    assert [finish(after, 1 / (1 + number)).values for number in range(5, 8)] == [trial.values for trial in trials[5:]]
    assert len({trial.name for trial in trials}) == 8


def test_a_bayesian_search_tries_every_point_of_a_small_space_and_none_twice(folder):
    parameters = {"kind": Choice(values=("a", "b", "c")), "n": IntUniform(min=1, max=3)}
    whole = book(dataclasses.replace(SEARCH, parameters=parameters, run_cap=9), folder)
    trials = [finish(whole, 1.0 if number == 0 else 0.1) for number in range(9)]
    assert {tuple(trial.values.values()) for trial in trials} == set(itertools.product("abc", (1, 2, 3)))
    assert len({trial.run for trial in trials}) == 9


def test_rates_that_read_alike_have_runs_of_their_own(folder):
    rates = (0.12345678, 0.12345679, 0.5)
    trials = book(dataclasses.replace(GRID, parameters={"optim.lr": Choice(values=rates)}), folder)
    names = [finish(trials, 0.5).name for _ in rates]
    assert names == ["lr=0.123457", "lr=0.12345679", "lr=0.5"]
    assert [trial.run for trial in trials.trials] == [f"s3://b/runs/s/{name}" for name in names]


def test_values_of_one_spelling_have_runs_of_their_own(folder):
    spec = dataclasses.replace(GRID, parameters={"model.a": Choice(values=(8, [8], "8"))})
    trials = book(spec, folder)
    runs = [finish(trials, 0.5).run for _ in range(3)]
    assert runs[0] == "s3://b/runs/s/a=8"
    assert len(set(runs)) == 3


def test_of_two_trials_that_an_old_sweep_gave_one_folder_one_goes_on_and_one_is_drawn_again(folder):
    search = dataclasses.replace(SEARCH, method="random", parameters={"n": IntUniform(min=2, max=3)}, run_cap=2)
    first = book(search, folder).next()
    folder.save(dataclasses.replace(first, number=1))
    again = book(search, folder)
    trials = [finish(again, 0.5) for _ in range(2)]
    assert trials[0].run == first.run
    assert {trial.values["n"] for trial in trials} == {2, 3}
    assert trials[1].run != first.run
    folder.save(dataclasses.replace(trials[0], number=1))
    assert [trial.number for trial in book(search, folder).trials] == [0, 1]


@pytest.mark.parametrize(("goal", "sign"), [("maximize", -1), ("minimize", 1)])
def test_a_search_finds_the_better_end(folder, goal, sign):
    metric = dataclasses.replace(SSIM, goal=goal)
    search = dataclasses.replace(SEARCH, parameters={"lr": LogUniform(min=1e-5, max=1e-1)}, metric=metric, run_cap=40)
    trials = Book(search, metric, storage="s3://b/runs", folder=folder)
    for _ in range(40):
        trial = trials.next()
        score = sign * abs(trial.values["lr"] - 1e-2)
        state = "failed" if trial.number == 3 else "stopped" if trial.number % 5 == 0 else "finished"
        trials.update(dataclasses.replace(trial.validated(metric, 1, {"ssim": score}), state=state))
    late = [trial.values["lr"] for trial in trials.trials[20:]]
    assert sorted(late)[len(late) // 2] == pytest.approx(1e-2, rel=0.6)


@pytest.mark.parametrize("content", [b"{", b"[]", json.dumps({"number": "three"}).encode()])
def test_a_damaged_trial_is_named_with_the_remedy(folder, tmp_path, content):
    finish(book(GRID, folder), 0.5)
    (tmp_path / "trials" / "00000.json").write_bytes(content)
    with pytest.raises(PayloadError, match=r"trials/00000\.json: is no.*Remove it"):
        book(GRID, folder)


def test_the_table_has_a_row_per_trial_and_no_times(folder):
    trials = book(GRID, folder)
    finish(trials, 0.5)
    finish(trials, 0.75)
    failed = trials.update(dataclasses.replace(trials.next(), state="failed", reason="loss, not finite", wall_s=3.0))
    lines = table_csv(list(GRID.parameters), trials.trials).splitlines()
    assert lines[0] == "number,name,model.a,seed,state,epoch,ssim,reason,run"
    assert lines[2] == '1,a=1 seed=8,1,8,finished,1,0.75,,"a=1,seed=8"'
    assert lines[3] == '2,a=2 seed=7,2,7,failed,0,,"loss, not finite","a=2,seed=7"'
    assert [trial.number for trial in ranked(trials.trials, SSIM)] == [1, 0, failed.number]
