"""A run's records as gauges, set again and again while the run lives, and never in its way."""

import logging
import threading
import time

import pytest

from echotrain.orchestration.runtime.prometheus import GAUGES, PrometheusSink, gauges_of

START = {
    "kind": "start",
    "epochs": 4,
    "epoch": 1,
    "step": 5,
    "global_step": 25,
    "steps_per_epoch": 20,
    "workers": 2,
    "parameters": 1000,
    "device": "cpu",
    "processes": ["host:1", "host:2"],
}
TRAIN = {
    "kind": "train",
    "epoch": 1,
    "step": 10,
    "steps_per_epoch": 20,
    "global_step": 30,
    "loss": 0.5,
    "matching": 0.2,
    "expert/0": 0.75,
    "expert/1": 0.25,
    "lr": 1e-3,
    "grad_norm": 2.0,
    "loss_step": 0.4,
    "samples_per_s": 16.0,
    "bytes_per_s": 1e6,
    "step_s": 0.25,
    "data_wait_s": 0.05,
}
EPOCH = {"kind": "epoch", "epoch": 1, "global_step": 40, "loss": 0.6, "ssim": 0.9, "psnr": 33.0, "is_best": True, "validation_s": 3.0}


class Gauges:
    """Stands for Ray's: remembers what was set, and how often."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str, str], float] = {}
        self.rounds = 0
        self.again = threading.Condition()

    def make(self, name, description, tag_keys):
        assert description

        class Gauge:
            def set(_, value, tags):
                assert tuple(tags) == tag_keys
                with self.again:
                    self.values[name, tags["run"], tags.get("metric", "")] = value
                    self.rounds += name == "echotrain_last_record_timestamp_seconds"
                    self.again.notify_all()

        return Gauge()

    def wait_for_rounds(self, count: int) -> None:
        with self.again:
            assert self.again.wait_for(lambda: self.rounds >= count, timeout=10)


def plain(record):
    return {name: value for (name, metric), value in gauges_of(record, now=100.0).items() if not metric}


def test_a_start_tells_the_place_the_target_and_when():
    assert plain(START) == {
        "echotrain_epoch": 1.25,
        "echotrain_epochs": 4,
        "echotrain_global_step": 25,
        "echotrain_last_record_timestamp_seconds": 100,
        "echotrain_start_timestamp_seconds": 100,
        "echotrain_workers": 2,
    }


def test_a_training_record_gives_speed_waiting_and_learning_and_all_else_as_the_tasks():
    values = gauges_of(TRAIN, now=100.0)
    assert plain(TRAIN) == {
        "echotrain_data_wait_ratio": pytest.approx(0.2),
        "echotrain_data_wait_seconds": 0.05,
        "echotrain_epoch": 1.5,
        "echotrain_global_step": 30,
        "echotrain_gradient_norm": 2.0,
        "echotrain_last_record_timestamp_seconds": 100,
        "echotrain_learning_rate": 1e-3,
        "echotrain_loss": 0.5,
        "echotrain_read_bytes_per_second": 1e6,
        "echotrain_samples_per_second": 16.0,
        "echotrain_step_seconds": 0.25,
    }
    assert {key: value for key, value in values.items() if key[1]} == {
        ("echotrain_task", "matching"): 0.2,
        ("echotrain_task", "expert/0"): 0.75,
        ("echotrain_task", "expert/1"): 0.25,
    }


def test_an_epoch_gives_scores_and_leaves_the_loss_of_the_last_steps():
    values = gauges_of(EPOCH, now=100.0)
    assert values["echotrain_score", "ssim"] == 0.9
    assert values["echotrain_score", "psnr"] == 33.0
    assert values["echotrain_epoch", ""] == 2.0
    assert values["echotrain_validation_seconds", ""] == 3.0
    assert not {("echotrain_loss", ""), ("echotrain_score", "is_best"), ("echotrain_score", "loss")} & values.keys()


def test_every_gauge_is_set_by_some_record_and_no_other_is():
    made = {name for record in (START, TRAIN, EPOCH) for name, _ in gauges_of(record, now=0.0)}
    assert made == GAUGES.keys()


def test_values_are_set_again_until_the_run_closes_and_never_after():
    gauges = Gauges()
    sink = PrometheusSink("knee", period_s=0.02, gauge=gauges.make)
    sink.log(START)
    sink.log(TRAIN)
    gauges.wait_for_rounds(5)
    assert gauges.values["echotrain_epochs", "knee", ""] == 4
    assert gauges.values["echotrain_task", "knee", "expert/0"] == 0.75
    sink.close()
    rounds = gauges.rounds
    time.sleep(0.1)
    assert gauges.rounds == rounds


def test_closing_sets_what_was_logged_last():
    gauges = Gauges()
    sink = PrometheusSink("knee", period_s=60.0, gauge=gauges.make)
    sink.log(TRAIN)
    gauges.wait_for_rounds(1)
    sink.log(EPOCH)
    sink.close()
    assert gauges.values["echotrain_score", "knee", "ssim"] == 0.9


def test_metrics_that_fail_are_told_about_once_and_do_not_reach_the_run(caplog):
    def fail(*args, **kwargs):
        raise RuntimeError("no metrics agent")

    sink = PrometheusSink("knee", period_s=0.01, gauge=fail)
    with caplog.at_level(logging.WARNING, logger="echotrain.orchestration.runtime.prometheus"):
        for _ in range(3):
            sink.log(TRAIN)
            time.sleep(0.03)
        sink.close()
    assert [record.getMessage() for record in caplog.records] == ["Prometheus does not see run knee any more; it goes on"]


def test_a_long_name_keeps_its_end_where_trials_differ():
    gauges = Gauges()
    sink = PrometheusSink("s" * 200 + "/trial-7", period_s=60.0, gauge=gauges.make)
    sink.log(START)
    sink.close()
    (run,) = {run for _, run, _ in gauges.values}
    assert len(run) == 128
    assert run.endswith("/trial-7")
