"""What the processes of a job leave each other: it is there for all of them, its latest only, and its loss is not silent."""

import pytest
import ray

from echotrain.errors import TrainingError
from echotrain.orchestration.runtime.channel import GroupChannel, Order, RunChannel
from echotrain.orchestration.runtime.notes import Notes
from echotrain.training.experiment import Experiment

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


@ray.remote
def publish(notes, first, count):
    for number in range(first, first + count):
        RunChannel(notes, "run").publish({"kind": "train", "global_step": number})
    return RunChannel(notes, "run").is_stop_requested()


def test_what_a_worker_says_reaches_the_driver_in_order_and_goes_on_after_its_restart():
    notes = Notes()
    run, other = RunChannel(notes, "run"), RunChannel(notes, "other")
    run.request_stop()
    assert ray.get(publish.remote(notes, 0, 300))
    assert not other.is_stop_requested()
    (first, _), *_, (last, record) = run.records()
    assert (first, last, record["global_step"]) == (45, 300, 299)  # The latest 256.
    ray.get(publish.remote(notes, 300, 2))
    assert run.records(after=last) == [(number, {"kind": "train", "global_step": number - 1}) for number in (301, 302)]
    run.clear()
    assert (run.records(), run.is_stop_requested()) == ([], False)


@ray.remote
def count(notes, number):
    return notes.count("pieces", number)


def test_what_is_counted_is_counted_over_all_processes_until_it_is_forgotten():
    notes = Notes()
    assert [ray.get(count.remote(notes, number)) for number in (7, 7, 8)] == [1, 2, 1]
    assert notes.count("pieces", 7) == 3
    assert notes.count("others", 7) == 1
    notes.forget("pieces")
    assert (notes.count("pieces", 7), notes.count("others", 7)) == (1, 2)


def test_an_order_arrives_as_it_was_given_and_its_outcome_comes_back(experiment):
    group = GroupChannel(Notes(), "group")
    assert (group.order(), group.answered(), group.num_starts()) == (None, (0, {}), 0)
    group.send(Order(number=3, experiment=experiment, run_id="r", lease="token"))
    assert isinstance(experiment, Experiment)
    assert group.order() == Order(number=3, experiment=experiment, run_id="r", lease="token")
    group.count_start()
    group.count_start()
    group.answer(3, {"epoch": 1, "scores": {"ssim": 0.5}})
    assert (group.answered(), group.num_starts()) == ((3, {"epoch": 1, "scores": {"ssim": 0.5}}), 2)
    group.send(Order(number=4))
    assert group.order() == Order(number=4)


def test_notes_that_are_lost_say_so_and_are_not_taken_for_empty_ones():
    notes = Notes()
    notes.write("key", 1)
    ray.kill(notes._keeper)
    with pytest.raises(TrainingError, match="the process between the command and its workers: died"):
        notes.read("key")
    with pytest.raises(TrainingError, match="the same command resumes"):
        notes.write("key", 2)
