"""Faults of training: a worker that dies, a loss that is not a number, a run that cannot be, a checkpoint that is another's."""

import signal

import pytest
import ray

from echotrain.config import override
from echotrain.errors import CatalogError, CheckpointError, ConfigError, ResourceError, StorageError, TrainingError
from echotrain.orchestration.runtime.group import Workers
from echotrain.orchestration.runtime.notes import Notes
from echotrain.recipes.registry import RECIPES
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import find_checkpoint
from tests.local_cluster import assert_same_run, kill_once, lines, run
from tests.simulated import write_cine_catalog

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def test_workers_that_are_ended_are_replaced_and_the_run_ends_as_if_nothing_had_happened(experiment, whole):
    """SIGTERM writes a checkpoint of its own, where there is none besides; SIGKILL goes back to the last one."""
    records = []
    term, by_term = kill_once(3, 1, signal.SIGTERM)
    kill, by_kill = kill_once(6, 0, signal.SIGKILL)

    def watch(record):
        records.append(record)
        term(record)
        kill(record)

    cut = run(experiment, "name=cut", "workers=2", "checkpoint_every=1000", on_record=watch)
    assert by_term
    assert by_kill
    _, second, third = (record["global_step"] for record in records if record["kind"] == "start")
    assert 3 <= second < 6
    assert third == max(second, 5)  # At the end of an epoch, after five steps, there is one as well.
    assert_same_run(whole, cut)
    assert [line["global_step"] for line in lines(cut)] == [line["global_step"] for line in lines(whole)]


def test_a_run_whose_driver_is_cut_off_from_its_workers_ends_with_the_reason_and_is_resumed(experiment, whole):
    notes = Notes()

    def cut(record):
        if record["kind"] == "train" and record["global_step"] == 3:
            ray.kill(notes._keeper)

    with Workers(notes) as workers, pytest.raises(TrainingError, match="between the command and its workers: died"):
        run(experiment, "name=cut-off", "workers=2", "checkpoint_every=2", workers=workers, on_record=cut)
    assert_same_run(whole, run(experiment, "name=cut-off", "workers=2", "checkpoint_every=2"))


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    return write_cine_catalog(tmp_path_factory.mktemp("hearts"))


@pytest.mark.parametrize(
    ("recipe", "settings", "cut_in"),
    [
        ("varnet_cmrxrecon_debug", ["data.num_adjacent=3", "model.num_adjacent=3", "data.mask.acs_lines=6"], "rank"),
        ("mae_debug", ["data.scaling=volume"], "cluster"),
    ],
)
def test_a_worker_that_is_killed_over_windows_of_frames_or_over_images_costs_no_number_wherever_they_are_made(
    local_ray, hearts, tmp_path, recipe, settings, cut_in, kept
):
    place = [f"data.catalog={hearts}", f"storage={tmp_path}", "workers=2", "checkpoint_every=2", "batch_size=8", "epochs=1", "log_every=1"]
    experiment = override(RECIPES[recipe](), [*settings, *place])
    whole = run(experiment, "name=whole", workers=kept)
    assert_same_run(whole, run(experiment, "name=elsewhere", "stream.where=cluster", workers=kept))
    hook, done = kill_once(3, 1, signal.SIGKILL)
    cut = run(experiment, "name=cut", f"stream.where={cut_in}", on_record=hook, workers=kept)
    assert done
    assert_same_run(whole, cut)
    assert [line["loss"] for line in lines(cut) if "loss" in line] == [line["loss"] for line in lines(whole) if "loss" in line]


def test_a_loss_that_is_not_finite_stops_at_once_and_names_the_slices(experiment):
    starts = []
    with pytest.raises(TrainingError, match=r"is not finite; samples: simulated/") as caught:
        run(experiment, "optim.lr=1e37", "workers=2", on_record=lambda record: starts.append(record) if record["kind"] == "start" else None)
    assert len(starts) == 1
    assert "step 1" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (["workers=5", "batch_size=5"], ResourceError, r"workers=5 of 1 CPU each.*more than the 4 that fit.*has 4 CPUs"),
        (["device=cuda"], ResourceError, "1 GPU each.*0 that fit.*device=cpu"),
        (["data.catalog=/nowhere/at/all"], CatalogError, "/nowhere/at/all.*holds no catalog"),
        (["data.catalog="], ConfigError, "data.catalog"),
        (["storage=/proc/runs"], StorageError, "/proc/runs"),
        (["data.anatomies=[wrist]"], CatalogError, "wrist"),
    ],
)
def test_what_cannot_work_is_refused_before_a_worker_starts(experiment, settings, error, message):
    started = []
    with pytest.raises(error, match=message):
        run(experiment, *settings, on_record=started.append)
    assert not started


def test_a_run_is_not_resumed_by_another_experiment_or_by_damaged_bytes(experiment):
    first = run(experiment, "epochs=1", "workers=1")
    with pytest.raises(CheckpointError, match=r"optim.lr was 0.001, now 0.1.*name="):
        run(experiment, "optim.lr=0.1")
    with pytest.raises(CheckpointError, match=r"model\.num_cascades"):
        run(experiment, "model.num_cascades=2")
    store = open_store(first.run_uri)
    key = find_checkpoint(store).key("weights")
    store.write(key, store.read(key)[:-100])
    with pytest.raises(CheckpointError, match=r"weights-.*is damaged"):
        run(experiment)
