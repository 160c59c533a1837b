"""Sinks: nothing twice, nothing lost, readable."""

import io
import json
import threading

import numpy as np
import pytest
import wandb
from PIL import Image
from rich.console import Console
from toys import run_toy, toy_experiment, toy_meta, toy_state

from echotrain.data.catalog.identity import SampleId
from echotrain.errors import ConfigError
from echotrain.storage.local import LocalStore
from echotrain.storage.open import open_store
from echotrain.tasks.task import Panel, ScoreTable
from echotrain.training.checkpoint import CheckpointWriter
from echotrain.training.console import ConsoleProgress
from echotrain.training.experiment import WandbConfig
from echotrain.training.files import RunFiles
from echotrain.training.sinks import JsonLinesSink
from echotrain.training.wandb_sink import WandbSink
from tests.wandb_files import read_records


def record(step, **more):
    return {"kind": "train", "global_step": step, "loss": 1.0, **more}


def steps_in(store):
    return [json.loads(line)["global_step"] for line in store.read("metrics.jsonl").decode().splitlines()]


def test_lines_after_the_resumed_position_are_dropped_and_none_is_written_twice(tmp_path):
    store = open_store(str(tmp_path))
    first = JsonLinesSink(store)
    for step in range(1, 6):
        first.log(record(step))
    first.close()
    second = JsonLinesSink(store, lines=3)
    for step in range(4, 8):
        second.log(record(step))
    second.close()
    assert steps_in(store) == [1, 2, 3, 4, 5, 6, 7]


def test_a_number_that_is_not_finite_leaves_the_file_readable(tmp_path):
    sink = JsonLinesSink(open_store(str(tmp_path)))
    sink.log(record(1, grad_norm=float("inf")))
    sink.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["grad_norm"] is None


def test_lines_of_while_a_checkpoint_travels_are_not_taken_back_by_it(tmp_path):
    class Slow(LocalStore):
        def upload(self, path, key, *, consume=False):
            assert arrived.wait(10)
            super().upload(path, key, consume=consume)

    arrived, store = threading.Event(), Slow(tmp_path)
    sink, writer = JsonLinesSink(store, period_s=0.0), CheckpointWriter(store, keep=2)
    sink.log(record(1))
    experiment = toy_experiment()
    writer.save(toy_meta(experiment), toy_state(experiment).files(), is_best=False, before_marker=[sink.store_lines])
    for step in (2, 3):
        sink.log(record(step))
    sink._period_s = 1000.0
    sink.log(record(4))
    arrived.set()
    writer.close()
    sink.log(record(5))
    sink.close()
    assert steps_in(store) == [1, 2, 3, 4, 5]


def test_lines_that_are_gone_are_told(tmp_path, caplog):
    store = open_store(str(tmp_path))
    first = JsonLinesSink(store)
    first.log(record(1))
    first.close()
    assert JsonLinesSink(store, lines=1).num_lines == 1
    assert caplog.text == ""
    assert JsonLinesSink(store, lines=9).num_lines == 1
    assert "has 1 of the 9 lines that its checkpoint knows of" in caplog.text


def test_lines_are_written_before_the_end_now_and_then(tmp_path):
    store = open_store(str(tmp_path))
    sink = JsonLinesSink(store, period_s=0.0)
    sink.log(record(1))
    assert steps_in(store) == [1]


@pytest.mark.parametrize("is_terminal", [False, True])
def test_the_console_says_what_a_person_wants_to_know(tmp_path, is_terminal):
    out = io.StringIO()
    progress = ConsoleProgress(Console(file=out, force_terminal=is_terminal, width=160))
    records = []
    run_toy(toy_experiment(epochs=2, log_every=1), open_store(str(tmp_path)), records=records)
    for each in records:
        progress.log({"ssim": 0.5, **each} if each["kind"] == "epoch" else each)
    progress.close()
    text = out.getvalue()
    assert "starting: 145 parameters, 1 worker(s) on cpu, 2 epochs of 3 steps" in text
    assert "epoch 2/2 done" in text
    assert "ssim 0.5" in text
    assert ("step 2/3" in text) != is_terminal


def test_wandb_is_offline_without_a_key_and_everything_is_read_back(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    store = open_store(str(tmp_path / "run"))
    config = WandbConfig(project="lab", group="scaling")
    catalog = ("s3://lab/mosaic@3", {"checksum": "c0ffee", "version": 3})
    sink = WandbSink(config, store, run_id="abc123", name="num_cascades=8 seed=1", experiment={"optim": {"lr": 0.5}}, catalog=catalog)
    sink.log({"kind": "start", "epochs": 2})
    sink.log(record(1, loss=0.25))
    images = {"target": np.zeros((4, 4), np.float32), "error x5": np.ones((4, 4), np.float32)}
    small = {"target": np.ones((2, 3), np.float32), "error x5": np.ones((2, 3), np.float32)}
    panels = [
        Panel(sample=SampleId("simulated", name, 0), caption=f"simulated/{name} slice 0", images=shown, scale=1.0)
        for name, shown in (("v1", images), ("v2", small))
    ]
    sink.show(panels, 1)
    sink.tabulate(ScoreTable(title="anatomy", columns=("anatomy", "volumes", "ssim"), rows=(("knee", 3, 0.5), ("hip", 2, 0.25))), 1)
    sink.log({"kind": "epoch", "epoch": 0, "global_step": 1, "ssim": 0.75, "is_best": True})
    sink.close()
    keys = [info.key for info in store.list("wandb/")]
    (log,) = (key for key in keys if key.endswith("run-abc123.wandb"))
    found = list(read_records(tmp_path / "run" / log))
    (run,) = (message for kind, message in found if kind == "run")
    assert (run.run_id, run.project, run.run_group, run.display_name) == ("abc123", "lab", "scaling", "num_cascades=8 seed=1")
    settings = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert settings["optim"] == {"lr": 0.5}
    history = {}
    for kind, message in found:
        if kind == "history":
            history.update({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in message.item})
    assert history["train/loss"] == 0.25
    assert history["epoch/ssim"] == 0.75
    assert history["anatomy/hip/ssim"] == 0.25
    assert history["global_step"] == 1
    assert history["validation/captions"] == [f"simulated/{name} slice 0: target | error x5" for name in ("v1", "v2")]
    pictures = [Image.open(io.BytesIO(store.read(key))) for key in keys if key.endswith(".png")]
    assert [picture.size for picture in pictures] == [(8, 4), (8, 4)]
    (table,) = (key for key in keys if key.endswith(".table.json"))
    assert json.loads(store.read(table))["data"] == [["knee", 3, 0.5], ["hip", 2, 0.25]]
    (data,) = (message for kind, message in found if kind == "artifact" and message.type == "dataset")
    assert [entry.ref for entry in data.manifest.contents] == ["s3://lab/mosaic@3"]
    assert json.loads(data.metadata)["checksum"] == "c0ffee"


def test_a_sink_that_fails_to_close_costs_no_checkpoint(tmp_path):
    class Broken:
        def close(self):
            raise OSError("the dashboard is gone")

    class Writer:
        is_closed = False

        def close(self):
            self.is_closed = True

    writer, metrics = Writer(), JsonLinesSink(open_store(str(tmp_path)))
    metrics.log(record(1))
    RunFiles(writer=writer, metrics=metrics, sinks=[Broken()]).close()
    assert writer.is_closed
    assert steps_in(open_store(str(tmp_path))) == [1]


def test_wandb_that_does_not_start_is_told_with_the_way_round_it(tmp_path, monkeypatch):
    def refuses(**settings):
        raise wandb.errors.CommError("permission denied")

    monkeypatch.setattr(wandb, "init", refuses)
    with pytest.raises(ConfigError, match=r"wandb\.project=.*permission denied.*wandb\.enabled=false"):
        WandbSink(WandbConfig(), open_store(str(tmp_path)), run_id="r", name="n", experiment={})


def test_a_run_goes_on_offline_while_wandb_is_away(tmp_path, monkeypatch):
    asked = []
    start = wandb.init

    def is_away(**settings):
        asked.append(settings["mode"])
        if settings["mode"] == "online":
            raise wandb.errors.CommError("timed out")
        return start(**settings)

    monkeypatch.setattr(wandb, "init", is_away)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    sink = WandbSink(WandbConfig(), open_store(str(tmp_path)), run_id="r", name="n", experiment={})
    sink.log(record(1))
    sink.close()
    assert asked == ["online", "offline"]
    assert list((tmp_path / "wandb").glob("offline-run-*"))
