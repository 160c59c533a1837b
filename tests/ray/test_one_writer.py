"""One writer per run and per sweep: the second is refused with who it is, and one that was followed writes nothing more."""

import threading

import pytest

from echotrain.errors import LeaseError
from echotrain.orchestration.jobs.tuning import run_sweep
from echotrain.storage.lease import held, take
from echotrain.storage.open import open_store
from echotrain.sweeps.parameters import Choice
from echotrain.sweeps.spec import SweepSpec
from tests.local_cluster import lines, run

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def test_a_second_start_of_a_run_is_refused_and_the_first_goes_on_and_gives_the_folder_back(experiment, kept):
    refused = []

    def second(record):
        if record["kind"] == "start":
            with pytest.raises(LeaseError) as caught:
                run(experiment, "log_every=2")
            refused.append(str(caught.value))

    first = run(experiment, on_record=second, workers=kept)
    assert len(refused) == 1
    assert "run: is being written by another, process" in refused[0] or "debug: is being written by another, process" in refused[0]
    assert first.is_finished
    assert [line["global_step"] for line in lines(first) if line["kind"] == "train"] == list(range(1, 11))
    assert run(experiment, "epochs=3", workers=kept).is_finished


def test_a_run_that_was_followed_stops_before_it_writes_anything_more(experiment, kept):
    store = open_store(experiment.run_uri)
    seen = {}

    def follow(record):
        if record["kind"] == "train" and record["global_step"] >= 5 and not seen:
            lease = take(store, under="lab/sweep")
            seen.update({info.key: info for info in store.list() if not info.key.startswith("lease/")}, lease=lease)

    with pytest.raises(LeaseError, match="taken over from this process"):
        run(experiment, "epochs=40", "checkpoint_every=2", on_record=follow, under="lab/sweep", workers=kept)
    lease = seen.pop("lease")
    # Written in the instant between the take-over and the look at what is there: at most nothing.
    assert {info.key: info for info in store.list() if not info.key.startswith("lease/")} == seen
    lease.check()
    lease.release()


def test_a_run_that_is_asked_to_stop_gives_its_folder_back(experiment, kept):
    asked = threading.Event()

    def ask(record):
        if record["kind"] == "train":
            asked.set()

    stopped = run(experiment, "epochs=40", asked=asked, on_record=ask, workers=kept)
    assert not stopped.is_finished
    with held(open_store(experiment.run_uri)), pytest.raises(LeaseError):
        run(experiment, "epochs=40")


def test_a_second_start_of_a_sweep_is_refused_before_a_trial_starts(experiment, tmp_path):
    spec = SweepSpec(name="grid", recipe="varnet_mosaic_x4_debug", method="grid", parameters={"seed": Choice(values=(1, 2))})
    store = open_store(str(tmp_path / "grid"))
    with held(store), pytest.raises(LeaseError, match="grid: is being written by another"):
        run_sweep(spec, experiment)
    assert not [info.key for info in store.list() if not info.key.startswith("lease/")]
